"""How often ids are drawn: a matrix where they are few; where they are many, made anew from the seed
wherever some of them are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

AT_ONCE = 2**24  # ids times draws, up to which they are a matrix
_KEPT = 2**28  # bytes of counts that are kept although they could be made anew
_PIECE = 2**22  # counts that are made, or multiplied, at a time


class Counts:
    """How often each of many ids is there in the sample itself, once, and in each draw, as if it
    were an array (1 + draws, id): `counts[:, some]` makes the columns of some ids.

    Every id, or group, is drawn as often as there are draws, as in `balanced_weights`, but by itself:
    each of its draws falls anywhere, by random numbers that depend on the seed and its own number
    alone. A draw so has about as many ids as the sample, not exactly as many.

    Args:
        units: (id,) the number of the group of each, or its own.
        draws, seed: of the bootstrap.
    """

    def __init__(self, units: np.ndarray, draws: int, seed: int) -> None:
        """Make the counts where they are not too many to be kept."""
        self._units, self._draws = units, draws
        self._key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self._step = -(-draws // 8)  # a step of the generator gives four words of two numbers each
        count = int(units.max()) + 1
        self._kept = None
        if count * draws <= _KEPT and draws < 256:
            self._kept = np.empty((count, draws), np.uint8)
            for part in pieces(count, draws):
                self._kept[part] = self._made(np.arange(part.start, part.stop))

    @property
    def shape(self) -> tuple[int, int]:
        """The sample and its draws, and the ids."""
        return 1 + self._draws, len(self._units)

    def __len__(self) -> int:
        return 1 + self._draws

    def __getitem__(self, at: Any) -> np.ndarray:
        rows, ids = at if isinstance(at, tuple) else (at, slice(None))
        there, place = np.unique(np.atleast_1d(self._units[ids]), return_inverse=True)
        made = self._made(there) if self._kept is None else self._kept[there]
        out = np.ones((1 + self._draws, len(place)), np.uint16)
        out[1:] = made[place].T
        return out[rows]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from self[:, slice(None)]

    def take(self, ids: np.ndarray, axis: int = 1) -> Counts:
        """Return the counts of some ids, made where they are needed."""
        out = object.__new__(Counts)
        out.__dict__.update(self.__dict__, _units=self._units[ids])
        return out

    def _made(self, units: np.ndarray) -> np.ndarray:
        """The counts of units in ascending order: (unit, draw)."""
        out = np.empty((len(units), self._draws), np.uint16)
        draw, step = np.uint64(self._draws), self._step
        for run in np.split(np.arange(len(units)), np.flatnonzero(np.diff(units) != 1) + 1):
            for part in pieces(len(run), self._draws):
                rows = run[part]
                generator = np.random.Philox(key=self._key, counter=int(units[rows[0]]) * step)
                words = generator.random_raw(len(rows) * step * 4).view(np.uint32).reshape(len(rows), -1)
                at = (words[:, : self._draws].astype(np.uint64) * draw >> np.uint64(32)).astype(np.intp)
                at += np.arange(len(rows))[:, None] * self._draws
                out[rows] = np.bincount(at.ravel(), minlength=at.size).reshape(at.shape)
        return out


Weights = np.ndarray | Counts  # (1 + draws, id)


def sums_over(weights: Weights, ids: np.ndarray, values: np.ndarray, power: int = 1) -> np.ndarray:
    """Return weighted sums of values (row, ...) for every row of weights: (1 + draws, ...), some rows
    at a time.

    Args:
        weights: (1 + draws, id).
        ids: (row,) codes, columns of the weights.
        values: (row, ...).
        power: of the weights: 2 where rows are multiplied with themselves.

    Example:
        >>> sums_over(np.array([[1, 1], [0, 2]]), np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0])).tolist()
        [6.0, 10.0]
    """
    flat = values.reshape(len(values), -1) if values.ndim > 1 else values
    out = np.zeros((len(weights), *flat.shape[1:]))
    for part in pieces(len(ids), len(weights)):
        w = weights[:, ids[part]].astype(np.float64)
        out += (w if power == 1 else w**power) @ flat[part]
    return out.reshape(len(weights), *values.shape[1:])


def pieces(rows: int, draws: int) -> Iterator[slice]:
    """Yield some rows at a time, so that their counts fit into memory."""
    step = max(1, _PIECE // draws)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
