"""Hidden-state variability: how widely classes spread, against how far they lie apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.errors import LayerscopeWarning
from probes.measures.classes.labels import FEWEST, labelled, measured, of_labels, units_of_classes
from probes.measures.probe import Run
from probes.results.draws import Sample, sample
from probes.results.intervals import centred, widened
from probes.states.representations import BLOCK, states

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
    out = {}
    for group, rows in kept.items():
        layers = [_variability(partial(states, reps, i), rows, drawn, memory) for i in range(reps.sizes["layer"])]
        noise += [share for _, share in layers]
        counts = units_of_classes(drawn, rows)
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
    there, label = np.unique(drawn.label[rows], return_inverse=True)
    size, n_classes = np.bincount(label), len(there)
    few_rows = len(rows) <= BLOCK
    kept = read(rows) if few_rows else None

    def by_class() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield the states of one class after another, a piece at a time, with the weights of their
        ids.
        """
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            x = read(rows[part]) if kept is None else kept
            for c in range(n_classes):
                inside = np.flatnonzero(label[part] == c)
                if len(inside):
                    yield c, x[inside], drawn.ids[rows[part][inside]]

    centre = np.zeros((n_classes, memory.shape[2]))
    for c, x, _ in by_class():
        centre[c] += x.sum(axis=0) / size[c]
    if not np.isfinite(centre).all():
        return np.full(len(drawn.weights), np.nan), 0.0
    # The rows of centred means sum to 0, so one singular value is 0 by construction. It is taken out by working in the
    # C - 1 directions orthogonal to the ones, which takes the mean out as well.
    contrasts = np.linalg.qr(np.column_stack([np.ones(n_classes), np.eye(n_classes)[:, :-1]]))[0][:, 1:].T
    if np.abs(contrasts @ centre).max() <= 1e-12 * np.abs(centre).max():  # class means that differ by rounding
        return np.full(len(drawn.weights), np.nan), 0.0
    own = np.linalg.pinv(contrasts @ centre, rcond=1e-10)
    # Around the class means of the sample, so that little is taken off anywhere. The sample itself in float64; the
    # draws in float32, in units in which nothing overflows: rounding far below their spread, in half the time.
    value = sum(np.square((x - centre[c]) @ own).sum() / size[c] for c, x, _ in by_class()) / n_classes
    if len(drawn.weights) == 1:
        return np.array([value]), 0.0
    unit = np.abs(contrasts @ centre).max()
    moved = memory[:n_classes]
    moved[:] = 0
    counts = np.zeros((n_classes, len(drawn.weights)))
    for c, x, ids in by_class():
        w = drawn.weights[:, ids].astype(np.float32)
        moved[c] += w @ ((x - centre[c]) / unit).astype(np.float32)
        counts[c] += w.sum(axis=1)
    usable = np.all(counts > 0, axis=0)  # a draw may leave a class out
    moved /= np.maximum(counts, 1)[..., None].astype(np.float32)
    reduced = (contrasts.astype(np.float32) @ moved.reshape(n_classes, -1)).reshape(-1, *moved.shape[1:])
    reduced += (contrasts @ centre / unit).astype(np.float32)[:, None]  # (C - 1, 1 + draws, feature)

    q = np.zeros((n_classes, len(drawn.weights), len(contrasts), len(contrasts)))
    for c, x, ids in by_class():
        x = ((x - centre[c]) / unit).astype(np.float32)
        along = (reduced.reshape(-1, reduced.shape[2]) @ x.T).reshape(*reduced.shape[:2], -1)
        weighted = along * drawn.weights[:, ids].astype(np.float32)
        q[c] += weighted.transpose(1, 0, 2) @ along.transpose(1, 2, 0)
    q /= np.maximum(counts, 1)[..., None, None]
    across = reduced.transpose(1, 0, 2)  # (1 + draws, C - 1, feature)
    off = (moved.transpose(1, 0, 2) @ across.transpose(0, 2, 1)).transpose(1, 0, 2)
    q -= off[..., :, None] * off[..., None, :]
    k = (across @ across.transpose(0, 2, 1)).astype(np.float64)
    # Classes that share a mean leave fewer directions than C - 1, in the sample and so in every draw.
    rank = np.linalg.matrix_rank(own)
    scale, axes = np.linalg.eigh(k)
    scale, axes = scale[:, -rank:], axes[:, :, -rank:]
    along = np.einsum("wka,wkl,wla->wa", axes, q.mean(axis=0), axes, optimize=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        nu = np.where(usable, (along / scale**2).sum(axis=1), np.nan)
    nu[0] = value
    # Draws are as far from the sample's class means as those are from the truth.
    noise = np.einsum("cwd,cwd->", moved[:, 1:], moved[:, 1:]) / n_classes / max(len(drawn.weights) - 1, 1)
    return nu, float(noise * (n_classes - 1) / np.trace(k[0]))


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
