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


def angle(x: tuple[np.ndarray, ...], y: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
    """The angle, and what each example moves it by: by leaving it out, to second order.

    To first order the rotation stays where it is as an example leaves. With fewer examples than features it follows
    each of them, and two models seem to differ in 15 of 100 corpora of 60 sentences where they do not.
    """
    (a, s, _), (b, t, _) = x, y
    u, cross, vt = np.linalg.svd(s[:, None] * (a.T @ b) * t, full_matrices=False)
    scale = np.sqrt((s @ s) * (t @ t))
    cosine = min(cross.sum() / scale, 1.0)
    if np.sqrt(1 - cosine**2) <= 1e-6:
        return float(np.arccos(cosine)), np.zeros(len(a))
    n = len(a)
    share = n / (n - 1)  # the mean moves as an example leaves
    one, other = (a * s) @ u, (b * t) @ vt.T
    # Without example i the sum of cross is that of diag(cross) - pq': less p'q, and more by what the best rotation of
    # the rest wins back, which grows with what of pq' is not symmetric.
    own, p, q = one * other, np.square(one), np.square(other)
    lengths = [np.square(z * w).sum(axis=1) for z, w in ((a, s), (b, t))]
    apart = cross[:, None] + cross
    among = np.divide(1, apart, out=np.zeros_like(apart), where=apart > 1e-12 * cross[0])
    alone = np.diag(among) * 2  # directions that the other model has none for
    won = ((p @ among) * q).sum(axis=1) - ((own @ among) * own).sum(axis=1)
    won += (q @ alone) * np.maximum(lengths[0] - p.sum(axis=1), 0)
    won += (p @ alone) * np.maximum(lengths[1] - q.sum(axis=1), 0)
    left = cross.sum() - share * own.sum(axis=1) + share**2 / 2 * won
    squares = [w @ w - share * length for w, length in zip((s, t), lengths, strict=True)]
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing is left without the only example off the mean
        without = np.arccos(np.clip(left / np.sqrt(squares[0] * squares[1]), -1, 1))
    moved = (n - 1) * np.nan_to_num(np.arccos(cosine) - without)
    return float(np.arccos(cosine)), moved - moved.mean()


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
    between=partial(by_pair, unit_scores, angle, True),
)
