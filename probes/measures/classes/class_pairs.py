"""Means over pairs of texts of two classes, and draws of what is made of them, to first order.

A unit is what is drawn at once: an id with its translations, or a group of ids. Pairs of texts of
one unit are left out, of the value and of the draws: in a large corpus their share vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from probes.results.counts import sums_over
from probes.results.draws import Sample
from probes.results.intervals import t_factor
from probes.states.representations import states

_LARGE = 2**24  # numbers of a layer that is read at once
_ENTRIES = 2**19  # of one block of distances
_MANY = 10**7  # multiplications, from which on distances are taken in float32
_NARROW = 0.01  # of the largest squared length is the variance of a class, for that
_MOST = 256  # parts that are compared with each other where only a variance is asked for


@dataclass(frozen=True)
class Parts:
    """Some rows of states by class and unit. A part is what one unit has in one class."""

    rows: np.ndarray  # (row,) in order of their parts
    starts: np.ndarray  # (part,) where each begins among them
    size: np.ndarray  # (part,) texts
    label: np.ndarray  # (part,) codes of the classes that are there, from 0 on, in order
    unit: np.ndarray  # (part,) codes of the units that are there, from 0 on
    ids: np.ndarray  # (unit,) an id of each, a column of the weights

    @cached_property
    def firsts(self) -> np.ndarray:
        """The first part of every class."""
        return np.flatnonzero(np.r_[True, np.diff(self.label) != 0])

    @cached_property
    def of_class(self) -> np.ndarray:
        """How many parts every class has."""
        return np.bincount(self.label).astype(float)

    @cached_property
    def counts(self) -> np.ndarray:
        """The pairs of a part with the texts of a class that are of other units: (part, class)."""
        own = np.zeros((self.unit.max() + 1, self.label.max() + 1))
        own[self.unit, self.label] = self.size
        return self.size[:, None] * (own.sum(axis=0) - own[self.unit])

    @cached_property
    def totals(self) -> np.ndarray:
        """How many pairs two classes have: (class, class)."""
        return self.by_class(self.counts)

    @cached_property
    def near(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of parts that are of one unit and of two classes, the first one first."""
        order = np.lexsort((self.label, self.unit))
        unit, pairs = self.unit[order], [np.zeros((2, 0), int)]
        for k in range(1, len(self.firsts)):
            at = np.flatnonzero(unit[k:] == unit[:-k])
            pairs.append(np.stack([order[at], order[at + k]]))
        first, second = np.concatenate(pairs, axis=1)
        return first, second

    @cached_property
    def some(self) -> Some:
        """Parts of every class, evenly spaced; all where they are not many."""
        classes = np.split(np.arange(len(self.label)), self.firsts[1:])
        most = max(_MOST // len(classes), 8)
        return Some(
            self, np.concatenate([c[np.linspace(0, len(c) - 1, min(len(c), most)).astype(int)] for c in classes])
        )

    def by_class(self, of_parts: np.ndarray) -> np.ndarray:
        """Sum what is of parts over those of each class."""
        return np.add.reduceat(of_parts, self.firsts)


class Some:
    """Some parts, and what their pairs are counted by, whatever the states are."""

    def __init__(self, parts: Parts, at: np.ndarray) -> None:
        """Take the parts at some places."""
        self.at, self.label = at, parts.label[at]
        unit, n = parts.unit[at], parts.of_class
        self.of_class = np.eye(len(n))[self.label]  # (part, class)
        self.texts = self.of_class * parts.size[at, None]
        self.apart = (unit[:, None] != unit).astype(float)
        self.counts = parts.size[at, None] * (self.apart @ self.texts)  # of pairs (part, class)
        self.totals = self.of_class.T @ self.counts
        m = self.of_class.sum(axis=0)
        self.scale = _per_pair(self.totals, m)
        self.scales = self.apart * (self.of_class @ self.scale @ self.of_class.T)
        freedom, too_much = np.outer(m - 1, m - 1), 2 / np.outer(n, n)  # each pair of classes stands here twice
        np.fill_diagonal(freedom, m * (m - 3))
        np.fill_diagonal(too_much, 4 / (n * np.maximum(n - 2, 1)) - 2 / (n * (n - 1)))
        self.too_much = too_much / np.maximum(freedom, 1)


def parts_of(drawn: Sample, rows: np.ndarray, *, among: np.ndarray | None = None) -> Parts:
    """Sort some rows by class and unit; `rows` of the parts are their places `among` others, in
    order, where these are given.
    """
    label = np.unique(drawn.label[rows], return_inverse=True)[1]
    _, first, unit = np.unique(drawn.units[drawn.ids[rows]], return_index=True, return_inverse=True)
    ids = drawn.ids[rows[first]]
    order = np.lexsort((unit, label))
    label, unit = label[order], unit[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(label) != 0) | (np.diff(unit) != 0)])
    size = np.diff(np.r_[starts, len(rows)])
    at = rows if among is None else np.searchsorted(among, rows)
    return Parts(at[order], starts, size, label[starts], unit[starts], ids)


