"""Do examples have the same nearest neighbours?"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from probes.measures.fidelity.layer_pairs import ENTRIES, Layers, Measure, Values, by_pair, coarser

NEIGHBOURS = 10
_ENTRIES = 2**22  # of one block of cosines
_ROWS = 64  # of one at least: thinner products take longer
# How much of a shared neighbour is the neighbour's doing, for the spread of the value. All of it, as in a jackknife,
# would count what the next in line does by chance; none, that overlap is alike where examples lie close.
_AS_NEIGHBOUR = 0.6
_CERTAIN, _TIED = 3, 1  # a neighbour, or one of several that lie equally far, of which not all find room


class _Near(NamedTuple):
    """The nearest others of every example.

    Args:
        codes: (example, example) whether the one is a neighbour of the other; None where too many
            are, as of copies.
        room: (example,) how many of those that are tied are neighbours.
        times: (example,) how often an example is one.
    """

    codes: csr_array | None
    room: np.ndarray
    times: np.ndarray


def _between(x: Layers, y: Layers | None) -> Values:
    # Both ends of a distance are off by their rounding.
    return by_pair(partial(_neighbours, 2 * coarser(x, y)), _overlap, True, x, y)


def _neighbours(rounding: float, x: np.ndarray) -> _Near:
    """Find the nearest others of directions (example, feature); ties within rounding are ties."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    step, room_left = max(_ROWS, _ENTRIES // len(x)), max(ENTRIES, 4 * NEIGHBOURS * len(x))
    for lo in range(0, len(x), step):
        cosine = x[lo : lo + step] @ x.T
        own = np.arange(len(cosine))
        cosine[own, own + lo] = -np.inf
        last = np.partition(cosine, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS, None]
        distance = np.sqrt(np.maximum(2 - 2 * last, 0))
        rows, others = np.nonzero(cosine >= 1 - (distance + rounding) ** 2 / 2)
        nearer = np.where(distance > rounding, 1 - (distance - rounding) ** 2 / 2, np.inf)
        codes = np.where(cosine[rows, others] > nearer[rows, 0], np.int8(_CERTAIN), np.int8(_TIED))
        found.append((np.bincount(rows, minlength=len(cosine)), others.astype(np.int32), codes))
        room_left -= len(others)
        if room_left < 0:
            return _Near(None, np.zeros(len(x), int), np.zeros(len(x)))
    counts, others, codes = (np.concatenate(part) for part in zip(*found, strict=True))
    n = len(x)
    rows = np.repeat(np.arange(n, dtype=np.int32), counts)
    certain = codes == _CERTAIN
    room = NEIGHBOURS - np.bincount(rows[certain], minlength=n)
    tied = np.bincount(rows[~certain], minlength=n)
    times = np.bincount(others, np.where(certain, 1, room[rows] / np.maximum(tied, 1)[rows]), minlength=n)
    return _Near(csr_array((codes, others, np.r_[0, np.cumsum(counts)]), shape=(n, n)), room, times)


def _overlap(x: _Near, y: _Near) -> tuple[float, np.ndarray]:
    """Return the share of neighbours that both have, ties in the way that shares most."""
    n = len(x.room)
    if x.codes is None or y.codes is None:
        return np.nan, np.zeros(n)
    other = csr_array((2 * y.codes.data - 1, y.codes.indices, y.codes.indptr), shape=(n, n))
    both = csr_array(x.codes * other)  # by kind: 1 tied in both, 3 in the second, 5 in the first, 15 in neither
    rows = np.repeat(np.arange(n), np.diff(both.indptr))
    there = {kind: np.bincount(rows[both.data == kind], minlength=n) for kind in (1, 3, 5, 15)}
    used = {15: there[15], 3: np.minimum(there[3], y.room), 5: np.minimum(there[5], x.room)}
    used[1] = np.minimum(there[1], np.minimum(x.room - used[5], y.room - used[3]))
    shared = used[1] + used[3] + used[5] + used[15]
    value = float(shared.mean()) / NEIGHBOURS
    part = np.zeros(len(rows))
    for kind, count in there.items():
        part += np.where(both.data == kind, (used[kind] / np.maximum(count, 1))[rows], 0)
    as_neighbour = np.bincount(both.indices, part, minlength=n) - value * (x.times + y.times) / 2
    return value, (shared + _AS_NEIGHBOUR * as_neighbour) / NEIGHBOURS


NEIGHBOUR_OVERLAP = partial(
    Measure,
    name="neighbour_overlap",
    title="shared neighbours",
    estimator=f"share of the {NEIGHBOURS} nearest neighbours by cosine that both have; ties count as shared",
    range=f"0 to 1; chance is {NEIGHBOURS} / (n - 1)",
    unchanged_by=("rotation of either", "common scale of either", "length of each vector of either", "order"),
    fewest=NEIGHBOURS + 1,
    nothing="some pairs of layers: too many texts lie equally far from each other, as copies do. Leave copies out",
    of_directions=True,
    between=_between,
)
