"""Do examples have the same nearest neighbours?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from probes.errors import InputError, LayerscopeWarning, check_choice, needed
from probes.measures.fidelity.layer_pairs import ENTRIES, Layers, Measure, Values, by_pair, coarser

NEIGHBOURS = 10
SEARCHES = ("exact", "ivf")
_ENTRIES = 2**22  # of one block of cosines
_ROWS = 64  # of one at least: thinner products take longer
# Of an approximate search: nearest that are listed, clusters that are looked through, texts whose neighbours are looked
# for exactly too, and the share that should be found of theirs.
_LISTED, _CLUSTERS, _CHECKED, _ENOUGH = 64, 8, 200, 0.98
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


def _between(x: Layers, y: Layers | None, search: str = "exact") -> Values:
    # Both ends of a distance are off by their rounding.
    prepare = partial(_neighbours, 2 * coarser(x, y), _all if search == "exact" else _of_near_clusters)
    return by_pair(prepare, _overlap, True, x, y)


# Some rows at a time: the first of them, cosines (row, other), and which others where they are not all.
_Cosines = Iterator[tuple[int, np.ndarray, np.ndarray | None]]


def _all(x: np.ndarray) -> _Cosines:
    step = max(_ROWS, _ENTRIES // len(x))
    for lo in range(0, len(x), step):
        cosine = x[lo : lo + step] @ x.T
        own = np.arange(len(cosine))
        cosine[own, own + lo] = -np.inf
        yield lo, cosine, None


def _of_near_clusters(x: np.ndarray) -> _Cosines:
    """Those among the clusters that lie nearest, by faiss; the cosines are exact."""
    faiss = needed("faiss", 'search="ivf"', "neighbours")
    lists = int(np.sqrt(len(x)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(x.shape[1]), x.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = max(_CLUSTERS, lists // 16)
    single = np.ascontiguousarray(x, np.float32)
    index.train(single)
    index.add(single)

    def of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        others = index.search(single[rows], _LISTED)[1]
        cosine = np.einsum("rf,rof->ro", x[rows], x[others])
        cosine[(others < 0) | (others == rows[:, None])] = -np.inf
        return cosine, others

    some = np.random.default_rng(0).choice(len(x), min(len(x), _CHECKED), replace=False)
    exact = x[some] @ x.T
    exact[np.arange(len(some)), some] = -np.inf
    last = np.partition(exact, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS, None]
    hit = np.minimum((of(some)[0] >= last - 1e-12).sum(axis=1), NEIGHBOURS).mean() / NEIGHBOURS
    if hit < _ENOUGH:
        warnings.warn(
            f'neighbour_overlap: search="ivf" finds {hit:.0%} of the neighbours of {len(some)} texts at a layer, so '
            'that the value is off by about as much as is missing. Take search="exact", or fewer texts',
            LayerscopeWarning,
            stacklevel=2,
        )
    step = max(1, _ENTRIES // (_LISTED * x.shape[1]))
    for lo in range(0, len(x), step):
        yield lo, *of(np.arange(lo, min(lo + step, len(x))))


def _neighbours(rounding: float, cosines: Callable[[np.ndarray], _Cosines], x: np.ndarray) -> _Near:
    """Find the nearest others of directions (example, feature); ties within rounding are ties."""
    n, found = len(x), []
    room_left = max(ENTRIES // 2, 4 * NEIGHBOURS * n)
    for lo, cosine, among in cosines(x):
        last = np.partition(cosine, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS, None]
        distance = np.sqrt(np.maximum(2 - 2 * last, 0))
        rows, others = np.nonzero(cosine >= np.maximum(1 - (distance + rounding) ** 2 / 2, -2))
        nearer = np.where(distance > rounding, 1 - (distance - rounding) ** 2 / 2, np.inf)
        codes = np.where(cosine[rows, others] > nearer[rows, 0], np.int8(_CERTAIN), np.int8(_TIED))
        if among is not None:
            others = among[rows, others]
        found.append((lo + rows.astype(np.int32), others.astype(np.int32), codes))
        room_left -= len(others)
        if room_left < 0:
            return _Near(None, np.zeros(n, int), np.zeros(n))
    rows, others, codes = (np.concatenate(part) for part in zip(*found, strict=True))
    certain = codes == _CERTAIN
    room = NEIGHBOURS - np.bincount(rows[certain], minlength=n)
    tied = np.bincount(rows[~certain], minlength=n)
    times = np.bincount(others, np.where(certain, 1, room[rows] / np.maximum(tied, 1)[rows]), minlength=n)
    starts = np.searchsorted(rows, np.arange(n + 1))
    return _Near(csr_array((codes, others, starts), shape=(n, n)), room, times)


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


def searched(measure: Measure, search: str) -> Measure:
    """Return a measure of neighbours that looks for them so; raise `InputError` where it compares
    none, `DependencyError` where faiss is not installed.
    """
    check_choice("search", search, SEARCHES)
    if search == "exact":
        return measure
    if measure.name != "neighbour_overlap":
        raise InputError(
            f"search={search!r}: measure {measure.name!r} looks for no neighbours. Leave it out, or take "
            'measure="neighbour_overlap"'
        )
    needed("faiss", f"search={search!r}", "neighbours")
    estimator = f"{measure.estimator}; looked for in the nearest clusters alone (faiss, IndexIVFFlat)"
    return replace(measure, between=partial(_between, search=search), estimator=estimator)
