"""Draws without repetition, for statistics that copies distort: dimensions and neighbours.

A sentence and its copy are alike in every layer, as no two sentences of a corpus are: where the
states themselves are drawn, each is taken once at most.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from probes.results.counts import Weights, pieces
from probes.results.intervals import linearised, student_factor

PARTS = 20  # that are left out one after the other
_SEED = 0  # of the parts, which are the same for every model


@dataclass(frozen=True)
class Held:
    """Which ids each of some parts of a sample holds, eight parts a byte; iterated over, the ids
    (ids,) of one part after the other, as booleans.
    """

    bits: np.ndarray  # (ids, parts / 8)
    parts: int

    def __len__(self) -> int:
        return self.parts

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in range(self.parts):
            yield (self.bits[:, part // 8] & (128 >> part % 8)).astype(bool)

    def of(self, ids: np.ndarray) -> Held:
        """Return which of some ids they hold."""
        return Held(self.bits[ids], self.parts)

    @property
    def share(self) -> float:
        """How much of all ids a part holds, in the mean."""
        return int(np.bitwise_count(self.bits).sum()) / (len(self.bits) * self.parts)


def held_twice(weights: Weights) -> Held:
    """Return what every draw holds twice or more: about a quarter, at random."""
    parts, count = len(weights) - 1, weights.shape[1]
    bits = np.empty((count, -(-parts // 8)), np.uint8)
    for some in pieces(count, len(weights)):
        bits[some] = np.packbits(weights[1:, some] > 1, axis=0).T
    return Held(bits, parts)


def of_parts(value: float, statistics: np.ndarray, held: Held) -> np.ndarray:
    """Spread statistics of random parts of a sample as those of all of it spread.

    Parts that are a share f of n ids lie closer to each other than samples of f n do, by the square
    root of 1 - f, and these farther apart than samples of n, by that of f. The share has to be
    small: what depends on neighbours varies more from one large part to the next than that says.

    Args:
        value: the sample's own.
        statistics: (part,) of the parts.
        held: which ids each of them holds.

    Returns:
        (1 + draws,), row 0 the value and the others around it.
    """
    share = held.share
    stretch = np.sqrt(share / (1 - share)) * student_factor(len(held.bits))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all parts are too small
        return np.concatenate([[value], value + stretch * (statistics - np.nanmean(statistics))])


def parts_of(n: int) -> np.ndarray:
    """Return the number of the part of each of n ids (or groups), at random but always the same."""
    parts = np.empty(n, np.int64)
    parts[np.random.default_rng(_SEED).permutation(n)] = np.arange(n) % PARTS
    return parts


def without_parts(
    value: float, left: Callable[[np.ndarray], float], weights: Weights, bounds: tuple[float, float]
) -> np.ndarray:
    """Return a statistic for every row of weights from what is left of it without a part of the
    ids: a delete-group jackknife.

    What a part does to the value, per id of it, spreads less than what one id does, by the square
    root of their number; multiplied by that, it is taken for each of them.

    Args:
        value: the sample's own.
        left: from the ids that stay (ids,), as booleans, to the statistic of these.
        weights: (1 + draws, ids).
        bounds: the range of the statistic.

    Returns:
        (1 + draws,), row 0 the value.
    """
    n = weights.shape[1]
    parts = parts_of(n)
    found = np.array([left(parts != part) for part in range(parts.max() + 1)])
    size = np.bincount(parts)
    # Where nothing can be told without a part, it is taken to do nothing.
    effect = np.nan_to_num(np.sqrt(size) * (np.nanmean(found) - found) * (n - size) / size)
    every = np.arange(n)
    return linearised(np.array(value), effect[parts], every, weights, every, bounds)
