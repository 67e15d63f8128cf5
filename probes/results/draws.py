"""Which sentences are drawn: by id, the same draws for every model.

Every probe is a statistic of weighted examples. `Sample.weights` holds one row of weights an id:
row 0 is all ones (the sample itself), every further row is one bootstrap draw, how often each id
was drawn. Ids are drawn, not rows, so that translations stay together; where a corpus has groups,
whole groups are drawn, so that all ids of one have the same weight. The draws depend on the ids,
their groups and the seed alone, so that two models get the same ones and their difference is
paired. A statistic for all rows of weights is one matrix product. Of very many ids the weights are
made anew wherever some of them are needed (`probes/results/counts.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from probes.corpus import SEVERAL, check_groups
from probes.errors import InputError
from probes.results.counts import AT_ONCE, Counts, Weights, sums_over
from probes.results.intervals import widened
from probes.states.representations import check_representations

POOLED = "pooled"
# What else there is to do with labels of words.
OF_WORDS = "probes.each_token(reps) makes an example of each word of what was captured with words=True"


@dataclass(frozen=True)
class Sample:
    """The examples of Representations as numbers, and the weights of every draw."""

    ids: np.ndarray  # (example,) codes
    languages: list[str]
    language: np.ndarray  # (example,) codes
    classes: list[str]
    label: np.ndarray  # (example,) codes, empty without labels
    weights: Weights  # (1 + draws, ids)
    units: np.ndarray  # (ids,) what is drawn together: the number of the group of each id, or of the id itself
    key: str  # the same for two results if and only if their draws are the same
    other: str = ""  # a column of labels that are none of a text: those of words, or several

    @property
    def grouped(self) -> bool:
        """Whether groups of ids are drawn; groups of one id each are none."""
        return len(self.units) > self.units.max() + 1

    @property
    def what(self) -> str:
        """What is drawn, in words."""
        return "groups of sentences" if self.grouped else "sentence ids"

    def over(self, example: np.ndarray) -> Sample:
        """Return the sample of what examples hold several of, as words: as many rows as there are
        numbers (row,) of the examples that they are of, drawn with these; without labels.
        """
        none = np.zeros(0, int)
        return replace(self, ids=self.ids[example], language=self.language[example], label=none, classes=[])

    def group(self, language: str) -> np.ndarray:
        """Return the rows of a language, or of all of them."""
        if language == POOLED:
            return np.arange(len(self.ids))
        return np.flatnonzero(self.language == self.languages.index(language))


def sample(reps: xr.Dataset, *, draws: int, seed: int) -> Sample:
    """Number the ids, languages and, where there are any, labels of Representations, and draw the
    ids, or whole groups of them.

    Raises:
        InputError: fewer than 2 draws, or a seed that is none; an id lies in two groups, or all ids
            in one.
    """
    check_representations(reps)
    check_draws(draws, seed)
    # Sorted, so that shuffled rows get the same draws.
    ids, names = pd.factorize(reps["id"].values, sort=True)
    language, languages = pd.factorize(reps["language"].values)
    label, classes = np.zeros(0, int), np.zeros(0, object)
    if "label" in reps.coords:
        label, classes = pd.factorize(reps["label"].values, sort=True)
    units = _units(reps, ids, len(names))
    parts = [*map(str, names), str(seed), str(draws)]
    if len(units) > units.max() + 1:  # groups of one id each are none
        parts += map(str, units)
    weights: Weights
    if (int(units.max()) + 1) * draws > AT_ONCE:
        parts.append("each by itself")
        weights = Counts(units, draws, seed)
    else:
        weights = balanced_weights(int(units.max()) + 1, draws, seed)[:, units]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    other = next((column for column in reversed(SEVERAL) if column in reps.coords), "")
    return Sample(ids, list(languages), language, list(classes), label, weights, units, key, other)


def need_classes(drawn: Sample) -> Sample:
    """Return the sample; raise `InputError` where it has no labels, or only one class."""
    if not len(drawn.label):
        of = {
            "tags": f"its tags are of words: accuracy and loyalty read them, and {OF_WORDS}",
            "labels": "its labels are several of a text: accuracy and loyalty read them",
        }
        also = f" ({of[drawn.other]})" if drawn.other else ""
        raise InputError(
            f"this probe needs labels, and the Representations have none{also}. Capture a corpus with a label"
        )
    if len(drawn.classes) < 2:
        raise InputError(f"this probe compares classes, and there is only one: {drawn.classes[0]!r}")
    return drawn


def check_draws(draws: int, seed: int) -> None:
    """Raise `InputError` where draws and seed cannot be used, or the draws are too few."""
    if not isinstance(draws, int | np.integer) or draws < 2:
        raise InputError(f"draws={draws!r}: expected a whole number of at least 2; 200 is the default")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r}: expected a whole number of at least 0")


def _units(reps: xr.Dataset, ids: np.ndarray, count: int) -> np.ndarray:
    """The number of the group of each id, in order of the first id of each: names do not matter."""
    if "group" not in reps.coords:
        return np.arange(count)
    groups = reps["group"].values
    check_groups(reps["id"].values, groups, f"model {reps.attrs.get('model', '?')}")
    of_id = np.empty(count, dtype=object)
    of_id[ids] = groups
    units, names = pd.factorize(of_id)
    if len(names) == 1 < count:
        raise InputError(
            f"all {count} ids lie in one group, {names[0]!r}, so that there is nothing to draw. Name the column of a "
            "smaller unit with group=..., or leave the groups out"
        )
    return units


def balanced_weights(n: int, draws: int, seed: int) -> np.ndarray:
    """Return how often each of n ids, or groups, is there in the sample itself, once, and in each
    draw, (1 + draws, n).

    A balanced bootstrap: over all draws every id is drawn equally often, so that their mean has no
    noise of its own.

    Example:
        >>> balanced_weights(2, 4, seed=0).sum(axis=1).tolist()
        [2, 2, 2, 2, 2]
    """
    pool = np.tile(np.arange(n, dtype=np.int32), draws)
    np.random.default_rng(seed).shuffle(pool)
    weights = np.ones((draws + 1, n), np.uint16)
    for row, drawn in zip(weights[1:], pool.reshape(draws, n), strict=True):
        row[:] = np.bincount(drawn, minlength=n)
    return weights


def weighted_means(drawn: Sample, values: np.ndarray) -> dict[str, np.ndarray]:
    """Weighted means of values (example, ...) in every language and pooled: (1 + draws, ...)."""
    return weighted_ratios(drawn, values, np.ones(len(values)))


def weighted_ratios(drawn: Sample, above: np.ndarray, below: np.ndarray) -> dict[str, np.ndarray]:
    """Ratios of two weighted sums over examples, in every language and pooled: (1 + draws, ...).

    Means of what examples have several of, as tokens.

    Args:
        drawn: the sample.
        above: (example, ...) what is summed.
        below: (example,) of how many it is the sum.
    """
    out = {}
    for group in [*drawn.languages, POOLED]:
        rows = drawn.group(group)
        ids = drawn.ids[rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            of = sums_over(drawn.weights, ids, below[rows]).reshape(-1, *(1 for _ in above.shape[1:]))
            summed = sums_over(drawn.weights, ids, above[rows]) / of
        out[group] = spread(drawn, summed, rows)
    return out


def spread(drawn: Sample, statistics: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Spread the draws (1 + draws, ...) of a statistic of some rows as widely as the number of
    their groups warrants, which are often few (Student's t); without groups they stay.
    """
    if not drawn.grouped:
        return statistics
    return widened(statistics, np.array([len(np.unique(drawn.units[drawn.ids[rows]]))]))
