"""The intrinsic dimension: TwoNN by maximum likelihood, its largest ratios censored."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.probe import THIS_SIZE
from probes.measures.space.sentences import FEWEST_IDS, ROUNDING, of_geometry
from probes.results.intervals import linearised

KEPT = 0.9  # of the ratios of distances; the larger ones count as at least that large
_ENTRIES = 2**22  # of one block of distances


def ratios_of_neighbours(x: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log ratio of the distances of each row to its second and its first neighbour, and
    which rows count.

    TwoNN is of independent rows: those of one id (or group) are no neighbours of each other, and
    the second neighbour is of another one than the first. Of rows that are copies of others (up to
    rounding) the first counts. Empty where too few are left, or some row is not finite.
    """
    kept = np.arange(len(x))
    none = np.zeros(0)
    if not np.isfinite(x).all():
        return none, kept
    scale = np.abs(x).max() or 1.0
    x = x / scale
    rounding = ROUNDING * np.linalg.norm(x, axis=1)
    x = x - x.mean(axis=0)
    while len(np.unique(ids[kept])) >= FEWEST_IDS:
        y, of = x[kept], ids[kept]
        alone = len(np.unique(of)) == len(of)
        length = np.square(y).sum(axis=1)
        near = np.maximum(np.square(rounding[kept]), 1e-14 * length.max())
        nearest, copy = np.empty((len(y), 2)), np.zeros(len(y), bool)
        step = max(1, _ENTRIES // len(y))
        for start in range(0, len(y), step):
            rows = np.arange(start, min(start + step, len(y)))
            squares = y[rows] @ y.T
            squares *= -2
            squares += length
            squares += length[rows, None]
            squares[of[rows][:, None] == of] = np.inf
            if alone:
                nearest[rows] = np.partition(squares, 1, axis=1)[:, :2]
            else:
                first = squares.argmin(axis=1)
                nearest[rows, 0] = squares[np.arange(len(rows)), first]
                nearest[rows, 1] = np.where(of[first][:, None] == of, np.inf, squares).min(axis=1)
            close = np.flatnonzero(nearest[rows, 0] <= near[rows])
            copy[rows[close]] = [(squares[i] <= near[rows[i]])[: rows[i]].any() for i in close]
        if not copy.any():
            return np.log(nearest[:, 1] / np.maximum(nearest[:, 0], np.finfo(float).tiny)) / 2, kept
        kept = kept[~copy]
    return none, kept


def intrinsic_dimension(
    languages: list[tuple[np.ndarray, np.ndarray, np.ndarray]], weights: np.ndarray
) -> tuple[np.ndarray, str]:
    """Return TwoNN for every row of weights, from the log ratios of some languages, and the reason
    where there is none.

    The ratios of a space of dimension d are distributed as exponentials of rate d: their number
    over their sum, where those above the largest kept one count as that one and not as a ratio of
    their own.
    """
    nan = np.full(len(weights), np.nan)
    if not all(len(ratios) for ratios, _, _ in languages):
        return nan, f"fewer than {FEWEST_IDS} rows differ"
    ratios = np.concatenate([r for r, _, _ in languages])
    ids = np.concatenate([ids[kept] for _, kept, ids in languages])
    k = int(np.ceil(KEPT * len(ratios)))
    most = np.partition(ratios, k - 1)[k - 1]
    seen, capped = ratios <= most, np.minimum(ratios, most)
    if not most > 0:
        return nan, "all rows lie equally far from their first and second neighbour"
    value = (seen.sum() - 1) / capped.sum()
    influence = seen / seen.mean() - capped / capped.mean()
    units = np.arange(weights.shape[1])
    return np.exp(linearised(np.array(np.log(value)), influence, ids, weights, units, (-np.inf, np.inf))), ""


INTRINSIC_DIMENSION = partial(
    of_geometry,
    name="intrinsic_dimension",
    title="intrinsic dimension (TwoNN)",
    estimator="TwoNN by maximum likelihood, the largest tenth of the ratios censored, within each language",
    interval=THIS_SIZE,
    paper="Facco, d'Errico, Rodriguez, Laio 2017, arXiv 1803.06992",
)
