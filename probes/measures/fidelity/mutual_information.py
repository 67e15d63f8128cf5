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
# An example is also a neighbour of others, which its own term does not show: of Gaussians in 1 to 16 dimensions values
# spread 1.0 to 1.7 times as widely as their terms say.
_AS_NEIGHBOUR = 1.5


def _between(x: Layers, y: Layers | None) -> Values:
    return by_pair(_distances, _information, True, x, y)


def _distances(x: np.ndarray) -> tuple[np.ndarray]:
    """Return the distances (example, example) of centred states along their principal directions,
    where their total variance is 1.
    """
    _, _, directions = np.linalg.svd(x, full_matrices=False)
    scores = x @ directions[:DIRECTIONS].T
    scores /= np.sqrt(np.square(scores).sum() / len(x))
    return (cdist(scores, scores),)


def _information(x: tuple[np.ndarray], y: tuple[np.ndarray]) -> tuple[float, np.ndarray]:
    """Return the estimate as a share of the most it can be, and what each example does to it."""
    n = len(x[0])
    both = np.maximum(x[0], y[0])
    np.fill_diagonal(both, np.inf)
    reach = np.partition(both, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1, None]
    # The example itself is nearer than any reach: a count with it is the count of the others plus 1.
    # Of two models that differ by rounding the last neighbour lies as far in both.
    near = [np.maximum((d < (1 - _ROUNDING) * reach).sum(axis=1), 1) for d in (x[0], y[0])]
    own = digamma(NEIGHBOURS) + digamma(n) - digamma(near[0]) - digamma(near[1])
    own /= digamma(n) - digamma(NEIGHBOURS)
    return float(own.mean()), _AS_NEIGHBOUR * (own - own.mean())


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
    interval=f"{THIS_SIZE}, spread by what each example adds, made wider by {_AS_NEIGHBOUR} for it as a neighbour",
    between=_between,
)
