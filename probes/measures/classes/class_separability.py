"""Class separability: the share of the cosine distance that lies between classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, reduce
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.measures.classes.class_pairs import PairMeans, Parts, parts_of
from probes.measures.classes.labels import FEWEST, labelled, measured, of_labels
from probes.measures.probe import LARGE, THIS_SIZE, Probe, Run
from probes.results.draws import Sample, sample
from probes.states.representations import BLOCK, directions, rows_of


@overload
def class_separability(
    x: xr.Dataset,
    labels: None = None,
    *,
    self_pairs: bool = False,
    fewest: int = FEWEST,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset: ...


@overload
def class_separability(
    x: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    self_pairs: bool = False,
    fewest: int = FEWEST,
    draws: int = 200,
    seed: int = 0,
) -> float: ...


def class_separability(
    x: xr.Dataset | npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    self_pairs: bool = False,
    fewest: int = FEWEST,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure the share of the cosine distance between examples that lies between their classes.

    R2 = 1 - within / total: `within` is the mean cosine distance of two examples of one class,
    `total` of any two, all classes and all pairs of classes counting equally. Up to 1, higher is
    better separated; 0 where labels say nothing, and by chance below it.

    Args:
        x: Representations with labels, or an array (example, feature).
        labels: (example,) beside an array.
        self_pairs: count pairs of an example with itself, and of one with its translation, as the
            paper does. They raise the value by about (1 - R2) / (examples a class).
        fewest: classes with fewer sentences in a language are left out there, and a warning names
            them; at least 2.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)`, with all languages together as `pooled`; for an array
        a float.

    Raises:
        InputError: there are no labels, or only one class.

    Notes:
        After Kornblith, Chen, Lee and Norouzi 2021, arXiv 2010.16402, but over pairs of different
        sentences; pairs of translations, and of two texts of one group, are left out as well. With
        self pairs it is `class_separability_with_self_pairs` in `compare`, and the interval is for
        the mean over corpora of this size. Draws are of first order. Memory does not grow with the
        corpus.

    See also:
        `snr`, `variability`, `linear_probe`.

    Example:
        >>> y = np.arange(3000) % 3
        >>> x = np.random.default_rng(0).normal(size=(3000, 16)) + 4 * np.eye(16)[y]
        >>> round(class_separability(x, y), 2)
        0.41
    """
    about = WITH_SELF_PAIRS if self_pairs else CLASS_SEPARABILITY
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels, about.name, fewest), self_pairs)
    run = Run(x, sample(x, draws=draws, seed=seed))
    return measured(about, run, partial(_statistics, self_pairs), fewest=fewest)


def _of_array(x: np.ndarray, drawn: Sample, self_pairs: bool) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    parts = parts_of(drawn, np.arange(len(x)))
    return float(_separability(x.__getitem__, parts, _blocks(parts), drawn, self_pairs)[0])


