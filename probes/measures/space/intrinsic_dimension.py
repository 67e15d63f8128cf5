"""The intrinsic dimension: TwoNN by maximum likelihood, its largest ratios censored."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from probes.measures.probe import THIS_SIZE
from probes.measures.space.sentences import FEWEST_IDS, ROUNDING, of_geometry
from probes.results.resampled import Held, of_parts

KEPT = 0.9  # of the ratios of distances; the larger ones count as at least that large
_ENTRIES = 2**22  # of one block of distances
_ROWS = 64  # of one at least: thinner products take longer
_NEAR = 32  # neighbours of a row that are kept, one an id: two of them are nearly always drawn
_KEPT = 2**23  # of larger groups so many of all rows at most, but at least the former of each


class Ratios(NamedTuple):
    """Ratios of distances of rows to their second and first neighbour, and their neighbours."""

    logs: np.ndarray  # (row,) empty where too few rows are left, or some row is not finite
    kept: np.ndarray  # (row,) which rows count
    ids: np.ndarray  # (row,) of these
    near: np.ndarray  # (row, neighbour) the nearest of each of the nearest ids, as positions among these
    distance: np.ndarray  # (row, neighbour) log of it; infinite where there are no more


def ratios_of_neighbours(x: np.ndarray, ids: np.ndarray) -> Ratios:
    """Return the log ratio of the distances of each row to its second and its first neighbour, and
    which rows count.

    TwoNN is of independent rows: those of one id (or group) are no neighbours of each other, and
    the second neighbour is of another one than the first. Of rows that are copies of others (up to
    rounding) the first counts.
    """
    kept = np.arange(len(x))
    none = np.zeros(0)
    if not np.isfinite(x).all():
        return Ratios(none, kept, ids, none, none)
    x = x / (max(x.max(), -x.min()) or 1.0)
    rounding = ROUNDING * np.concatenate([np.linalg.norm(x[rows], axis=1) for rows in _blocks(len(x))])
    x -= x.mean(axis=0)
    while len(np.unique(ids[kept])) >= FEWEST_IDS:
        y, of = x if len(kept) == len(x) else x[kept], ids[kept]
        length = np.concatenate([np.square(y[rows]).sum(axis=1) for rows in _blocks(len(y))])
        close = np.maximum(np.square(rounding[kept]), 1e-14 * length.max())
        copy = np.zeros(len(y), bool)
        most = np.bincount(np.unique(of, return_inverse=True)[1]).max()
        count = min(_NEAR * most, len(y) - 1)  # among which there are as many ids, where there are so many
        width = min(count, max(_NEAR, _KEPT // len(y)))
        near, squared = np.empty((len(y), width), np.int32), np.empty((len(y), width))
        for rows in _blocks(len(y)):
            squares = y[rows] @ y.T
            squares *= -2
            squares += length
            squares += length[rows, None]
            squares[of[rows][:, None] == of] = np.inf
            some = np.argpartition(squares, count - 1, axis=1)[:, :count]
            some = np.take_along_axis(some, np.argsort(np.take_along_axis(squares, some, axis=1), axis=1), axis=1)
            far = np.take_along_axis(squares, some, axis=1)
            near[rows], squared[rows] = (some, far) if most == 1 else _one_an_id(of, some, far, width)
            found = np.flatnonzero(squared[rows, 0] <= close[rows])
            copy[rows[found]] = [(squares[i] <= close[rows[i]])[: rows[i]].any() for i in found]
        if not copy.any():
            logs = np.log(np.maximum(squared, np.finfo(float).tiny, out=squared), out=squared)
            logs /= 2
            return Ratios(logs[:, 1] - logs[:, 0], kept, of, near, logs)
        kept = kept[~copy]
    return Ratios(none, kept, ids[kept], none, none)


def _blocks(n: int) -> Iterator[np.ndarray]:
    """Yield some rows at a time, whose distances to all n are looked through together."""
    step = max(_ROWS, _ENTRIES // n)
    for start in range(0, n, step):
        yield np.arange(start, min(start + step, n))


def _one_an_id(ids: np.ndarray, near: np.ndarray, squared: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of each of so many nearest ids, infinitely far where there are no more, from
    neighbours (row, neighbour) in the order of their squared distance.
    """
    of = ids[near]
    order = np.argsort(of, axis=1, kind="stable")
    first = np.ones(of.shape, bool)
    np.put_along_axis(first, order[:, 1:], np.diff(np.take_along_axis(of, order, axis=1), axis=1) != 0, axis=1)
    squared = np.where(first, squared, np.inf)
    order = np.argsort(squared, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(squared, order, axis=1)


def intrinsic_dimension(languages: list[Ratios], held: Held) -> tuple[np.ndarray, str]:
    """Return TwoNN of the sample and of every part of it that is held, (1 + parts,), from the ratios
    of some languages, and the reason where there is none.

    The ratios of a space of dimension d are distributed as exponentials of rate d: their number
    over their sum, where those above the largest kept one count as that one and not as a ratio of
    their own. Ratios that share neighbours depend on each other: the draws are parts of the rows,
    with neighbours among themselves.
    """
    nan = np.full(1 + len(held), np.nan)
    if not all(len(one.logs) for one in languages):
        return nan, f"fewer than {FEWEST_IDS} rows differ"
    value = _log_dimension(np.concatenate([one.logs for one in languages]))
    if not np.isfinite(value):
        return nan, "all rows lie equally far from their first and second neighbour"
    drawn = [_log_dimension(np.concatenate([_among(one, stay) for one in languages])) for stay in held]
    there = np.unique(np.concatenate([one.ids for one in languages]))
    return np.exp(of_parts(value, np.array(drawn), held.of(there)) if drawn else np.array([value])), ""


def _log_dimension(logs: np.ndarray) -> float:
    if len(logs) < FEWEST_IDS:
        return np.nan
    k = int(np.ceil(KEPT * len(logs)))
    most = np.partition(logs, k - 1)[k - 1]
    return float(np.log((logs <= most).sum() - 1) - np.log(np.minimum(logs, most).sum())) if most > 0 else np.nan


def _among(ratios: Ratios, stay: np.ndarray) -> np.ndarray:
    """The log ratios of the rows that stay, to neighbours that stay, where two are known."""
    rows = np.flatnonzero(stay[ratios.ids])
    near, distance = ratios.near[rows], ratios.distance[rows]
    there = stay[ratios.ids[near]] & np.isfinite(distance)
    every = np.arange(len(rows))
    first = there.argmax(axis=1)
    there[every, first] = False
    second = there.argmax(axis=1)
    return (distance[every, second] - distance[every, first])[there.any(axis=1)]


INTRINSIC_DIMENSION = partial(
    of_geometry,
    name="intrinsic_dimension",
    title="intrinsic dimension (TwoNN)",
    estimator="TwoNN by maximum likelihood, the largest tenth of the ratios censored, within each language",
    interval=THIS_SIZE,
    paper="Facco, d'Errico, Rodriguez, Laio 2017, arXiv 1803.06992",
)
