"""Hidden-state variability: how widely examples of a class spread, against how far the classes lie apart."""

from __future__ import annotations

import warnings
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.representations import BLOCK, states
from probes.resampling import (
    POOLED,
    Sample,
    bias_corrected,
    class_sums,
    class_weights,
    on_arrays,
    parts,
    result,
    sample,
    warn_few,
)

_ATTRIBUTES = {
    "probe": "variability",
    "estimator": "nu = trace(Sigma_within pinv(Sigma_between)) / classes, classes weighted equally",
    "range": "0 to infinity",
    "higher_is": "worse separated",
    "invariant_to": "rotation, shift, common scale, order, size of the classes",
    "paper": "Xie, Qiu, Pasad, Du, Qu, Mei 2022, arXiv 2210.10041",
}
_FEWEST = 10
_FEW = 20  # draws are enough for a sum over all features


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
        feature x feature matrix is made. Noise in the class means moves the value, up or down, when classes are small
        or far from as many as there are features; the interval is for the value without that, and is widened where
        needed so that it holds the value. It is wider than it need be where that noise is large, and has no upper end
        (inf) where the classes may not differ by more than noise. `draws`, from which differences between models are
        taken, keep the noise, which both have. With fewer than 10 examples in a class it is not
        reliable, and a warning says so. Memory does not grow with the corpus.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(3000) % 3
        >>> round(variability(rng.normal(size=(3000, 16)) + 4 * np.eye(16)[y], y), 3)
        0.122
    """
    if not isinstance(x, xr.Dataset):
        return on_arrays(_statistics, x, labels)
    drawn = sample(x, draws=draws, seed=seed, labels=True)
    statistics = _statistics(x, drawn)
    # Differences are taken between plain draws: two models have nearly the same noise, which so falls out, while what
    # is freed of it spreads widely where the classes hardly differ.
    # A ratio, so its bias is one of its logarithm.
    with np.errstate(invalid="ignore", divide="ignore"):
        plain = {group: np.exp(bias_corrected(np.log(values[0]))) for group, values in statistics.items()}
    freed = {group: _centred(values[0, 0], values[1]) for group, values in statistics.items()}
    out = result(x, drawn, plain, _ATTRIBUTES, bounds=(0, np.inf), interval_of=freed)
    warn_few(out, drawn, _FEWEST)
    return out


def _statistics(reps: xr.Dataset, drawn: Sample) -> dict[str, np.ndarray]:
    """For every group: nu, and nu freed of the noise in the class means, each (1 + draws, layer)."""
    out = {group: np.empty((2, len(drawn.weights), reps.sizes["layer"])) for group in [*drawn.languages, POOLED]}
    groups = {group: drawn.group(group) for group in drawn.languages or [POOLED]}
    counts = {group: class_weights(rows, drawn) for group, rows in groups.items()}
    for layer in range(reps.sizes["layer"]):
        # Any point near the states will do; without it, means would be taken off numbers that are mostly mean.
        origin = states(reps, layer, slice(0, BLOCK)).mean(axis=0)
        origin = np.where(np.isfinite(origin), origin, 0.0)
        pooled = np.zeros((len(drawn.weights), len(drawn.classes), reps.sizes["feature"]))
        for group, rows in groups.items():
            sums = np.zeros_like(pooled)
            for part in parts(rows):
                sums += class_sums(states(reps, layer, part) - origin, part, drawn)
            pooled += sums
            if group != POOLED:
                out[group][..., layer] = _variability(reps, layer, rows, origin, sums, counts[group], drawn)
        everyone = drawn.group(POOLED)
        out[POOLED][..., layer] = _variability(
            reps, layer, everyone, origin, pooled, class_weights(everyone, drawn), drawn
        )
    return out


def _centred(value: np.ndarray, freed: np.ndarray) -> np.ndarray:
    """Return the value, then the freed draws with their median at the freed sample: a ratio of noisy sums leans up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: said once, by name, in result()
        lean = np.nanmedian(freed[1:], axis=0) / freed[0]
    return np.r_[value[None], freed[1:] / np.where(np.isfinite(lean) & (lean > 0), lean, 1.0)]


