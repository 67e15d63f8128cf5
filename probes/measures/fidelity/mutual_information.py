"""How much the states of one model tell of those of another: mutual information by neighbours."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import digamma

from probes.measures.fidelity.layer_pairs import Layers, Measure, Values, by_pair
from probes.measures.probe import THIS_SIZE

DIRECTIONS = 10  # principal ones that are looked at
NEIGHBOURS = 3
_ROUNDING = 2e-5  # of a distance
_MOST = 1000  # examples: distances of all pairs are kept


def _between(x: Layers, y: Layers | None) -> Values:
    return by_pair(_distances, shared_information, True, x, y)


def _distances(x: np.ndarray) -> tuple[np.ndarray]:
    """Return the distances (example, example) of centred states along their principal directions,
    where their total variance is 1.
    """
    _, _, directions = np.linalg.svd(x, full_matrices=False)
    scores = x @ directions[:DIRECTIONS].T
    scores /= np.sqrt(np.square(scores).sum() / len(x))
    return (cdist(scores, scores),)


def shared_information(x: tuple[np.ndarray], y: tuple[np.ndarray]) -> tuple[float, np.ndarray]:
    """Return the estimate as a share of the most it can be, and what each example does to it."""
    n = len(x[0])
    both = np.maximum(x[0], y[0])
    np.fill_diagonal(both, np.inf)
    nearest = np.argpartition(both, NEIGHBOURS, axis=1)[:, : NEIGHBOURS + 1]
    nearest = np.take_along_axis(nearest, np.argsort(np.take_along_axis(both, nearest, axis=1), axis=1), axis=1)
    # The last neighbour, and the one that takes its place where one of them is left out.
    reach, next_reach = (np.take_along_axis(both, nearest[:, k, None], axis=1) for k in (NEIGHBOURS - 1, NEIGHBOURS))
    each = np.arange(n)
    own = np.full(n, digamma(NEIGHBOURS))
    without = np.zeros((n, n))  # [j, i]: what the term of j gains where i is left out
    for distance in (x[0], y[0]):
        # The example itself is nearer than any reach: a count with it is the count of the others plus 1.
        # Of two models that differ by rounding the last neighbour lies as far in both.
        near, next_near = (distance < (1 - _ROUNDING) * r for r in (reach, next_reach))
        count, next_count = (np.maximum(inside.sum(axis=1), 1) for inside in (near, next_near))
        own -= digamma(count)
        without += near * (digamma(count) - digamma(np.maximum(count - 1, 1)))[:, None]
        for neighbour in nearest[:, :NEIGHBOURS].T:
            # Of a neighbour it was counted as near, or not; the next one is the last now.
            left = digamma(np.maximum(next_count - next_near[each, neighbour], 1))
            without[each, neighbour] += digamma(count) - left
            counted = near[each, neighbour]
            without[each, neighbour] -= counted * (digamma(count) - digamma(np.maximum(count - 1, 1)))
    np.fill_diagonal(without, 0)
    value = _share(own.mean(), n)
    others = (own.sum() - own + without.sum(axis=0)) / (n - 1)
    moved = (n - 1) * (value - _share(others, n - 1))
    return float(value), moved - moved.mean()


def _share(terms: np.ndarray, n: int) -> np.ndarray:
    return (terms + digamma(n)) / (digamma(n) - digamma(NEIGHBOURS))


MUTUAL_INFORMATION = partial(
    Measure,
    name="mutual_information",
    estimator=(
        f"Kraskov's first estimator, {NEIGHBOURS} neighbours, of the {DIRECTIONS} principal components of both, over "
        "the most it can be, psi(n) - psi(3) nats"
    ),
    range="0 to 1; around 0, also below, where one says nothing of the other; 1 where neighbours are the same",
    bounds=(-np.inf, 1),
    higher_is="more alike",
    paper="Kraskov, Stoegbauer, Grassberger 2004, arXiv cond-mat/0305641",
    fewest=NEIGHBOURS + 8,
    most=_MOST,
    sure_up_to=200,  # of 500 they are half as wide as they have to be
    interval=f"{THIS_SIZE}, spread by what leaving out each example moves, its principal directions held",
    between=_between,
)
