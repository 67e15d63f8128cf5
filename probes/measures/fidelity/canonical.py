"""Canonical correlations of the main directions: SVCCA and PWCCA."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.fidelity.layer_pairs import Measure, by_pair
from probes.measures.fidelity.procrustes import unit_scores
from probes.measures.probe import THIS_SIZE

_VARIANCE = 0.99  # what the directions kept for SVCCA and PWCCA explain


def _main_scores(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of unit length along the directions that explain most of the variance, and their part
    of every feature.
    """
    u, s, vt = unit_scores(x)
    share = np.cumsum(s**2) / np.sum(s**2)
    kept = int(np.searchsorted(share, _VARIANCE * (1 - 1e-12))) + 1
    return u[:, :kept], s[:kept, None] * vt[:kept]


def _canonical(
    x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray], weighted: bool
) -> tuple[float, np.ndarray]:
    (a, of_features), (b, _) = x, y
    n = len(a)
    if a.shape[1] + b.shape[1] >= n:
        return np.nan, np.zeros(n)
    u, rho, vt = np.linalg.svd(a.T @ b, full_matrices=False)
    rho = np.clip(rho, 0, 1)
    one, other = a @ u, b @ vt.T
    # How much of the first model's features lies along each canonical direction; held fixed in the draws.
    weight = np.abs(u.T @ of_features).sum(axis=1) if weighted else np.ones(len(rho))
    weight = weight / weight.sum()
    moved = n * (one * other - rho * (one**2 + other**2) / 2) @ weight
    return float(rho @ weight), moved


# The number of directions that explain the variance jumps from sample to sample, which first-order draws do not follow:
# of layers that are more alike than this, intervals hold in a tenth to a half of samples.
_ALIKE = 0.95
_NOTHING = "some pairs of layers: more directions to match than examples, so that everything would. Take more sentences"
_INTERVAL = f"{THIS_SIZE}; none where layers are nearly alike ({_ALIKE} and above, but not equal)"

SVCCA = partial(
    Measure,
    name="svcca",
    title="SVCCA",
    estimator=f"mean canonical correlation of the directions that explain {_VARIANCE:.0%} of the variance",
    paper="Raghu, Gilmer, Yosinski, Sohl-Dickstein 2017, arXiv 1706.05806",
    fewest=3,
    interval=_INTERVAL,
    nothing=_NOTHING,
    sure_below=_ALIKE,
    between=partial(by_pair, _main_scores, partial(_canonical, weighted=False), True),
)
PWCCA = partial(
    Measure,
    name="pwcca",
    title="PWCCA",
    estimator=f"canonical correlations weighted by their share in the first model, of the {_VARIANCE:.0%} directions",
    unchanged_by=("rotation of the second", "shift of either", "common scale of either", "order"),
    paper="Morcos, Raghu, Bengio 2018, arXiv 1806.05759",
    symmetric=False,
    fewest=3,
    interval=_INTERVAL,
    nothing=_NOTHING,
    sure_below=_ALIKE,
    between=partial(by_pair, _main_scores, partial(_canonical, weighted=True), False),
)
