"""Means over pairs of texts of two classes, and draws of what is made of them, to first order.

A unit is what is drawn at once: an id with its translations, or a group of ids. Pairs of texts of
one unit are left out, of the value and of the draws: in a large corpus their share vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from probes.results.draws import Sample
from probes.results.intervals import t_factor
from probes.states.representations import states

_ENTRIES = 2**19  # of one block of distances
_MOST = 256  # parts that are compared with each other where only a variance is asked for


@dataclass(frozen=True)
class Parts:
    """Some rows of states by class and unit. A part is what one unit has in one class."""

    rows: np.ndarray  # (row,) in order of their parts
    starts: np.ndarray  # (part,) where each begins among them
    size: np.ndarray  # (part,) texts
    label: np.ndarray  # (part,) codes of the classes that are there, from 0 on, in order
    unit: np.ndarray  # (part,) codes of the units that are there, from 0 on
    units: np.ndarray  # (unit,) their codes in the sample

    @property
    def firsts(self) -> np.ndarray:
        """The first part of every class."""
        return np.flatnonzero(np.r_[True, np.diff(self.label) != 0])

    def some(self) -> np.ndarray:
        """Return parts of every class, evenly spaced; all where they are not many."""
        classes = np.split(np.arange(len(self.label)), self.firsts[1:])
        most = max(_MOST // len(classes), 8)
        return np.concatenate([c[np.linspace(0, len(c) - 1, min(len(c), most)).astype(int)] for c in classes])


def parts_of(drawn: Sample, rows: np.ndarray) -> Parts:
    """Sort some rows by class and unit."""
    label = np.unique(drawn.label[rows], return_inverse=True)[1]
    units, unit = np.unique(drawn.units[drawn.ids[rows]], return_inverse=True)
    order = np.lexsort((unit, label))
    label, unit = label[order], unit[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(label) != 0) | (np.diff(unit) != 0)])
    size = np.diff(np.r_[starts, len(rows)])
    return Parts(rows[order], starts, size, label[starts], unit[starts], units)


def by_layer(
    of: Callable[[np.ndarray, Parts, Sample], np.ndarray],
    reps: xr.Dataset,
    drawn: Sample,
    kept: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return what is measured of states (example, feature) and their parts, layer after layer:
    group -> (1 + draws, layer). One layer is in memory at a time.
    """
    parts = {group: parts_of(drawn, rows) for group, rows in kept.items()}
    out = {group: np.empty((len(drawn.weights), reps.sizes["layer"])) for group in kept}
    for layer in range(reps.sizes["layer"]):
        x = states(reps, layer, slice(None))
        for group, found in parts.items():
            out[group][:, layer] = of(x, found, drawn)
    return out


@dataclass(frozen=True)
class PairMeans:
    """A kernel (a distance) over all pairs of texts of two classes that are of different units.

    Args:
        parts: what the texts are.
        sums: (part, class) the kernel summed over the pairs of a part with the texts of a class.
        among: (part, part) the same for every two of `parts.some()`; what it is within a unit does
            not matter.
    """

    parts: Parts
    sums: np.ndarray
    among: np.ndarray

    def means(self) -> np.ndarray:
        """Return the mean over all pairs of two classes: (class, class); NaN without any."""
        return self._total(self.sums) / self.totals()

    def totals(self) -> np.ndarray:
        """Return how many pairs two classes have: (class, class)."""
        return self._total(self._counts())

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
        parts, n = self.parts, np.bincount(self.parts.label).astype(float)
        moved = 2 * (slope[parts.label] * self._moved() / n[parts.label, None]).sum(axis=1)
        moved *= np.sqrt(n / (n - 1))[parts.label]
        of_unit = np.bincount(parts.unit, moved)
        if by_size is not None:
            more = np.bincount(parts.unit, by_size[parts.label] * parts.size)
            of_unit += more - more.mean()
        variance = of_unit @ of_unit
        if not variance > 0:
            return out
        second = self._second_order(slope)
        # Without any first order, half of the variance is error.
        share = max(1 - second.excess / float(variance), 0.5)
        factor = t_factor(self._freedom(moved, second)) * np.sqrt(share)
        weights = np.empty((drawn.units.max() + 1, len(out)))
        weights[drawn.units] = drawn.weights.T
        out[1:] += factor * (of_unit @ weights[parts.units, 1:])
        return out

    def _freedom(self, moved: np.ndarray, second: _SecondOrder) -> float:
        """How many units' worth the variance is known by: what each does to it is its own square,
        and what it does to the others by its pairs with them.
        """
        parts, n = self.parts, np.bincount(self.parts.label).astype(float)
        of_unit = np.bincount(parts.unit, moved)
        of_class = np.bincount(parts.label, moved**2)
        welch = of_class.sum() ** 2 / (of_class**2 / (n - 1)).sum()
        if len(second.pairs) < len(parts.label):  # of so many that it does not matter
            return float(welch)
        alone = moved * of_unit[parts.unit]
        alone -= (np.bincount(parts.label, alone) / n)[parts.label]
        by_others = 2 * second.pairs @ of_unit[parts.unit]
        squares = np.square(np.bincount(parts.unit, alone + by_others)).sum()
        return float(min(welch, 2 * (of_unit @ of_unit) ** 2 / squares))

    def _counts(self) -> np.ndarray:
        """The pairs of a part with the texts of a class: (part, class)."""
        size, label, unit = self.parts.size, self.parts.label, self.parts.unit
        own = np.zeros((unit.max() + 1, label.max() + 1))
        own[unit, label] = size
        return size[:, None] * (own.sum(axis=0) - own[unit])

    def _total(self, of_parts: np.ndarray) -> np.ndarray:
        return np.add.reduceat(of_parts, self.parts.firsts)

    def _moved(self) -> np.ndarray:
        """What a part does to its mean kernel with the texts of a class: (part, class)."""
        label = self.parts.label
        counts = self._counts()
        off = self.sums - self.means()[label] * counts
        return _effects(off, label, _per_pair(self.totals(), np.bincount(label)))

    def _second_order(self, slope: np.ndarray) -> _SecondOrder:
        """Return how pairs of `parts.some()` differ from what their parts do, and by how much the
        variance is too large for it.
        """
        at = self.parts.some()
        label, unit, size = self.parts.label[at], self.parts.unit[at], self.parts.size[at]
        indicator = np.eye(len(slope))[label]
        other = unit[:, None] != unit
        counts = np.outer(size, size) * other
        off = np.where(other, self.among, 0)
        by_class = [indicator.T @ x @ indicator for x in (off, counts)]
        off -= (by_class[0] / by_class[1])[np.ix_(label, label)] * counts
        m = np.bincount(label).astype(float)
        scale = _per_pair(by_class[1], m)
        effects = _effects(off @ indicator, label, scale)[:, label]
        rest = np.where(other, off * scale[np.ix_(label, label)] - effects - effects.T, 0)
        freedom = np.outer(m - 1, m - 1)
        np.fill_diagonal(freedom, m * (m - 3))
        variance = slope**2 * (indicator.T @ rest**2 @ indicator) / np.maximum(freedom, 1)
        n = np.bincount(self.parts.label).astype(float)
        too_much = 2 / np.outer(n, n)  # each pair of classes stands here twice
        np.fill_diagonal(too_much, 4 / (n * np.maximum(n - 2, 1)) - 2 / (n * (n - 1)))
        return _SecondOrder(
            2 * (slope / np.outer(n, n))[np.ix_(label, label)] * rest, float((variance * too_much).sum())
        )


