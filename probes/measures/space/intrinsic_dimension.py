"""The intrinsic dimension: TwoNN by maximum likelihood, its largest ratios censored."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from probes.measures.probe import THIS_SIZE
from probes.measures.space.sentences import FEWEST_IDS, ROUNDING, of_geometry
from probes.results.resampled import held_twice, of_parts

KEPT = 0.9  # of the ratios of distances; the larger ones count as at least that large
_ENTRIES = 2**22  # of one block of distances
_NEAR = 32  # neighbours of a row that are kept: two of them are nearly always drawn


class Ratios(NamedTuple):
    """Ratios of distances of rows to their second and first neighbour, and their neighbours."""

    logs: np.ndarray  # (row,) empty where too few rows are left, or some row is not finite
    kept: np.ndarray  # (row,) which rows count
    ids: np.ndarray  # (row,) of these
    near: np.ndarray  # (row, neighbour) the nearest, as positions among these
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
    scale = np.abs(x).max() or 1.0
    x = x / scale
    rounding = ROUNDING * np.linalg.norm(x, axis=1)
    x = x - x.mean(axis=0)
    while len(np.unique(ids[kept])) >= FEWEST_IDS:
        y, of = x[kept], ids[kept]
        length = np.square(y).sum(axis=1)
        close = np.maximum(np.square(rounding[kept]), 1e-14 * length.max())
        nearest, copy = np.empty((len(y), 2)), np.zeros(len(y), bool)
        count = min(_NEAR * np.bincount(np.unique(of, return_inverse=True)[1]).max(), len(y) - 1)
        near, squared = np.empty((len(y), count), np.int64), np.empty((len(y), count))
        step = max(1, _ENTRIES // len(y))
        for start in range(0, len(y), step):
            rows = np.arange(start, min(start + step, len(y)))
            squares = y[rows] @ y.T
            squares *= -2
            squares += length
            squares += length[rows, None]
            squares[of[rows][:, None] == of] = np.inf
            some = np.argpartition(squares, count - 1, axis=1)[:, :count]
            order = np.argsort(np.take_along_axis(squares, some, axis=1), axis=1)
            near[rows] = np.take_along_axis(some, order, axis=1)
            squared[rows] = np.take_along_axis(squares, near[rows], axis=1)
            first = near[rows, 0]
            nearest[rows, 0] = squared[rows, 0]
            nearest[rows, 1] = np.where(of[first][:, None] == of, np.inf, squares).min(axis=1)
            found = np.flatnonzero(nearest[rows, 0] <= close[rows])
            copy[rows[found]] = [(squares[i] <= close[rows[i]])[: rows[i]].any() for i in found]
        if not copy.any():
            logs = np.log(np.maximum([nearest[:, 1], nearest[:, 0]], np.finfo(float).tiny)) / 2
            return Ratios(logs[0] - logs[1], kept, of, near, np.log(np.maximum(squared, np.finfo(float).tiny)) / 2)
        kept = kept[~copy]
    return Ratios(none, kept, ids[kept], none, none)


def intrinsic_dimension(languages: list[Ratios], weights: np.ndarray) -> tuple[np.ndarray, str]:
    """Return TwoNN for every row of weights, from the ratios of some languages, and the reason
    where there is none.

    The ratios of a space of dimension d are distributed as exponentials of rate d: their number
    over their sum, where those above the largest kept one count as that one and not as a ratio of
    their own. Ratios that share neighbours depend on each other: the draws are parts of the rows,
    with neighbours among themselves.
    """
    nan = np.full(len(weights), np.nan)
    if not all(len(one.logs) for one in languages):
        return nan, f"fewer than {FEWEST_IDS} rows differ"
    value = _log_dimension(np.concatenate([one.logs for one in languages]))
    if not np.isfinite(value):
        return nan, "all rows lie equally far from their first and second neighbour"
    held = held_twice(weights)
    drawn = [_log_dimension(np.concatenate([_among(one, stay) for one in languages])) for stay in held]
    there = np.unique(np.concatenate([one.ids for one in languages]))
    return np.exp(of_parts(value, np.array(drawn), held[:, there]) if drawn else np.array([value])), ""


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
    of = ratios.ids[near]
    there = stay[of] & np.isfinite(distance)
    every = np.arange(len(rows))
    first = there.argmax(axis=1)
    there &= of != of[every, first][:, None]
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
