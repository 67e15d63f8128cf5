"""Whether the best match of a sentence is its translation: what both retrievals share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_ENTRIES = 2**22  # of one block of similarities
# What separates equal inputs that ran in different batches: a few roundings of their states.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)


def cosines(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the cosines of some rows of x to all rows of y at a time, and which rows."""
    step = max(1, _ENTRIES // len(y))
    for i in range(0, len(x), step):
        rows = slice(i, min(i + step, len(x)))
        yield rows, x[rows] @ y.T


def _margins(cosine: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Cosines over the mean of both sides' cosines to their neighbours; no match where that is not
    positive.
    """
    return np.divide(cosine, scale, out=np.full_like(cosine, -np.inf), where=scale > 0)


def translation_accuracy(
    x: np.ndarray, y: np.ndarray, nearest: tuple[np.ndarray, np.ndarray] | None, weights: np.ndarray
) -> np.ndarray:
    """Return the share of rows whose best match is the same row, for every row of weights.

    A draw weighs what each sentence does to the share: it is right or wrong itself, and it may be
    the only one that keeps others from being right (what leaving it out would change, as in the
    jackknife). To draw the candidates themselves would make the task easier, since a draw has fewer
    different ones.
    """
    together = np.concatenate([x, y])
    if not np.isfinite(together).all() or np.abs(together - together[0]).max() < _ROUNDING:
        return np.full(len(weights), np.nan)
    n = len(x)
    # Rounding a state moves a cosine by that times the sine of the angle, which is small where all states lie close.
    angle = np.linalg.norm(x - y, axis=1)
    if nearest is not None:  # and the means over neighbours by that times the sine of the angle to them
        angle = (angle + np.sqrt(2 * max(1 - np.mean(nearest), 0))) / np.abs(np.mean(nearest, axis=0))
    tie = _ROUNDING * angle + 1e-14
    # Every score serves both directions: of x_i among all y, along the rows, and of y_j among all x, down the columns.
    own = np.einsum("id,id->i", x, y)
    if nearest is not None:
        own = _margins(own, np.mean(nearest, axis=0))
    least = own + tie
    better, best = np.zeros((2, n), int), np.zeros((2, n), int)
    for rows, score in cosines(x, y):
        if nearest is not None:
            score = _margins(score, (nearest[0][rows, None] + nearest[1]) / 2)
        better[0, rows] = (score > least[rows, None]).sum(axis=1)
        best[0, rows] = score.argmax(axis=1)
        above = (score > least).sum(axis=0)
        best[1] = np.where(above > 0, score.argmax(axis=0) + rows.start, best[1])
        better[1] += above
    there = np.isfinite(own)
    right = ((better == 0) & there).sum(axis=0)
    spoiled = sum(np.bincount(best[side, (better[side] == 1) & there], minlength=n) for side in (0, 1))
    effect = (right - spoiled) / 2
    share = right.sum() / (2 * n)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = share + weights @ (effect - effect.mean()) / weights.sum(axis=1)
    out[0] = share
    return out
