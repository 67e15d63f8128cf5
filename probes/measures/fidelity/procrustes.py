"""The angle that is left between two sets of states after the best rotation."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.fidelity.layer_pairs import Measure, by_pair


def unit_scores(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (example, direction) of unit length, the length of each, and the directions; exact
    zeros left out.
    """
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    keep = s > s[0] * len(s) * np.finfo(float).eps
    return u[:, keep], s[keep], vt[keep]


def _procrustes(x: tuple[np.ndarray, ...], y: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
    (a, s, _), (b, t, _) = x, y
    u, cross, vt = np.linalg.svd(s[:, None] * (a.T @ b) * t, full_matrices=False)
    scale = np.sqrt((s @ s) * (t @ t))
    cosine = min(cross.sum() / scale, 1.0)
    squares = [np.square(z * w) @ np.ones(len(w)) / (w @ w) for z, w in ((a, s), (b, t))]
    moved = len(a) * (np.einsum("ar,ar->a", (a * s) @ u, (b * t) @ vt.T) / scale - cosine * sum(squares) / 2)
    sine = np.sqrt(1 - cosine**2)
    return float(np.arccos(cosine)), -moved / sine if sine > 1e-6 else np.zeros(len(a))


PROCRUSTES = partial(
    Measure,
    name="procrustes",
    title="Procrustes distance",
    estimator="angular orthogonal Procrustes distance: arccos(|X'Y|_* / (|X| |Y|)), a metric",
    range="0 to pi / 2; below pi / 2 by chance where examples are few",
    bounds=(0, np.pi / 2),
    better="lower",
    higher_is="less alike",
    unchanged=0.0,
    paper="Williams, Kunz, Kornblith, Linderman 2021, arXiv 2110.14739",
    between=partial(by_pair, unit_scores, _procrustes, True),
)
