"""Whether the best match of a sentence is its translation: what both retrievals share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from probes.results.counts import Weights, sums_over

NEIGHBOURS = 4  # of a margin
_ENTRIES = 2**22  # of one block of similarities
# What separates equal inputs that ran in different batches: a few roundings of their states.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)


def blocks(rows: int, candidates: int) -> Iterator[slice]:
    """Yield some rows at a time, so that their similarities to all candidates fit into memory."""
    step = max(1, _ENTRIES // candidates)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def cosines(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the cosines of some rows of x to all rows of y at a time, and which rows."""
    for rows in blocks(len(x), len(y)):
        yield rows, x[rows] @ y.T


def kept_cosines(x: np.ndarray, y: np.ndarray) -> Callable[[], Iterable[tuple[slice, np.ndarray]]]:
    """Return what gives `cosines` again and again, where they are few computed once."""
    if len(x) * len(y) > _ENTRIES:
        return partial(cosines, x, y)
    found = list(cosines(x, y))
    return lambda: found


def of_nearest(cosine: np.ndarray) -> np.ndarray:
    """Return the mean cosine of every row to its nearest."""
    return np.partition(cosine, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1)


def margins(cosine: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Cosines over the mean of both sides' cosines to their neighbours; no match where that is not
    positive.
    """
    return np.divide(cosine, scale, out=np.full_like(cosine, -np.inf), where=scale > 0)


def own_scores(
    x: np.ndarray, y: np.ndarray, nearest: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return how well each row of x matches the same row of y, and from where on another is better.

    Args:
        x, y: (n, feature) at unit length.
        nearest: mean cosines (n,) of both sides to their neighbours, where margins are scored.
    """
    own = np.einsum("id,id->i", x, y)
    # Rounding a state moves a cosine by that times the sine of the angle, which is small where all states lie close.
    angle = np.linalg.norm(x - y, axis=1)
    if nearest is not None:  # and the means over neighbours by that times the sine of the angle to them
        scale = np.mean(nearest, axis=0)
        with np.errstate(divide="ignore"):
            angle = (angle + np.sqrt(2 * np.maximum(1 - scale, 0))) / np.abs(scale)
        own = margins(own, scale)
    return own, own + _ROUNDING * angle + 1e-14


def undefined(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether there is nothing to be found: rows are not finite, or all are equal."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return True
    return all(np.abs(z - x[0]).max() < _ROUNDING for z in (x, y))


def translation_accuracy(x: np.ndarray, y: np.ndarray, weights: Weights, *, by_margin: bool) -> np.ndarray:
    """Return the share of rows whose best match is the same row, by cosine or margin, for every row
    of weights.
    """
    if undefined(x, y):
        return np.full(len(weights), np.nan)
    n = len(x)
    scores = kept_cosines(x, y)
    nearest = _means_of_nearest(scores(), n) if by_margin else None
    # Every score serves both directions: of x_i among all y, along the rows, and of y_j among all x, down the columns.
    own, least = own_scores(x, y, nearest)
    better, best = np.zeros((2, n), int), np.zeros((2, n), int)
    for rows, score in scores():
        if nearest is not None:
            score = margins(score, (nearest[0][rows, None] + nearest[1]) / 2)
        better[0, rows] = (score > least[rows, None]).sum(axis=1)
        best[0, rows] = score.argmax(axis=1)
        above = (score > least).sum(axis=0)
        best[1] = np.where(above > 0, score.argmax(axis=0) + rows.start, best[1])
        better[1] += above
    return share_found(better, best, np.isfinite(own), weights)


def _means_of_nearest(scores: Iterable[tuple[slice, np.ndarray]], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosines (n,) of the rows of both sides to their nearest of the other."""
    of_x = np.empty(n)
    of_y = np.empty((0, n))  # the nearest so far
    for rows, cosine in scores:
        of_x[rows] = of_nearest(cosine)
        of_y = np.concatenate([of_y, cosine])
        of_y = np.partition(of_y, -NEIGHBOURS, axis=0)[-NEIGHBOURS:] if len(of_y) > NEIGHBOURS else of_y
    return of_x, of_y.mean(axis=0)


def share_found(better: np.ndarray, best: np.ndarray, there: np.ndarray, weights: Weights) -> np.ndarray:
    """Return the share of sentences that are found, mean of both directions, for every row of weights.

    A draw weighs what each sentence does to the share: it is right or wrong itself, and it may be
    the only one that keeps others from being right (what leaving it out would change, as in the
    jackknife). To draw the candidates themselves would make the task easier, since a draw has fewer
    different ones.

    Args:
        better: (2, n) how many others match better than the right one, each way.
        best: (2, n) which other matches best.
        there: (n,) or (2, n) whether the right one can be found at all.
        weights: (1 + draws, n), row 0 all ones.
    """
    n = better.shape[1]
    there = np.broadcast_to(there, better.shape)
    right = ((better == 0) & there).sum(axis=0)
    spoiled = sum(np.bincount(best[side, (better[side] == 1) & there[side]], minlength=n) for side in (0, 1))
    effect = (right - spoiled) / 2
    share = right.sum() / (2 * n)
    with np.errstate(invalid="ignore", divide="ignore"):
        every = np.arange(n)
        moved = sums_over(weights, every, effect - effect.mean())
        out: np.ndarray = share + moved / sums_over(weights, every, np.ones(n))
    out[0] = share
    return out