@dataclass(frozen=True)
class _SecondOrder:
    """How pairs differ from what their two parts do: what they do to the value, and how much of its
    variance by units is error.
    """

    pairs: np.ndarray  # (part, part)
    excess: float


def _per_pair(counts: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Pairs of units over pairs of texts (class, class): 1 where every unit is one text."""
    return (np.outer(n, n) - np.diag(n)) / counts


def _effects(off: np.ndarray, label: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What a part does to its pairs with a class, from its sums over them less those of the mean.

    Within its own class a part is in the mean that it is compared with, so that n - 2 are left.
    """
    n = np.bincount(label).astype(float)
    others = np.broadcast_to(n, (len(n), len(n))).copy()
    np.fill_diagonal(others, np.maximum(n - 2, 1))
    return off * (scale / others)[label]


def sums_of_distances(
    x: np.ndarray, squares: np.ndarray, parts: Parts, *, squared: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `PairMeans` takes of distances: by part and class, and among some parts.

    Args:
        x: (row, feature) in the order of the parts, centred.
        squares: (row,) their squared lengths.
        parts: what the rows are.
        squared: of squared distances.
    """
    n, n_parts = len(x), len(parts.starts)
    first, last = parts.firsts, np.r_[parts.firsts[1:], n_parts]
    sums = np.zeros((n_parts, len(first)))
    some = parts.some()
    among = np.zeros((len(some), len(some)))
    step = max(1, _ENTRIES * n_parts // n**2)
    for lo in range(0, n_parts, step):
        hi = min(lo + step, n_parts)
        rows = slice(parts.starts[lo], parts.starts[hi] if hi < n_parts else n)
        # Only the pairs with later parts: the others are the same.
        d = x[rows] @ x[rows.start :].T
        d *= -2
        d += squares[rows, None]
        d += squares[rows.start :]
        np.maximum(d, 0, out=d)
        if not squared:
            np.sqrt(d, out=d)
        if n_parts < n:
            here = parts.starts[lo:] - rows.start
            d = np.add.reduceat(np.add.reduceat(d, here, axis=1), here[: hi - lo], axis=0)
        d[parts.unit[lo:hi, None] == parts.unit[lo:]] = 0
        at, all_later = np.flatnonzero((some >= lo) & (some < hi)), some >= lo
        among[np.ix_(at, all_later)] = d[np.ix_(some[at] - lo, some[all_later] - lo)]
        d[:, : hi - lo] = np.triu(d[:, : hi - lo])
        there = np.flatnonzero(last > lo)
        sums[lo:hi, there] += np.add.reduceat(d, np.maximum(first[there] - lo, 0), axis=1)
        there = np.flatnonzero((first < hi) & (last > lo))  # classes that have parts in this block
        sums[lo:, there] += np.add.reduceat(d, np.maximum(first[there] - lo, 0), axis=0).T
    return sums, np.maximum(among, among.T)


def spread_out(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return states (row, feature) centred and their squared lengths; None for these where all
    states are equal but for rounding, or not finite.
    """
    largest = np.abs(x).max()
    x = x - x.mean(axis=0)
    squares = np.einsum("ij,ij->i", x, x)
    return x, squares if squares.max() > (1e-12 * largest) ** 2 else None
