"""Whether the best match of a sentence is its translation: what both retrievals share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from probes.measures.languages.pairs import Pairs
from probes.results.counts import Weights, sums_over

NEIGHBOURS = 4  # of a margin
_STATES = 2**27  # bytes of states of both languages that are in memory at a time
_ENTRIES = 2**22  # of one block of similarities; so many are kept
_COLUMNS = 2**12  # of one block, so that its columns are not too short to be looked through
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


def _tiles(pairs: Pairs) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield the cosines of some sentences to some translations at a time, of which and to which.

    Of many sentences two blocks at a time are read; every block meets every other one once.
    """
    step = pairs.size if _fits(pairs) else max(1, _STATES // (32 * pairs.features))
    parts = [slice(start, min(start + step, pairs.size)) for start in range(0, pairs.size, step)]
    for i, rows in enumerate(parts):
        x, y = pairs.read(rows)
        yield from _between(x, y, rows.start, rows.start)
        for columns in parts[i + 1 :]:
            other_x, other_y = pairs.read(columns)
            yield from _between(x, other_y, rows.start, columns.start)
            yield from _between(other_x, y, columns.start, rows.start)


def _fits(pairs: Pairs) -> bool:
    return pairs.size * pairs.features * 16 <= _STATES


def _read_once(pairs: Pairs) -> Pairs:
    """The same pairs, in memory where they fit."""
    if not _fits(pairs):
        return pairs
    x, y = pairs.all()
    return pairs._replace(read=lambda rows: (x[rows], y[rows]))


def _between(x: np.ndarray, y: np.ndarray, above: int, before: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The cosines of the rows of x to those of y, which are so far down and along in all of them."""
    for start in range(0, len(y), _COLUMNS):
        some = y[start : start + _COLUMNS]
        columns = slice(before + start, before + start + len(some))
        for rows, cosine in cosines(x, some):
            yield slice(above + rows.start, above + rows.stop), columns, cosine


def _kept_tiles(pairs: Pairs) -> Callable[[], Iterable[tuple[slice, slice, np.ndarray]]]:
    """What gives `_tiles` again and again, where they are few computed once."""
    if pairs.size**2 > _ENTRIES:
        return partial(_tiles, pairs)
    found = list(_tiles(pairs))
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
    return _least(*_of_same(x, y), nearest)


def _of_same(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cosine of each row of x to the same row of y, and their distance."""
    return np.einsum("id,id->i", x, y), np.linalg.norm(x - y, axis=1)


def _least(
    own: np.ndarray, angle: np.ndarray, nearest: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    # Rounding a state moves a cosine by that times the sine of the angle, which is small where all states lie close.
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


def translation_accuracy(pairs: Pairs, weights: Weights, *, by_margin: bool) -> np.ndarray:
    """Return the share of sentences whose best match is their translation, by cosine or margin, for
    every row of weights.

    All cosines are looked through in blocks: beside some numbers a sentence, memory takes 2^27 bytes
    of states and 2^22 cosines, however many sentences there are.
    """
    n = pairs.size
    pairs = _read_once(pairs)
    same = _same(pairs)
    if same is None:
        return np.full(len(weights), np.nan)
    scores = _kept_tiles(pairs)
    nearest = _means_of_nearest(scores(), n) if by_margin else None
    # Every score serves both directions: of x_i among all y, along the rows, and of y_j among all x, down the columns.
    own, least = _least(*same, nearest)
    better, best = np.zeros((2, n), int), np.zeros((2, n), int)
    for rows, columns, score in scores():
        if nearest is not None:
            score = margins(score, (nearest[0][rows, None] + nearest[1][columns]) / 2)
        for side, at, among, above in (
            (0, rows, columns, score > least[rows, None]),
            (1, columns, rows, (score > least[columns]).T),
        ):
            count = above.sum(axis=1)
            better[side, at] += count
            only = np.flatnonzero(count == 1)  # which it is counts for those alone that have no other
            best[side, at.start + only] = above[only].argmax(axis=1) + among.start
    return share_found(better, best, np.isfinite(own), weights)


def _same(pairs: Pairs) -> tuple[np.ndarray, np.ndarray] | None:
    """What `_of_same` says of all sentences; None where there is nothing to be found."""
    own, distance = np.empty((2, pairs.size))
    step = max(1, _STATES // (64 * pairs.features))
    first, varied = None, False
    for start in range(0, pairs.size, step):
        rows = slice(start, min(start + step, pairs.size))
        x, y = pairs.read(rows)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return None
        first = x[0].copy() if first is None else first
        varied = varied or any(np.abs(z - first).max() >= _ROUNDING for z in (x, y))
        own[rows], distance[rows] = _of_same(x, y)
    return (own, distance) if varied else None


def _means_of_nearest(scores: Iterable[tuple[slice, slice, np.ndarray]], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosines (n,) of the sentences of both sides to their nearest of the other."""
    near = np.full((2, n, NEIGHBOURS), -np.inf)  # so far
    for rows, columns, cosine in scores:
        for so_far, side in ((near[0, rows], cosine), (near[1, columns], np.ascontiguousarray(cosine.T))):
            if side.shape[1] > NEIGHBOURS:
                side = np.partition(side, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
            so_far[:] = np.sort(np.concatenate([so_far, side], axis=1), axis=1)[:, -NEIGHBOURS:]
    of_x, of_y = near.mean(axis=2)
    return of_x, of_y


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