def _variability(
    reps: xr.Dataset,
    layer: int,
    rows: np.ndarray,
    origin: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    drawn: Sample,
) -> np.ndarray:
    """Return nu, and nu freed of the noise in the class means, for every row of weights: (2, 1 + draws).

    With M the centred class means, Sigma_between = M'M / C, so nu is trace(K^-1 Q K^-1) for K = M M' and
    Q = M Sigma_within M', which are small. Noise e in the class means adds e e' to K and e Sigma_within e' to Q. Both
    are read off the draws, whose class means are as far from the sample's as those are from the truth.
    """
    there = np.flatnonzero(counts[0] > 0)
    missing = np.full((2, len(sums)), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = sums[0, there] / counts[0, there, None]
        # How far a draw is from the sample, in float32: rounding far below the spread, in half the time.
        moved = (sums[:, there] / counts[:, there, None] - centre).astype(np.float32)
    # The rows of centred means sum to 0, so one singular value is 0 by construction. It is taken out by working in the
    # C - 1 directions orthogonal to the ones, which takes the mean out as well.
    n_classes = len(there)
    contrasts = np.linalg.qr(np.column_stack([np.ones(n_classes), np.eye(n_classes)[:, :-1]]))[0][:, 1:].T
    if not np.isfinite(centre).all():
        return missing
    own = np.linalg.pinv(contrasts @ centre, rcond=1e-10)
    if not own.any():
        return missing
    usable = np.isfinite(moved.sum(axis=(1, 2)))  # a draw may leave a class out
    moved[~usable] = 0
    reduced = contrasts.astype(np.float32) @ moved + (contrasts @ centre).astype(np.float32)
    flat = reduced.reshape(-1, reduced.shape[2])
    few = moved[1 : 1 + _FEW].reshape(-1, moved.shape[2])

    value, spread = 0.0, np.zeros(len(few))
    q = np.zeros((n_classes, len(sums), len(contrasts), len(contrasts)))
    for part in parts(rows):
        label = drawn.label[part]
        x = states(reps, layer, part) - origin
        for i, c in enumerate(there):
            inside = label == c
            # Around the class mean of the sample, so that little is taken off below.
            x_class = x[inside] - centre[i]
            value += np.square(x_class @ own).sum() / counts[0, c] / n_classes
            x_class = x_class.astype(np.float32)
            along = (flat @ x_class.T).reshape(*reduced.shape[:2], -1)
            w = drawn.weights[:, drawn.ids[part[inside]]].astype(np.float32)
            q[i] += (along * w[:, None, :]) @ along.transpose(0, 2, 1)
            spread += np.square(few @ x_class.T).sum(axis=1) / counts[0, c]
    if len(sums) == 1:
        return np.full((2, 1), value)
    q /= np.maximum(counts[:, there], 1).T[..., None, None]
    off = (moved @ reduced.transpose(0, 2, 1)).transpose(1, 0, 2)
    q -= off[..., :, None] * off[..., None, :]

    n, second, third = _id_weights(rows, there, drawn)
    few_ids = n / np.maximum(n - 1, 1)
    noise = np.square(moved[1:][usable[1:]]).sum(axis=2).mean(axis=0) * few_ids
    # What a class mean shares with its own examples is alike for all of them and taken off with their mean; only the
    # part that differs by their weights is left.
    shared = np.square(noise) / n_classes
    spread_noise = spread.reshape(-1, n_classes).mean(axis=0) / n_classes * few_ids - shared
    k = (reduced @ reduced.transpose(0, 2, 1)).astype(np.float64)
    k_freed = k - np.einsum("kc,wc,lc->wkl", contrasts, noise * second, contrasts)
    q_freed = (q / np.maximum(1 - second / n, 1e-12).T[..., None, None]).mean(axis=0)
    q_freed -= np.einsum("kc,wc,lc->wkl", contrasts, spread_noise * second + shared * (third - second**2), contrasts)
    nu = np.stack([_nu(k, q.mean(axis=0)), _nu(k_freed, q_freed)])
    nu[:, ~usable] = np.nan
    nu[0, 0] = value
    return nu


def _nu(k: np.ndarray, q: np.ndarray) -> np.ndarray:
    """trace(K^-1 Q K^-1) of every draw; inf where K is not positive, so the classes may not differ at all."""
    scale, axes = np.linalg.eigh(k)
    positive = scale[:, 0] > 1e-12 * scale[:, -1]
    turned = np.einsum("wka,wkl,wla->wa", axes, q, axes)
    return np.where(positive, (turned / np.where(positive[:, None], scale, 1) ** 2).sum(axis=1), np.inf)


def _id_weights(rows: np.ndarray, there: np.ndarray, drawn: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many ids each class has, and for every row of weights its second and third moment over them.

    Both are 1 for equal weights: n sum(w^2) / sum(w)^2, the noise of a weighted mean against that of the plain one,
    and n^2 sum(w^3) / sum(w)^3.
    """
    n = np.empty(len(there))
    second, third = np.empty((2, len(drawn.weights), len(there)))
    for i, c in enumerate(there):
        ids = np.unique(drawn.ids[rows[drawn.label[rows] == c]])
        w = drawn.weights[:, ids].astype(np.float64)
        n[i], total = len(ids), np.maximum(w.sum(axis=1), 1)
        second[:, i] = len(ids) * np.square(w).sum(axis=1) / total**2
        third[:, i] = len(ids) ** 2 * (w**3).sum(axis=1) / total**3
    return n, second, third
