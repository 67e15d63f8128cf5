"""CKA of more states than fit into memory: by products of features, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from probes.measures.fidelity.layer_pairs import ENTRIES, rounding_of
from probes.results.counts import sums_over
from probes.results.draws import Sample
from probes.results.intervals import student_factor
from probes.states.representations import BLOCK, states

_NUMBERS = 2**24  # of states that are read at a time
_FEW = 2**23  # numbers of a layer, up to which whole layers are compared

Reasons = dict[tuple[str, int], str]  # why a "layer" or an "other" one, by position, has no value


def in_pieces(x: xr.Dataset, y: xr.Dataset | None, examples: int) -> bool:
    """Whether layers are compared in pieces: they are large, and products of features take fewer
    operations than Gram matrices; or they are very large.
    """
    layers, others = x.sizes["layer"], 0 if y is None else y.sizes["layer"]
    f, g = x.sizes["feature"], (x if y is None else y).sizes["feature"]
    numbers = examples * max(f, g)
    cheaper = (layers + others) * examples * (f + g) / 2 > 8 * layers * (others or layers) * f * g
    return (cheaper and numbers > _FEW) or numbers > ENTRIES


def cka_in_pieces(
    x: xr.Dataset, y: xr.Dataset | None, rows: np.ndarray, drawn: Sample, bounds: tuple[float, float], debiased: bool
) -> tuple[np.ndarray, Reasons]:
    """Return CKA of all pairs of layers for every row of weights (1 + draws, layer, other layer).

    As of whole layers, to rounding: r_a = sum_b K_ab L_ab is x_a'(X'Y)y_a, so that one walk over the
    rows sums up X'Y, and another one what each row does to the value, which is weighed at once.
    """
    one = _Side(x, rows)
    other = one if y is None else _Side(y, rows)
    reasons = {("layer", i): why for i, why in one.reasons.items()}
    reasons |= {("other", i): why for i, why in other.reasons.items()}
    every = [[j for j in range(other.layers) if j >= i or y is not None] for i in range(one.layers)]
    both = _sums(one, other, every, drawn, debiased)
    if y is None:
        both = np.triu(both) + np.triu(both, 1).transpose(0, 2, 1)
        of_one = of_other = np.einsum("wii->wi", both)
    else:
        of_one, of_other = (
            np.einsum("wii->wi", _sums(z, z, [[i] for i in range(z.layers)], drawn, debiased)) for z in (one, other)
        )
    n = len(rows)
    sizes = sums_over(drawn.weights, drawn.ids[rows], np.ones(n))[:, None, None]
    top, left, right = both[0] / n, of_one[0, :, None] / n, of_other[0, None, :] / n
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(left * right)
        value = top / scale
        moved = 2 * (both / scale - value * (of_one[:, :, None] / (2 * left) + of_other[:, None, :] / (2 * right)))
        moved = (moved - sizes * moved[0] / n) / sizes
    nothing = np.isin(np.arange(one.layers), list(one.reasons))[:, None] | np.isin(
        np.arange(other.layers), list(other.reasons)
    )
    value = np.where(nothing, np.nan, np.clip(value, -1, 1))
    out = value + student_factor(len(np.unique(drawn.units[drawn.ids[rows]]))) * moved
    out[1:] = np.clip(out[1:], *bounds)
    out[0] = value
    return out, reasons


class _Side:
    """The layers of one model over some rows, centred, read in pieces."""

    def __init__(self, reps: xr.Dataset, rows: np.ndarray) -> None:
        self.reps, self.rows = reps, rows
        self.layers, self.features = reps.sizes["layer"], reps.sizes["feature"]
        self.mean = np.zeros((self.layers, self.features))
        sums = np.zeros_like(self.mean)
        bad, longest = np.zeros(self.layers, int), np.zeros(self.layers)
        self.total = np.zeros(self.layers)  # of the squared lengths
        with np.errstate(invalid="ignore", over="ignore"):
            for part in self.parts():
                z = self(part)  # around zero until the mean is there
                bad += (~np.isfinite(z).all(axis=2)).sum(axis=1)
                sums += z.sum(axis=1)
            self.mean = sums / len(rows)
            for part in self.parts():
                lengths = np.square(self(part)).sum(axis=2)
                self.total += lengths.sum(axis=1)
                longest = np.maximum(longest, lengths.max(axis=1))
        least = self.features * np.square(rounding_of(reps["hidden"].dtype) * np.abs(self.mean).max(axis=1))
        self.reasons = {
            i: f"{bad[i]} rows are not finite" if bad[i] else "all states are equal, so there is nothing to compare"
            for i in np.flatnonzero((bad > 0) | (longest <= least)).tolist()
        }

    def parts(self) -> Iterator[slice]:
        """Yield some rows at a time."""
        step = min(max(_NUMBERS // (self.layers * self.features), 64), BLOCK)
        for start in range(0, len(self.rows), step):
            yield slice(start, min(start + step, len(self.rows)))

    def __call__(self, part: slice) -> np.ndarray:
        """Return the centred states (layer, row, feature)."""
        return np.stack([states(self.reps, i, self.rows[part]) for i in range(self.layers)]) - self.mean[:, None]


def _sums(one: _Side, other: _Side, wanted: Sequence[Sequence[int]], drawn: Sample, debiased: bool) -> np.ndarray:
    """Return the sums of r over the rows (1 + draws, layer, other layer), of each layer with those
    others that are wanted.
    """
    n, width = len(one.rows), one.features * other.features
    out = np.zeros((len(drawn.weights), one.layers, other.layers))
    start = 0
    while start < one.layers:
        stop = start + 1
        while stop < one.layers and sum(map(len, wanted[start : stop + 1])) * width <= ENTRIES:
            stop += 1
        here = range(start, stop)
        cross = {i: np.zeros((one.features, len(wanted[i]) * other.features)) for i in here}
        for part in one.parts():
            x, y = _both(one, other, part)
            for i in here:
                cross[i] += x[i].T @ _beside(y, wanted[i])
        for part in one.parts():
            x, y = _both(one, other, part)
            r = np.zeros((x.shape[1], len(here), other.layers))
            for k, i in enumerate(here):
                right = _beside(y, wanted[i])
                along = (x[i] @ cross[i]).reshape(len(right), -1, other.features)
                r[:, k, wanted[i]] = np.einsum("ajd,ajd->aj", along, right.reshape(along.shape))
            if debiased:
                lengths = np.square(x[start:stop]).sum(axis=2).T[:, :, None], np.square(y).sum(axis=2).T[:, None, :]
                r = debias(r, *lengths, n, one.total[start:stop, None], other.total)
            else:
                r /= n
            out[:, start:stop] += sums_over(drawn.weights, drawn.ids[one.rows[part]], r)
        start = stop
    return out


def _both(one: _Side, other: _Side, part: slice) -> tuple[np.ndarray, np.ndarray]:
    x = one(part)
    return x, x if other is one else other(part)


def _beside(y: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """Some layers (layer, row, feature) side by side: (row, layer x feature)."""
    if len(layers) == 1:
        return y[layers[0]]
    return y[list(layers)].transpose(1, 0, 2).reshape(y.shape[1], -1)


def debias(
    r: np.ndarray, norms_x: np.ndarray, norms_y: np.ndarray, n: int, of_x: np.ndarray, of_y: np.ndarray
) -> np.ndarray:
    """Return r of examples so that the mean is the unbiased HSIC of Song et al. 2012; the Gram
    matrices are centred already.

    Args:
        r: (example, ...) of n in all.
        norms_x, norms_y: their squared lengths, and `of_x`, `of_y` the sums of these over all n.
    """
    traces = norms_x * of_y + norms_y * of_x
    return (r - norms_x * norms_y * n / (n - 2) + traces / (2 * (n - 1) * (n - 2))) / (n - 3)
