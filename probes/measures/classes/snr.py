"""Signal-to-noise ratio: how much farther apart examples of different classes lie than of one."""

from __future__ import annotations

from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.measures.classes.labels import labelled, of_labels
from probes.measures.probe import LARGE, Run
from probes.results.draws import POOLED, Sample, need_classes, sample
from probes.results.result import result, warn_few
from probes.states.representations import states

_FEWEST = 5
_ENTRIES = 2**19  # of one block of distances


@overload
def snr(x: xr.Dataset, labels: None = None, *, draws: int = 200, seed: int = 0) -> xr.Dataset: ...


@overload
def snr(x: npt.ArrayLike, labels: npt.ArrayLike, *, draws: int = 200, seed: int = 0) -> float: ...


def snr(
    x: xr.Dataset | npt.ArrayLike, labels: npt.ArrayLike | None = None, *, draws: int = 200, seed: int = 0
) -> xr.Dataset | float:
    """Measure how much farther apart examples of different classes lie than examples of one class.

    Mean distance between classes, each pair of classes counting equally, over the mean distance
    within a class, each class counting equally. 0 to infinity; 1 means that labels say nothing
    about where an example lies; higher is better separated.

    Args:
        x: Representations with labels, or an array (example, feature).
        labels: (example,) beside an array.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)`, with all languages together as `pooled`; for an array
        a float.

    Raises:
        InputError: there are no labels, or only one class.

    Notes:
        Ratio form after O' Neill, Dutta and Assem 2021, arXiv 2109.15014; classes may differ in
        size. Pairs of an example with itself are left out. Pooled, a translation counts as a pair
        of its class, which raises the value a little; the interval is for the value without that,
        reaches to the value, and is wider than it need be where classes hardly differ. A class of
        one example has no value; of fewer than 5, a warning says that the interval is not reliable.
        Time grows with the square of the number of examples, memory does not.

    See also:
        `class_separability`, `variability`, `linear_probe`.

    Example:
        >>> y = np.arange(3000) % 3
        >>> x = np.random.default_rng(0).normal(size=(3000, 16)) + 4 * np.eye(16)[y]
        >>> round(snr(x, y), 2)
        1.42
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels))
    return _measured(Run(x, sample(x, draws=draws, seed=seed)))


def _of_array(x: np.ndarray, drawn: Sample) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(_snr(x, drawn.label, drawn.ids, drawn.weights)[0])


def _measured(run: Run) -> xr.Dataset:
    reps, drawn = run.reps, need_classes(run.sample)
    out = result(reps, drawn, _statistics(reps, drawn), SNR.about(), bounds=SNR.bounds)
    warn_few(out, drawn, _FEWEST)
    return out


def _statistics(reps: xr.Dataset, drawn: Sample) -> dict[str, np.ndarray]:
    groups = [*drawn.languages, POOLED]
    out = {group: np.empty((len(drawn.weights), reps.sizes["layer"])) for group in groups}
    for layer in range(reps.sizes["layer"]):
        x = states(reps, layer, slice(None))
        for group in groups:
            rows = drawn.group(group)
            with np.errstate(invalid="ignore", divide="ignore"):  # what has no value is said by name
                out[group][:, layer] = _snr(x[rows], drawn.label[rows], drawn.ids[rows], drawn.weights)
    return out


def _snr(x: np.ndarray, label: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the ratio for every row of weights.

    Distances are summed to units, the examples of one id and class (translations), since a draw
    takes them together. Two units weigh the product of their weights. Pairs inside a unit are left
    out of the draws: their share vanishes in a large corpus, and the interval is for the value
    there.
    """
    size_of_states = np.abs(x).max()
    order = np.lexsort((ids, label))
    x, label, ids = x[order] - x.mean(axis=0), label[order], ids[order]
    n = len(x)
    starts = np.flatnonzero(np.r_[True, (np.diff(label) != 0) | (np.diff(ids) != 0)])
    size = np.diff(np.r_[starts, n])
    units = len(starts)
    first = np.flatnonzero(np.r_[True, np.diff(label[starts]) != 0])  # first unit of every class
    last = np.r_[first[1:], units]
    w = weights[:, ids[starts]].astype(np.float64)

    squares = np.einsum("ij,ij->i", x, x)
    if not squares.max() > (1e-12 * size_of_states) ** 2:  # all equal but for rounding, or not finite
        return np.full(len(w), np.nan)
    sums = np.zeros((len(w), len(first), len(first)))
    own = np.zeros(units)
    step = max(1, _ENTRIES * units // n**2)
    for lo in range(0, units, step):
        hi = min(lo + step, units)
        rows = slice(starts[lo], starts[hi] if hi < units else n)
        # Only the pairs with later units: the others are the same.
        d = x[rows] @ x[rows.start :].T
        d *= -2
        d += squares[rows, None]
        d += squares[rows.start :]
        np.sqrt(np.maximum(d, 0, out=d), out=d)
        if units < n:
            here = starts[lo:] - rows.start
            np.fill_diagonal(d, 0)
            d = np.add.reduceat(np.add.reduceat(d, here, axis=1), here[: hi - lo], axis=0)
            own[lo:hi] = d.diagonal()
        d[:, : hi - lo] = np.triu(d[:, : hi - lo], k=1)
        there = np.flatnonzero((first < hi) & (last > lo))  # classes that have units in this block
        for c in np.flatnonzero(last > lo):
            columns = slice(max(first[c], lo), last[c])
            products = (w[:, columns] @ d[:, columns.start - lo : columns.stop - lo].T) * w[:, lo:hi]
            sums[:, there, c] += np.add.reduceat(products, np.maximum(first[there] - lo, 0), axis=1)

    count = np.add.reduceat(w * size, first, axis=1)
    one, other = np.triu_indices(len(first), k=1)
    between = (sums[:, one, other] / (count[:, one] * count[:, other])).mean(axis=1)
    within = 2 * np.einsum("wcc->wc", sums) / (count**2 - np.add.reduceat((w * size) ** 2, first, axis=1))
    # In the sample itself translations are pairs like any other, and count in the mean with their share of it.
    n_class = np.add.reduceat(size, first)
    share = np.add.reduceat(size * (size - 1), first) / (n_class * (n_class - 1))
    together = np.add.reduceat(own, first) / np.add.reduceat(size * (size - 1), first)
    mixed = np.where(share < 1, (1 - share) * within[0], 0) + np.where(share > 0, share * together, 0)
    within[0] = np.where(n_class > 1, mixed, np.nan)
    return between / within.mean(axis=1)


SNR = of_labels(
    name="snr",
    title="signal-to-noise ratio",
    estimator="mean Euclidean distance between classes over mean distance within a class",
    range="0 to infinity; 1 where labels say nothing",
    unchanged_by=("rotation", "shift", "common scale", "order"),
    paper="O' Neill, Dutta, Assem 2021, arXiv 2109.15014",
    interval=LARGE,
    measure=_measured,
)
