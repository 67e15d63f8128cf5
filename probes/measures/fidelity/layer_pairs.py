"""Every layer of one side against every layer of the other: reading, comparing, declaring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from probes.measures.probe import Probe
from probes.measures.threads import one_thread
from probes.states.representations import states

ENTRIES = 2**25  # numbers that are kept at a time
_ENTRIES = 2**20  # of one layer that are changed at a time
Values = tuple[np.ndarray, np.ndarray]  # (layer, other layer), and what each example does to it, (example, ..., ...)


class Layers(NamedTuple):
    """The layers of one side that can be compared, read when they are needed."""

    load: Callable[[int], _Layer]
    at: list[int]
    dtype: np.dtype  # that the states are stored in

    def __call__(self, i: int) -> np.ndarray:
        """Return the centred states (example, feature) of one of them, or their directions."""
        return self.load(self.at[i]).x

    @property
    def rounding(self) -> float:
        """What separates states of equal texts that ran in different batches, over their length."""
        return rounding_of(self.dtype)

    def norms(self) -> np.ndarray:
        """Squared lengths of the centred states (example, layer)."""
        return np.stack([self.load(i).norms for i in self.at], axis=1)

    def single(self) -> bool:
        """Whether float32 is enough for products: of float32 states, well within its range, none of
        them dominated.
        """
        norms = self.norms()
        if self.dtype != np.float32 or norms.max(axis=0).min() < 1e-20 or norms.max() > 1e30:
            return False
        largest = [np.einsum("ad,ad->d", self(i), self(i)).max() for i in range(len(self.at))]
        return bool((largest < 0.1 * norms.sum(axis=0)).all())


@dataclass(frozen=True)
class _Layer:
    """The centred states of a layer, or their directions, with their squared lengths and the
    rounding they carry.
    """

    x: np.ndarray
    norms: np.ndarray
    rounding: float


@dataclass(frozen=True, kw_only=True)
class Measure(Probe):
    """What a measure of similarity is, as data; the values that stand here are those of most.

    Args:
        between: from the layers of both sides, or of one alone, to the value of every pair.
        symmetric: whether it is the same from both sides.
        fewest: examples a language.
        most: examples that it can take; of more some are drawn.
        of_directions: whether it sees the directions of states alone, and not their lengths.
        nothing: why a pair of layers that can be compared has no value, where there is such a thing.
        sure_below: from this value on, up to 1 itself, draws say too little of its spread, so that
            it has no interval.
        sure_up_to: examples; of more draws say too little of its spread as well.
    """

    between: Callable[[Layers, Layers | None], Values]
    debiased: bool | None = None  # of CKA, which is computed in pieces where layers are large
    symmetric: bool = True
    fewest: int = 2
    most: int | None = None
    of_directions: bool = False
    nothing: str = ""
    sure_below: float = np.inf
    sure_up_to: float = np.inf
    family: str = "similarity"
    compares: bool = True
    better: Literal["higher", "lower", ""] = "higher"
    higher_is: str = "more alike"
    range: str = "0 to 1; above 0 by chance where examples are few"
    bounds: tuple[float, float] = (0, 1)
    unchanged_by: tuple[str, ...] = ("rotation of either", "shift of either", "common scale of either", "order")

    @property
    def kind(self) -> str:
        """Whether it is a similarity or a distance."""
        return "similarity" if self.better == "higher" else "distance"


# A measure that can be negative: a correlation, or what is debiased.
Correlation = partial(Measure, range="-1 to 1; 0 where there is nothing in common", bounds=(-1, 1), fewest=4)


@dataclass(frozen=True)
class Side:
    """The layers of one model over the examples that are compared.

    Args:
        read: the states (example, feature) of a layer, by position, in float64; the reader may
            change them.
        layers, examples, features: how many there are.
        dtype: that the states are stored in.
    """

    read: Callable[[int], np.ndarray]
    layers: int
    examples: int
    features: int
    dtype: np.dtype


def side_of(reps: xr.Dataset, rows: np.ndarray) -> Side:
    """Return all layers of Representations over some of their rows."""
    at = slice(None) if len(rows) == reps.sizes["example"] else rows
    hidden = reps["hidden"]
    return Side(lambda layer: states(reps, layer, at), len(hidden), len(rows), hidden.shape[-1], hidden.dtype)


def side_of_array(x: np.ndarray) -> Side:
    """Return an array (example, feature) as a single layer."""
    return Side(lambda layer: x.astype(np.float64), 1, len(x), x.shape[1], x.dtype)


def layers_between(
    measure: Measure, x: Side, y: Side | None
) -> tuple[np.ndarray, np.ndarray, dict[tuple[str, int], str]]:
    """Compare all layers of two sides, or of one with each other.

    Returns:
        The values (layer, other layer), what each example does to them (example, layer, other
        layer), and why a "layer" or an "other" one, by position, has none.
    """
    loads = [_loader(side, measure.of_directions) for side in ((x,) if y is None else (x, y))]
    usable: list[list[int]] = []
    reasons: dict[tuple[str, int], str] = {}
    for which, side, load in zip(("layer", "other"), (x, y), loads, strict=False):
        assert side is not None
        usable.append([])
        for layer in range(side.layers):
            if reason := _unusable(load(layer)):
                reasons |= {(w, layer): reason for w in (("layer", "other") if y is None else (which,))}
            else:
                usable[-1].append(layer)
    value = np.full((x.layers, (x if y is None else y).layers), np.nan)
    influence = np.zeros((x.examples, *value.shape))  # takes memory only where it is written
    if usable[0] and usable[-1]:
        at_x, at_y = usable[0], usable[-1]
        right = None if y is None else Layers(loads[1], at_y, y.dtype)
        found, moved = measure.between(Layers(loads[0], at_x, x.dtype), right)
        value[np.ix_(at_x, at_y)] = found
        moved[:, np.isnan(found)] = 0.0  # what has no value moves nothing
        if moved.shape == influence.shape:
            return value, moved, reasons
        influence[:, np.array(at_x)[:, None], at_y] = moved
    return value, influence, reasons


def rounding_of(dtype: np.dtype) -> float:
    """Return a few roundings; of half precision those of float32, in which models compute."""
    return float(max(4 * np.finfo(np.result_type(dtype, np.float32)).eps, 1e-12))


def coarser(x: Layers, y: Layers | None) -> float:
    """Return the rounding of the side that has more of it."""
    return max(x.rounding, x.rounding if y is None else y.rounding)


def _loader(side: Side, of_directions: bool) -> Callable[[int], _Layer]:
    """Return what reads a layer; the last ones that were read are kept, as far as memory allows."""
    precision = rounding_of(side.dtype)

    @lru_cache(maxsize=max(1, ENTRIES // (side.examples * side.features)))
    def load(layer: int) -> _Layer:
        x = side.read(layer)
        mean = x.mean(axis=0)
        largest = np.abs(mean).max() if np.isfinite(mean).all() else np.nan
        if of_directions and np.isfinite(largest):
            # Some rows at a time, so that no other array of this size is made.
            parts = np.array_split(x, -(-x.size // _ENTRIES))
            with np.errstate(invalid="ignore", divide="ignore"):
                for part in parts:
                    part /= np.linalg.norm(part, axis=1, keepdims=True)
            mean = x.mean(axis=0)
            return _Layer(x, np.concatenate([np.square(part - mean).sum(axis=1) for part in parts]), precision)
        if np.isfinite(largest):
            x -= mean
        return _Layer(x, np.einsum("ad,ad->a", x, x), precision * largest)

    return load


def _unusable(layer: _Layer) -> str:
    """Why a layer cannot be compared; empty where it can."""
    if np.isnan(layer.rounding):
        return f"{int((~np.isfinite(layer.x).all(axis=1)).sum())} rows are not finite"
    if not np.isfinite(layer.norms).all():
        return "a state is all zero, so it has no direction"
    if layer.norms.max() <= layer.x.shape[1] * layer.rounding**2:
        return "all states are equal, so there is nothing to compare"
    return ""


def by_pair(
    prepare: Callable[[np.ndarray], tuple[Any, ...]],
    compare: Callable[..., tuple[float, np.ndarray]],
    symmetric: bool,
    x: Layers,
    y: Layers | None,
) -> Values:
    """Compare all pairs of layers, prepared once each; within one model by a symmetric measure each
    pair once.
    """
    left = [prepare(x(i)) for i in range(len(x.at))]
    right = left if y is None else [prepare(y(j)) for j in range(len(y.at))]
    n_x, n_y = len(left), len(right)
    value = np.empty((n_x, n_y))
    influence: np.ndarray | None = None
    pairs = [(i, j) for i, j in product(range(n_x), range(n_y)) if not (symmetric and y is None and j < i)]
    with one_thread():
        for i, j in tqdm(pairs, desc="pairs of layers", delay=3, leave=False):
            value[i, j], moved = compare(left[i], right[j])
            influence = np.empty((len(moved), n_x, n_y)) if influence is None else influence
            influence[:, i, j] = moved
            if symmetric and y is None:
                value[j, i], influence[:, j, i] = value[i, j], moved
    assert influence is not None  # there is at least one pair
    return value, influence
