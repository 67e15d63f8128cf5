"""What the probes of alignment share: sentences and translations, paired with the pivot by id."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.errors import InputError
from probes.measures.probe import Probe, Run
from probes.results.counts import Weights
from probes.results.draws import POOLED
from probes.results.result import result
from probes.states.representations import as_numbers, directions, rows_of

# A declaration of a probe of alignment: what all of them say, so that each says the rest.
of_alignment = partial(
    Probe,
    family="alignment",
    better="higher",
    higher_is="better aligned",
    unchanged_by=("rotation", "common scale", "length of each vector", "order"),
    needs=("pivot",),
    default=True,
)


class Pairs(NamedTuple):
    """Sentences and their translations, in one order, read at unit length when they are needed."""

    read: Callable[[slice], tuple[np.ndarray, np.ndarray]]
    group: np.ndarray  # (sentence,) what is drawn together, in order
    features: int

    @property
    def size(self) -> int:
        """The number of sentences."""
        return len(self.group)

    def pieces(self, most: int) -> Iterator[slice]:
        """Yield pieces of about so many sentences, of whole groups."""
        starts = self.starts_of_groups(slice(0, self.size))
        next_group = np.unique(np.searchsorted(starts, np.arange(most, self.size, most)))
        for start, stop in itertools.pairwise([0, *starts[next_group[next_group < len(starts)]], self.size]):
            yield slice(start, stop)

    def starts_of_groups(self, part: slice) -> np.ndarray:
        """Return where the groups of a piece begin in it."""
        return np.flatnonzero(np.r_[True, np.diff(self.group[part]) != 0])

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all sentences, and all translations: (sentence, feature) each."""
        return self.read(slice(0, self.size))


def pairs_of(x: np.ndarray, y: np.ndarray) -> Pairs:
    """Return pairs of arrays (sentence, feature) at unit length, each sentence a group of its own."""
    return Pairs(lambda rows: (x[rows], y[rows]), np.arange(len(x)), x.shape[1])


Statistic = Callable[[Pairs, Weights], np.ndarray]  # of pairs, for every row of weights


def of_arrays(statistic: Statistic, probe: str, fewest: int, x: npt.ArrayLike, y: npt.ArrayLike | None) -> float:
    """Return the value of a statistic on two arrays (sentence, feature), without an interval."""
    if y is None or np.shape(x) != np.shape(y) or np.ndim(x) != 2:
        found = None if y is None else np.shape(y)
        raise InputError(
            "expected two arrays (sentence, feature) of one shape, translations in the same order; "
            f"found {np.shape(x)} and {found}"
        )
    sides = [as_numbers(side) for side in (x, y)]
    if 0 in sides[0].shape or any(side.dtype.kind not in "fiub" for side in sides):
        raise InputError(f"expected arrays of numbers; found {sides[0].dtype} and {sides[1].dtype} {sides[0].shape}")
    count = len(sides[0])
    if count < fewest:
        raise InputError(f"{probe}: expected at least {fewest} sentences; found {count}")
    with np.errstate(invalid="ignore", divide="ignore"):
        units = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (side.astype(np.float64) for side in sides)]
    return float(statistic(pairs_of(units[0], units[1]), np.ones((1, count), np.uint16))[0])


def of_languages(statistic: Statistic, probe: Probe, run: Run, fewest: int) -> xr.Dataset:
    """Return a statistic of every language against the pivot at every layer, and their mean."""
    reps, drawn, pivot = run.reps, run.sample, pivot_of(run, probe.name, fewest)
    at_pivot = drawn.group(pivot)
    used: dict[str, np.ndarray] = {}
    pairs: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for language in drawn.languages:
        if language == pivot:
            continue
        rows = drawn.group(language)
        ids, here, there = np.intersect1d(drawn.ids[rows], drawn.ids[at_pivot], assume_unique=True, return_indices=True)
        # Whole groups, and else in the order of the corpus, so that a store is read from front to back.
        of_group = drawn.units[ids]
        apart = len(np.unique(of_group)) == len(of_group)
        order = np.argsort(rows[here]) if apart else np.lexsort((rows[here], of_group))
        used[language] = rows[here][order]
        pairs[language] = at_pivot[there][order], of_group[order], ids[order]
    out = {language: np.empty((len(drawn.weights), reps.sizes["layer"])) for language in pairs}
    for layer in range(reps.sizes["layer"]):
        read = rows_of(reps, layer, directions)
        for language, (there, of_group, ids) in pairs.items():
            of_one = Pairs(_reader(read, used[language], there), of_group, reps.sizes["feature"])
            out[language][:, layer] = statistic(of_one, drawn.weights.take(ids, axis=1))
    # Every language counts equally, however many sentences it has.
    out[POOLED] = np.mean(list(out.values()), axis=0)
    used[POOLED] = np.concatenate(list(used.values()))
    return result(reps, drawn, out, probe.about() | {"pivot": pivot}, rows=used, bounds=probe.bounds)


def _reader(
    read: Callable[[np.ndarray], np.ndarray], here: np.ndarray, there: np.ndarray
) -> Callable[[slice], tuple[np.ndarray, np.ndarray]]:
    return lambda rows: (read(here[rows]), read(there[rows]))


def pivot_of(run: Run, probe: str, fewest: int) -> str:
    """Return the pivot; raise `InputError` where there is none, or it does not fit the examples."""
    if run.pivot is None:
        raise InputError("expected pivot=..., the language that every other one is compared with")
    check_pivot(run.reps["id"].values, run.reps["language"].values, run.pivot, probe, fewest)
    return run.pivot


def checked(probe: str, fewest: int) -> Callable[[Run], None]:
    """Return the check of a declaration: the pivot is there, and shares enough ids with every
    language.
    """

    def check(run: Run) -> None:
        if run.pivot is not None:
            check_pivot(run.reps["id"].values, run.reps["language"].values, run.pivot, probe, fewest)

    return check


def check_pivot(ids: np.ndarray, languages: np.ndarray, pivot: str, probe: str, fewest: int = 1) -> None:
    """Raise `InputError` where a pivot is unknown, or a language shares too few ids with it."""
    there = list(dict.fromkeys(languages.tolist()))
    if pivot not in there:
        raise InputError(f"pivot {pivot!r}: no such language in the corpus; there are {', '.join(map(repr, there))}")
    if len(there) < 2:
        raise InputError(f"{probe} compares languages with the pivot {pivot!r}, and there is no other language")
    known = set(ids[languages == pivot].tolist())
    for language in there:
        shared = len(known.intersection(ids[languages == language].tolist()))
        if shared < fewest:
            raise InputError(
                f"{probe}: language {language!r} shares {shared or 'no'} id{'' if shared == 1 else 's'} with the pivot "
                f"{pivot!r}, and needs at least {fewest}. The same id must stand for the same sentence in "
                "every language"
            )