def _statistics(
    self_pairs: bool, reps: xr.Dataset, drawn: Sample, kept: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    parts = {group: parts_of(drawn, rows) for group, rows in kept.items()}
    blocks = {group: _blocks(found) for group, found in parts.items()}
    out = {group: np.empty((len(drawn.weights), reps.sizes["layer"])) for group in kept}
    for layer in range(reps.sizes["layer"]):
        read = rows_of(reps, layer, directions)
        for group, found in parts.items():
            out[group][:, layer] = _separability(read, found, blocks[group], drawn, self_pairs)
    return out


def _separability(
    read: Callable[[np.ndarray], np.ndarray], parts: Parts, blocks: list[_Block], drawn: Sample, self_pairs: bool
) -> np.ndarray:
    """Return R2 of unit vectors (example, feature) for every row of weights."""
    with np.errstate(invalid="ignore", divide="ignore"):  # what has no value is said by name
        cosines, centres, texts = _cosines(read, parts, blocks)
        means = 1 - cosines.means()
        share, alone = np.ones_like(means), np.zeros(len(means))
        if self_pairs:
            # Of all pairs of two texts, those of different units are the ones that vary.
            share = parts.totals / np.outer(texts, texts)
            # The fewer texts a class has, the more of its pairs are none of two.
            alone = np.diag((1 - share) * means) / texts
            means = 1 - centres @ centres.T
        c = len(means)
        within, total = np.trace(means) / c, means.mean()
        if not total > 1e-12:  # all vectors along one line: what is left of both is rounding; or not finite
            return np.full(len(drawn.weights), np.nan)
        slope = within / total**2 / c**2 - np.eye(c) / total / c
        by_size = np.diag(slope) * alone if self_pairs else None
        return cosines.draws(1 - within / total, -slope * share, drawn, by_size)


class _Block(NamedTuple):
    """Some whole units, whose rows are read together."""

    at: np.ndarray  # (part,) which parts they have
    rows: np.ndarray  # (row,) in order of the parts
    starts: np.ndarray  # (part,) where each begins among them
    near: tuple[np.ndarray, np.ndarray]  # pairs of parts of one unit, by their places in the block


def _blocks(parts: Parts) -> list[_Block]:
    """Return all units, in the order of the corpus as nearly as can be, so that a store is read from
    front to back.
    """
    part = np.repeat(np.arange(len(parts.starts)), parts.size)
    first = np.full(len(parts.ids), parts.rows.max())
    np.minimum.at(first, parts.unit[part], parts.rows)
    order = np.lexsort((part, parts.unit[part], first[parts.unit[part]]))
    part, rows = part[order], parts.rows[order]
    ends = np.flatnonzero(np.diff(parts.unit[part])) + 1
    out = []
    for block in np.split(np.arange(len(rows)), ends[np.diff(ends // BLOCK, prepend=0) > 0]):
        starts = np.flatnonzero(np.r_[True, np.diff(part[block]) != 0])
        at = part[block][starts]
        place = np.full(len(parts.starts), -1)
        place[at] = np.arange(len(at))
        one, other = (place[side] for side in parts.near)
        out.append(_Block(at, rows[block], starts, (one[one >= 0], other[one >= 0])))
    return out


def _cosines(
    read: Callable[[np.ndarray], np.ndarray], parts: Parts, blocks: list[_Block]
) -> tuple[PairMeans, np.ndarray, np.ndarray]:
    """Return the cosines of pairs, and the mean vectors (class, feature) and texts of the classes.

    The sum over the pairs of two sets of vectors is the product of their sums.
    """
    n_classes, some = len(parts.firsts), parts.some.at

    def summed(block: _Block) -> np.ndarray:
        x = read(block.rows)
        return x if len(block.starts) == len(x) else np.add.reduceat(x, block.starts, axis=0)

    kept = [summed(block) for block in blocks] if len(parts.starts) <= BLOCK else None
    every = kept or map(summed, blocks)
    sums = reduce(np.add, (np.eye(n_classes)[:, parts.label[b.at]] @ x for b, x in zip(blocks, every, strict=True)))
    chosen = np.empty((len(some), sums.shape[1]))
    products = np.empty((len(parts.starts), n_classes))
    for block, x in zip(blocks, kept or map(summed, blocks), strict=True):
        at, label, (one, other) = block.at, parts.label[block.at], block.near
        found = x @ sums.T
        found[np.arange(len(at)), label] -= np.einsum("pd,pd->p", x, x)
        # What a unit has in other classes; of a part at most one a class, so that none comes twice.
        same = np.einsum("pd,pd->p", x[one], x[other])
        found[one, label[other]] -= same
        found[other, label[one]] -= same
        products[at] = found
        place = np.full(len(parts.starts), -1)
        place[at] = np.arange(len(at))
        there = place[some] >= 0
        chosen[there] = x[place[some[there]]]
    texts = np.bincount(parts.label, parts.size)
    return PairMeans(parts, products, chosen @ chosen.T), sums / texts[:, None], texts


CLASS_SEPARABILITY: Probe = of_labels(
    name="class_separability",
    title="class separability (R²)",
    estimator="R2 = 1 - mean cosine distance within classes / over all classes, of different sentences",
    range="0 to 1; 0 where all classes have one mean direction",
    bounds=(-np.inf, 1),
    unchanged_by=("rotation", "common scale", "length of each vector", "order"),
    paper="Kornblith, Chen, Lee, Norouzi 2021, arXiv 2010.16402",
    interval=LARGE,
    measure=lambda run: measured(CLASS_SEPARABILITY, run, partial(_statistics, False)),
)
WITH_SELF_PAIRS: Probe = replace(
    CLASS_SEPARABILITY,
    name="class_separability_with_self_pairs",
    title="class separability (R²), with self pairs",
    estimator="R2 = 1 - mean cosine distance within classes / mean cosine distance over all classes",
    range="0 to 1; above 0 by about 1 / (examples a class) where all classes have one mean direction",
    unchanged_by=(*CLASS_SEPARABILITY.unchanged_by, "size of the classes"),
    interval=THIS_SIZE,
    family="",
    default=False,
    measure=lambda run: measured(WITH_SELF_PAIRS, run, partial(_statistics, True)),
)
