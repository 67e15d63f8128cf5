"""Hidden-state variability: how widely classes spread, against how far they lie apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.errors import LayerscopeWarning
from probes.measures.classes.labels import FEWEST, labelled, measured, of_labels, units_of_classes
from probes.measures.probe import Run
from probes.results.draws import Sample, sample
from probes.results.intervals import centred, widened
from probes.states.representations import BLOCK, rows_of

_ENTRIES = 2**20  # numbers of states that are read at a time
_ROWS = 256  # of them whose states along the class means are kept at a time
_RELIABLE = 10  # sentences of a class from which on its interval holds


@overload
def variability(
    x: xr.Dataset, labels: None = None, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0
) -> xr.Dataset: ...


@overload
def variability(
    x: npt.ArrayLike, labels: npt.ArrayLike, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0
) -> float: ...


def variability(
    x: xr.Dataset | npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    fewest: int = FEWEST,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how widely the examples of a class spread, against how far the classes lie apart.

    nu = trace(Sigma_within Sigma_between^+) / C, with the covariance within and between the C
    classes, all classes counting equally, along the directions in which the class means differ. 0
    to infinity; low where a layer is specialised for the classes, so lower is better separated.

    Args:
        x: Representations with labels, or an array (example, feature).
        labels: (example,) beside an array.
        fewest: classes with fewer sentences in a language are left out there, and a warning names
            them; at least 2.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)`, with all languages together as `pooled`; for an array
        a float.

    Raises:
        InputError: there are no labels, or only one class.

    Notes:
        Equation (3) of Xie, Qiu, Pasad, Du, Qu and Mei 2022, arXiv 2210.10041: biased covariances,
        the mean of the class means in place of the grand mean. Noise in the class means moves the
        value where classes are small or hardly differ, so corpora of different size cannot be
        compared, and the interval is for the mean over corpora of this size; warnings say where
        class means differ by little more than noise, or classes have fewer than 10 examples. Memory
        does not grow with the corpus.

    See also:
        `best_layer`, `class_separability`, `snr`.

    Example:
        >>> y = np.arange(3000) % 3
        >>> x = np.random.default_rng(0).normal(size=(3000, 16)) + 4 * np.eye(16)[y]
        >>> round(variability(x, y), 3)
        0.122
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels, "variability", fewest))
    run = Run(x, sample(x, draws=draws, seed=seed))
    noise: list[float] = []
    return _said(measured(VARIABILITY, run, partial(_statistics, noise), fewest=fewest, reliable=_RELIABLE), noise)


def _of_array(x: np.ndarray, drawn: Sample) -> float:
    memory = np.empty((len(drawn.classes), 1, x.shape[1]), np.float32)
    return float(_variability(x.__getitem__, np.arange(len(x)), drawn, memory)[0][0])


def variability_of(run: Run, fewest: int = FEWEST) -> xr.Dataset:
    """Measure the variability of Representations with draws that are there already."""
    noise: list[float] = []
    return _said(measured(VARIABILITY, run, partial(_statistics, noise), fewest=fewest, reliable=_RELIABLE), noise)


def _said(out: xr.Dataset, noise: list[float]) -> xr.Dataset:
    if drowned := sum(share > 0.5 for share in noise):
        warnings.warn(
            f"variability of model {out.attrs['model']}: at {drowned} of {len(noise)} layers and languages more than "
            "half of the distance between the class means is noise; what it says there is little about the labels",
            LayerscopeWarning,
            stacklevel=3,
        )
    return out


def _statistics(
    noise: list[float], reps: xr.Dataset, drawn: Sample, kept: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """nu of every group (1 + draws, layer); `noise` collects the share of noise in the distance
    between class means.
    """
    # Made once: to get fresh memory of this size from the system again and again takes longer than to fill it.
    memory = np.empty((len(drawn.classes), len(drawn.weights), reps.sizes["feature"]), np.float32)
    found: dict[str, list[tuple[np.ndarray, float]]] = {group: [] for group in kept}
    for layer in range(reps.sizes["layer"]):
        read = rows_of(reps, layer)
        for group, rows in kept.items():
            found[group].append(_variability(read, rows, drawn, memory))
    out = {}
    for group, layers in found.items():
        noise += [share for _, share in layers]
        counts = units_of_classes(drawn, kept[group])
        # A ratio that spans orders of magnitude, so its draws are moved and widened on the log scale.
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = centred(np.log(np.stack([nu for nu, _ in layers], axis=-1)))
            out[group] = np.exp(widened(logs, counts[counts > 0]))
    return out


def _variability(
    read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, drawn: Sample, memory: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return nu of rows of states for every row of weights, and the share of noise in the distance
    of the class means.

    With M the centred class means, Sigma_between = M'M / C, so nu is trace(K^-1 Q K^-1) for K = M
    M' and Q = M Sigma_within M', which are small.
    """
    label = np.unique(drawn.label[rows], return_inverse=True)[1]
    # Some rows at a time, and of these those of one class after another.
    step = len(rows) if len(rows) * memory.shape[2] <= _ENTRIES else BLOCK
    order = np.lexsort((label, np.arange(len(rows)) // step))
    rows, label = rows[order], label[order]
    size, n_classes = np.bincount(label), label.max() + 1
    of_class = np.eye(n_classes, dtype=np.float32)[label]
    parts = [slice(start, start + step) for start in range(0, len(rows), step)]

    def by_class(part: slice) -> Iterator[tuple[int, slice]]:
        """Yield the classes of some rows, and where each is among them."""
        ends = np.searchsorted(label[part], np.arange(n_classes + 1))
        for c in np.flatnonzero(np.diff(ends)):
            yield int(c), slice(ends[c], ends[c + 1])

    with np.errstate(invalid="ignore"):  # states that are not finite
        centre = sum(of_class[part].T @ read(rows[part]) for part in parts) / size[:, None]
    if not np.isfinite(centre).all():
        return np.full(len(drawn.weights), np.nan), 0.0
    # The rows of centred means sum to 0, so one singular value is 0 by construction. It is taken out by working in the
    # C - 1 directions orthogonal to the ones, which takes the mean out as well.
    contrasts = _contrasts(n_classes)
    if np.abs(contrasts @ centre).max() <= 1e-12 * np.abs(centre).max():  # class means that differ by rounding
        return np.full(len(drawn.weights), np.nan), 0.0
    left, lengths, right = np.linalg.svd(contrasts @ centre, full_matrices=False)
    # Classes that share a mean leave fewer directions than C - 1, in the sample and so in every draw.
    rank = int((lengths > 1e-10 * lengths[0]).sum())
    own = right[:rank].T / lengths[:rank] @ left[:, :rank].T
    # Around the class means of the sample, so that little is taken off anywhere. The sample itself in float64; the
    # draws in float32, in units in which nothing overflows: rounding far below their spread, in half the time.
    unit = np.abs(contrasts @ centre).max()

    def around(part: slice) -> np.ndarray:
        """Read some rows around the means of their classes."""
        x = read(rows[part])
        for c, inside in by_class(part):
            x[inside] -= centre[c]
        return x

    value = sum((np.square(around(part) @ own).sum(axis=1) / size[label[part]]).sum() for part in parts) / n_classes
    if len(drawn.weights) == 1:
        return np.array([value]), 0.0
    counts = sum(drawn.weights[:, drawn.ids[rows[part]]] @ of_class[part] for part in parts)  # (1 + draws, class)
    usable = np.all(counts > 0, axis=1)  # a draw may leave a class out
    share = 1 / np.maximum(counts, 1)

    def in_units(part: slice) -> tuple[np.ndarray, np.ndarray]:
        """The weights of some rows, those of a class summing to 1 (1 + draws, row), and their states."""
        w = drawn.weights[:, drawn.ids[rows[part]]] * share.take(label[part], axis=1)
        return w, (around(part) / unit).astype(np.float32)

    kept = [in_units(parts[0])] if len(parts) == 1 else None
    moved = memory[:n_classes]
    moved[:] = 0
    for part, (w, x) in zip(parts, kept or map(in_units, parts), strict=True):
        for c, inside in by_class(part):
            moved[c] += w[:, inside] @ x[inside]
    reduced = (contrasts.astype(np.float32) @ moved.reshape(n_classes, -1)).reshape(-1, *moved.shape[1:])
    reduced += (contrasts @ centre / unit).astype(np.float32)[:, None]  # (C - 1, 1 + draws, feature)

    q = np.zeros((len(drawn.weights), len(contrasts), len(contrasts)))  # summed over classes
    for w, x in kept or map(in_units, parts):
        for start in range(0, len(x), _ROWS):
            some = slice(start, start + _ROWS)
            along = (reduced.reshape(-1, reduced.shape[2]) @ x[some].T).reshape(*reduced.shape[:2], -1)
            weighted = along * w[:, some]
            q += weighted.transpose(1, 0, 2) @ along.transpose(1, 2, 0)
    across = reduced.transpose(1, 0, 2)  # (1 + draws, C - 1, feature)
    off = moved.transpose(1, 0, 2) @ across.transpose(0, 2, 1)  # (1 + draws, class, C - 1)
    q -= off.transpose(0, 2, 1) @ off
    k = (across @ across.transpose(0, 2, 1)).astype(np.float64)
    scale, axes = np.linalg.eigh(k)
    scale, axes = scale[:, -rank:], axes[:, :, -rank:]
    along = np.einsum("wka,wka->wa", axes, q @ axes) / n_classes
    with np.errstate(invalid="ignore", divide="ignore"):
        nu = np.where(usable, (along / scale**2).sum(axis=1), np.nan)
    nu[0] = value
    # Draws are as far from the sample's class means as those are from the truth.
    noise = np.einsum("cwd,cwd->", moved[:, 1:], moved[:, 1:]) / n_classes / max(len(drawn.weights) - 1, 1)
    return nu, float(noise * (n_classes - 1) / np.trace(k[0]))


@cache
def _contrasts(n: int) -> np.ndarray:
    """Directions (n - 1, n) orthogonal to the ones, and to each other."""
    return np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, :-1]]))[0][:, 1:].T


VARIABILITY = of_labels(
    name="variability",
    title="variability (ν)",
    estimator="nu = trace(Sigma_within pinv(Sigma_between)) / classes, classes weighted equally",
    better="lower",
    higher_is="worse separated",
    unchanged_by=("rotation", "shift", "common scale", "order", "size of the classes"),
    paper="Xie, Qiu, Pasad, Du, Qu, Mei 2022, arXiv 2210.10041",
    measure=variability_of,
)
