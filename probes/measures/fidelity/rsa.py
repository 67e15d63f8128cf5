"""Representational similarity: do the same pairs of examples lie far apart?"""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from probes.measures.fidelity.layer_pairs import Correlation, Layers, Values, by_pair, coarser


def _between(x: Layers, y: Layers | None) -> Values:
    # Both ends of a distance are off by their rounding.
    return by_pair(partial(_ranks, 2 * coarser(x, y)), _rank_correlation, True, x, y)


def _ranks(rounding: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the distances of all pairs as shares of their number, and the pairs in order.

    Distances that differ by rounding are ties.
    """
    distance = pdist(x)
    distance = np.round(distance / (rounding * distance.max()))
    return rankdata(distance) / len(distance), np.argsort(distance, kind="stable")


def _rank_correlation(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
    (f, by_f), (g, by_g) = x, y
    centred = [r - r.mean() for r in (f, g)]
    scale = np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1]))
    value = float(centred[0] @ centred[1] / scale) if scale > 0 else np.nan
    # A pair acts by its own ranks and by the ranks that it moves: those of all pairs above it.
    moved = f * g
    for order, rank in ((by_f, g), (by_g, f)):
        above = np.empty_like(rank)
        above[order] = rank.sum() - np.cumsum(rank[order])
        moved += above / len(rank)
    moved -= moved.mean()
    of_example = squareform(12 * moved)
    # A mean over pairs: an example acts twice.
    return value, 2 * of_example.sum(axis=0) / (len(of_example) - 1)


RSA = partial(
    Correlation,
    name="rsa",
    title="RSA",
    estimator="Spearman correlation of the Euclidean distances of all pairs of examples",
    paper="Kriegeskorte, Mur, Bandettini 2008",
    most=1000,
    between=_between,
)