def by_layer(
    of: Callable[[np.ndarray, Parts, Sample], np.ndarray],
    reps: xr.Dataset,
    drawn: Sample,
    kept: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return what is measured of states (example, feature) and their parts, layer after layer:
    group -> (1 + draws, layer). One layer is in memory at a time; of a large one those of a group.
    """
    whole = reps.sizes["example"] * reps.sizes["feature"] <= _LARGE
    read = {group: slice(None) if whole else np.sort(rows) for group, rows in kept.items()}
    parts = {group: parts_of(drawn, rows, among=None if whole else np.sort(rows)) for group, rows in kept.items()}
    out = {group: np.empty((len(drawn.weights), reps.sizes["layer"])) for group in kept}
    for layer in range(reps.sizes["layer"]):
        every = states(reps, layer, slice(None)) if whole else None
        for group, found in parts.items():
            out[group][:, layer] = of(states(reps, layer, read[group]) if every is None else every, found, drawn)
    return out


@dataclass(frozen=True)
class PairMeans:
    """A kernel (a distance) over all pairs of texts of two classes that are of different units.

    Args:
        parts: what the texts are.
        sums: (part, class) the kernel summed over the pairs of a part with the texts of a class.
        among: (part, part) the same for every two of `parts.some`; what it is within a unit does
            not matter.
    """

    parts: Parts
    sums: np.ndarray
    among: np.ndarray

    def means(self) -> np.ndarray:
        """Return the mean over all pairs of two classes: (class, class); NaN without any."""
        return self.parts.by_class(self.sums) / self.parts.totals

    def draws(self, value: float, slope: np.ndarray, drawn: Sample, by_size: np.ndarray | None = None) -> np.ndarray:
        """Return a function of the means for every row of weights, to first order: (1 + draws,).

        The value varies by what each unit does to it (first order), and by how single pairs differ
        from what their two units do (second order: the larger part where classes hardly differ).
        What a unit does is known up to an error, which adds the second order's variance once more;
        that is taken off. Student's t counts as many units as the variance is known from.

        Args:
            value: of the function.
            slope: (class, class) its derivatives by the entries of the matrix of means.
            drawn: the sample.
            by_size: (class,) its derivatives by the numbers of texts, which vary from sample to
                sample; none where the means are all that it depends on.
        """
        out = np.full(len(drawn.weights), value)
        if len(out) == 1 or not np.isfinite(value):
            return out
        parts, n = self.parts, self.parts.of_class
        moved = 2 * (slope[parts.label] * self._moved() / n[parts.label, None]).sum(axis=1)
        moved *= np.sqrt(n / (n - 1))[parts.label]
        of_unit = np.bincount(parts.unit, moved)
        if by_size is not None:
            more = np.bincount(parts.unit, by_size[parts.label] * parts.size)
            of_unit += more - more.mean()
        variance = of_unit @ of_unit
        if not variance > 0:
            return out
        rest = self._rest()
        some = parts.some
        excess = (slope**2 * (some.of_class.T @ (np.square(rest) @ some.of_class)) * some.too_much).sum()
        # Without any first order, half of the variance is error.
        share = max(1 - excess / variance, 0.5)
        factor = t_factor(self._freedom(moved, slope / np.outer(n, n), rest)) * np.sqrt(share)
        out[1:] += factor * sums_over(drawn.weights, parts.ids, of_unit)[1:]
        return out

    def _freedom(self, moved: np.ndarray, slope: np.ndarray, rest: np.ndarray) -> float:
        """How many units' worth the variance is known by: what each does to it is its own square,
        and what it does to the others by its pairs with them.
        """
        parts, n = self.parts, self.parts.of_class
        of_unit = np.bincount(parts.unit, moved)
        of_class = np.bincount(parts.label, moved**2)
        welch = of_class.sum() ** 2 / (of_class**2 / (n - 1)).sum()
        if len(rest) < len(parts.label):  # of so many that it does not matter
            return float(welch)
        of_others = of_unit[parts.unit]
        alone = moved * of_others
        alone -= (np.bincount(parts.label, alone) / n)[parts.label]
        by_others = 4 * (slope[parts.label] * (rest @ (parts.some.of_class * of_others[:, None]))).sum(axis=1)
        squares = np.square(np.bincount(parts.unit, alone + by_others)).sum()
        return float(min(welch, 2 * (of_unit @ of_unit) ** 2 / squares))

    def _moved(self) -> np.ndarray:
        """What a part does to its mean kernel with the texts of a class: (part, class)."""
        parts = self.parts
        off = self.sums - self.means()[parts.label] * parts.counts
        return _effects(off, parts.label, _per_pair(parts.totals, parts.of_class), parts.of_class)

    def _rest(self) -> np.ndarray:
        """How pairs of `parts.some` differ from what their two parts do: (part, part)."""
        some = self.parts.some
        sums = (self.among * some.apart) @ some.of_class
        means = some.of_class.T @ sums / some.totals
        off = sums - means[some.label] * some.counts
        effects = _effects(off, some.label, some.scale, some.of_class.sum(axis=0))
        # The mean, and the effects of both, in one product.
        left = np.hstack([some.texts @ (means * some.scale), effects, some.of_class])
        expected = left @ np.hstack([some.texts, some.of_class, effects]).T
        return self.among * some.scales - expected * some.apart


def _per_pair(counts: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Pairs of units over pairs of texts (class, class): 1 where every unit is one text."""
    return (np.outer(n, n) - np.diag(n)) / counts


def _effects(off: np.ndarray, label: np.ndarray, scale: np.ndarray, n: np.ndarray) -> np.ndarray:
    """What a part does to its pairs with a class, from its sums over them less those of the mean.

    Within its own class a part is in the mean that it is compared with, so that n - 2 are left.
    """
    others = np.broadcast_to(n, (len(n), len(n))).copy()
    np.fill_diagonal(others, np.maximum(n - 2, 1))
    return off * (scale / others)[label]


def sums_of_distances(x: np.ndarray, parts: Parts, *, squared: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return what `PairMeans` takes of distances: by part and class, and among some parts.

    Args:
        x: (row, feature + 2) in the order of the parts, as `spread_out` gives it.
        parts: what the rows are.
        squared: of squared distances.
    """
    n, n_parts = len(x), len(parts.starts)
    first, last = parts.firsts, np.r_[parts.firsts[1:], n_parts]
    sums = np.zeros((n_parts, len(first)))
    some = parts.some.at
    among = np.zeros((len(some), len(some)))
    scale = 1.0
    if _single(x, parts):
        scale = float(np.sqrt(x[:, -1].max()))  # so that nothing overflows
        x = (x / np.r_[np.full(x.shape[1] - 2, scale), 1, scale**2]).astype(np.float32)
    step = max(1, _ENTRIES * n_parts // n**2)
    for lo in range(0, n_parts, step):
        hi = min(lo + step, n_parts)
        rows = slice(parts.starts[lo], parts.starts[hi] if hi < n_parts else n)
        # Only the pairs with later parts: the others are the same. a.a - 2 a.b + b.b is one product.
        left = x[rows] * -2
        left[:, -2], left[:, -1] = x[rows, -1], 1
        d = left @ x[rows.start :].T
        np.maximum(d, 0, out=d)
        if not squared:
            np.sqrt(d, out=d)
        if n_parts < n:
            here = parts.starts[lo:] - rows.start
            d = np.add.reduceat(np.add.reduceat(d, here, axis=1), here[: hi - lo], axis=0)
        np.fill_diagonal(d, 0)
        one, other = (side[(parts.near[0] >= lo) & (parts.near[0] < hi)] - lo for side in parts.near)
        d[one, other] = 0
        begin, end = np.searchsorted(some, [lo, hi])
        among[begin:end, begin:] = d.take(some[begin:end] - lo, axis=0).take(some[begin:] - lo, axis=1)
        d[:, : hi - lo] = np.triu(d[:, : hi - lo])
        there = np.flatnonzero(last > lo)
        sums[lo:hi, there] += np.add.reduceat(d, np.maximum(first[there] - lo, 0), axis=1, dtype=np.float64)
        there = np.flatnonzero((first < hi) & (last > lo))  # classes that have parts in this block
        sums[lo:, there] += np.add.reduceat(d, np.maximum(first[there] - lo, 0), axis=0, dtype=np.float64).T
    scale = scale**2 if squared else scale
    return sums * scale, np.maximum(among, among.T) * scale


def _single(x: np.ndarray, parts: Parts) -> bool:
    """Whether float32 is enough for distances: of many pairs, over which its roundings average out,
    and of no class that is much narrower than all states are wide.
    """
    if len(x) ** 2 * x.shape[1] < _MANY:
        return False
    starts = parts.starts[parts.firsts]
    means = np.add.reduceat(x, starts) / np.diff(np.r_[starts, len(x)])[:, None]
    variance = means[:, -1] - np.square(means[:, :-2]).sum(axis=1)
    return bool((variance > _NARROW * x[:, -1].max()).all())


def spread_out(x: np.ndarray) -> np.ndarray | None:
    """Return states (row, feature) centred, with a column of ones and one of their squared lengths;
    None where all states are equal but for rounding, or not finite.
    """
    out = np.empty((len(x), x.shape[1] + 2))
    centred = np.subtract(x, x.mean(axis=0), out=out[:, :-2])
    squares = np.einsum("ij,ij->i", centred, centred)
    out[:, -2], out[:, -1] = 1, squares
    return out if squares.max() > (1e-12 * max(x.max(), -x.min())) ** 2 else None
