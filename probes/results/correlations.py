"""Correlations in every draw at once, of numbers and of ranks."""

from __future__ import annotations

import numpy as np


def correlations(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each row of x with that of y, (row,), by weights (row,
    example); NaN where either is the same everywhere.

    Example:
        >>> x = np.array([[1.0, 2.0, 3.0]])
        >>> correlations(x, -x, np.ones((1, 3))).round(6).tolist()
        [-1.0]
    """
    total = weights.sum(axis=1, keepdims=True)
    x, y = (z - (weights * z).sum(axis=1, keepdims=True) / total for z in (x, y))
    xy, xx, yy = ((weights * a * b).sum(axis=1) for a, b in ((x, y), (x, x), (y, y)))
    least = 1e-24 * total[:, 0] * np.maximum(np.square(x).max(axis=1) * np.square(y).max(axis=1), 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(xx * yy > least, xy / np.sqrt(xx * yy), np.nan)


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the ranks of values (example,) in each draw, (row, example), ties in the middle, where
    each value is there as often as its weight (row, example) says.

    Example:
        >>> weighted_ranks(np.array([5.0, 3.0, 5.0]), np.ones((1, 3))).tolist()
        [[2.5, 1.0, 2.5]]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(tied, axis=1) - tied / 2 + 0.5
    out = np.empty(weights.shape)
    out[:, order] = np.repeat(middle, np.diff([*starts, len(values)]), axis=1)
    return out
