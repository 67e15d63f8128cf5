"""Hidden-state variability: how widely examples of a class spread, against how far the classes lie apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.errors import LayerscopeWarning
from probes.results.draws import POOLED, Sample, sample
from probes.results.intervals import centred, widened
from probes.results.result import on_arrays, result, warn_few
from probes.states.representations import BLOCK, states

_ATTRIBUTES = {
    "probe": "variability",
    "estimator": "nu = trace(Sigma_within pinv(Sigma_between)) / classes, classes weighted equally",
    "range": "0 to infinity",
    "higher_is": "worse separated",
    "unchanged_by": "rotation, shift, common scale, order, size of the classes",
    "paper": "Xie, Qiu, Pasad, Du, Qu, Mei 2022, arXiv 2210.10041",
}
_FEWEST = 10


@overload
def variability(x: xr.Dataset, labels: None = None, *, draws: int = 200, seed: int = 0) -> xr.Dataset: ...


@overload
def variability(x: npt.ArrayLike, labels: npt.ArrayLike, *, draws: int = 200, seed: int = 0) -> float: ...


def variability(
    x: xr.Dataset | npt.ArrayLike, labels: npt.ArrayLike | None = None, *, draws: int = 200, seed: int = 0
) -> xr.Dataset | float:
    """Measure how widely the examples of a class spread, against how far the classes lie apart.

    nu = trace(Sigma_within Sigma_between^+) / C, with the covariance within and between the C classes, all classes
    counting equally, along the directions in which the class means differ. 0 to infinity; low where a layer is
    specialised for the classes, so lower is better separated.

    Args:
        x: Representations with labels, or an array (example, feature).
        labels: (example,) beside an array.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)`, with all languages together as `pooled`; for an array a float.

    Raises:
        InputError: there are no labels, or only one class.

    Notes:
        Equation (3) of Xie, Qiu, Pasad, Du, Qu and Mei 2022, arXiv 2210.10041: biased covariances, the mean of the
        class means in place of the grand mean. Computed along the at most C - 1 directions of the class means, so no
        feature x feature matrix is made. Noise in the class means moves the value, up or down, where classes are small
        or hardly differ: values of corpora of different size cannot be compared, and the interval is for the mean over
        corpora of this size. Where labels say nothing, values still differ between models whose states spread in
        other ways; a warning says where class means differ by little more than noise. In simulations the interval holds
        that mean in 93 to 98 % of cases, and in 88 % where nearly all spread lies along one direction. With fewer than
        10 examples in a class it is not reliable, and a warning says so. Memory does not grow with the corpus.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(3000) % 3
        >>> round(variability(rng.normal(size=(3000, 16)) + 4 * np.eye(16)[y], y), 3)
        0.122
    """
    if not isinstance(x, xr.Dataset):
        return on_arrays(_statistics, x, labels)
    drawn = sample(x, draws=draws, seed=seed, labels=True)
    noise: list[float] = []
    # A ratio that spans orders of magnitude, so its draws are moved and widened on the log scale.
    with np.errstate(invalid="ignore", divide="ignore"):
        statistics = {
            group: np.exp(widened(centred(np.log(values)), drawn, group))
            for group, values in _statistics(x, drawn, noise).items()
        }
    out = result(x, drawn, statistics, _ATTRIBUTES, bounds=(0, np.inf))
    warn_few(out, drawn, _FEWEST)
    if drowned := sum(share > 0.5 for share in noise):
        warnings.warn(
            f"variability of model {out.attrs['model']}: at {drowned} of {len(noise)} layers and languages more than "
            "half of the distance between the class means is noise; what it says there is little about the labels",
            LayerscopeWarning,
            stacklevel=2,
        )
    return out


def _statistics(reps: xr.Dataset, drawn: Sample, noise: list[float] | None = None) -> dict[str, np.ndarray]:
    """nu of every group (1 + draws, layer); `noise` collects the share of noise in the distance between class means."""
    # Made once: to get fresh memory of this size from the system again and again takes longer than to fill it.
    memory = np.empty((len(drawn.classes), len(drawn.weights), reps.sizes["feature"]), np.float32)
    out = {}
    for group in [*drawn.languages, POOLED]:
        layers = [_variability(reps, layer, drawn.group(group), drawn, memory) for layer in range(reps.sizes["layer"])]
        out[group] = np.stack([nu for nu, _ in layers], axis=-1)
        if noise is not None:
            noise += [share for _, share in layers]
    return out


def _variability(
    reps: xr.Dataset, layer: int, rows: np.ndarray, drawn: Sample, memory: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return nu for every row of weights, and the share of noise in the distance between the class means.

    With M the centred class means, Sigma_between = M'M / C, so nu is trace(K^-1 Q K^-1) for K = M M' and
    Q = M Sigma_within M', which are small.
    """
    there, label = np.unique(drawn.label[rows], return_inverse=True)
    size, n_classes = np.bincount(label), len(there)
    few_rows = len(rows) <= BLOCK
    kept = states(reps, layer, rows) if few_rows else None

    def by_class() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield the states of one class after another, a piece at a time, with the weights of their ids."""
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            x = states(reps, layer, rows[part]) if kept is None else kept
            for c in range(n_classes):
                inside = np.flatnonzero(label[part] == c)
                if len(inside):
                    yield c, x[inside], drawn.ids[rows[part][inside]]

    centre = np.zeros((n_classes, reps.sizes["feature"]))
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


def best_layer(reps: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Choose the layer with the least variability in each language, and say how certain the choice is.

    `value` is the share of bootstrap draws in which a layer has the least variability: 0 to 1, over all layers 1. One
    layer near 1 is a clear choice; a share spread over several says that the sentences cannot tell them apart.

    Args:
        reps: Representations with labels.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `best (language)`, the layer with the least variability, the lower one where several are equal; `value (layer,
        language)`, with all languages together as `pooled`; `n (language)`, the number of examples. `low` and `high`
        are NaN: the share is itself a statement about draws.

    Raises:
        InputError: there are no labels, or only one class.

    Notes:
        Xie, Qiu, Pasad, Du, Qu and Mei 2022, arXiv 2210.10041, take the layer with the least variability; the share of
        draws is added here. The draws are those of `variability`, of the same sentences at every layer. Raw draws carry
        the bias from noise in the class means twice, and it is larger at layers of wide noise: they would favour other
        layers than the sample itself does. In those of `variability` it is taken off at each layer, and all layers are
        spread by one factor, so that few sentences give no false certainty. A layer without a value never wins; layers
        that agree to float32 rounding share a draw. The share says how stable the choice is, not how good: with labels
        that say nothing, one layer can still win most draws, because its states spread in another way, and the
        warning of `variability` about noise applies.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(120) % 3
        >>> x = rng.normal(size=(2, 120, 8)) + np.array([1, 4])[:, None, None] * np.eye(8)[y]
        >>> best = best_layer(probes.from_arrays(x, label=y))
        >>> best.best.sel(language="pooled").item(), best.value.sel(language="pooled").values.tolist()
        (1, [0.0, 1.0])
    """
    nu = variability(reps, draws=draws, seed=seed)
    layers = nu["layer"].values
    missing = nu["value"].isnull().all("layer").values
    first = _least(nu["value"].values).argmax(axis=0)
    least = _least(nu["draws"].values.swapaxes(0, 1)).astype(np.float64)  # (layer, draw, language)
    with np.errstate(invalid="ignore"):
        share = (least / least.sum(axis=0)).swapaxes(0, 1)  # nothing is least in a draw that left a class out: 0 / 0
        share = np.nansum(share, axis=0) / least.any(axis=0).sum(axis=0)
    nothing = np.full(share.shape, np.nan)
    dims = ("layer", "language")
    return xr.Dataset(
        {
            "best": ("language", np.where(missing, np.nan, layers[first]) if missing.any() else layers[first]),
            "value": (dims, share),
            "low": (dims, nothing),
            "high": (dims, nothing.copy()),
            "n": nu["n"].variable,
        },
        coords={k: nu[k].values for k in dims},
        attrs={
            **nu.attrs,
            "probe": "best_layer",
            "estimator": "share of bootstrap draws in which the layer has the least variability",
            "range": "0 to 1; shares of all layers sum to 1",
            "higher_is": "more often the best layer",
            "interval": "none: the value is a share of bootstrap draws",
        },
    )


def _least(nu: np.ndarray) -> np.ndarray:
    """Return which layers (first axis) have the least variability, but for rounding; none where all are NaN."""
    filled = np.where(np.isnan(nu), np.inf, nu)
    least = filled.min(axis=0)
    return (filled <= least * (1 + 1e-6)) & np.isfinite(least)
