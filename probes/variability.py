"""Hidden-state variability: how widely examples of a class spread, against how far the classes lie apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.representations import BLOCK, states
from probes.resampling import (
    POOLED,
    Sample,
    bias_corrected,
    on_arrays,
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
    # Made once: to get fresh memory of this size from the system again and again takes longer than to fill it.
    memory = np.empty((len(drawn.classes), len(drawn.weights), reps.sizes["feature"]), np.float32)
    out = {}
    for group in [*drawn.languages, POOLED]:
        rows = drawn.group(group)
        moments = _id_weights(rows, drawn)
        layers = [_variability(reps, layer, rows, drawn, moments, memory) for layer in range(reps.sizes["layer"])]
        out[group] = np.stack(layers, axis=-1)
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
    drawn: Sample,
    moments: tuple[np.ndarray, np.ndarray, np.ndarray],
    memory: np.ndarray,
) -> np.ndarray:
    """Return nu, and nu freed of the noise in the class means, for every row of weights: (2, 1 + draws).

    With M the centred class means, Sigma_between = M'M / C, so nu is trace(K^-1 Q K^-1) for K = M M' and
    Q = M Sigma_within M', which are small. Noise e in the class means adds e e' to K and e Sigma_within e' to Q. Both
    are read off the draws, whose class means are as far from the sample's as those are from the truth.
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
        return np.full((2, len(drawn.weights)), np.nan)
    # The rows of centred means sum to 0, so one singular value is 0 by construction. It is taken out by working in the
    # C - 1 directions orthogonal to the ones, which takes the mean out as well.
    contrasts = np.linalg.qr(np.column_stack([np.ones(n_classes), np.eye(n_classes)[:, :-1]]))[0][:, 1:].T
    own = np.linalg.pinv(contrasts @ centre, rcond=1e-10)
    if not own.any():
        return np.full((2, len(drawn.weights)), np.nan)
    # Around the class means of the sample, so that little is taken off anywhere. The sample itself in float64; the
    # draws in float32: rounding far below their spread, in half the time.
    value = sum(np.square((x - centre[c]) @ own).sum() / size[c] for c, x, _ in by_class()) / n_classes
    if len(drawn.weights) == 1:
        return np.full((2, 1), value)
    moved = memory[:n_classes]
    moved[:] = 0
    counts = np.zeros((n_classes, len(drawn.weights)))
    for c, x, ids in by_class():
        w = drawn.weights[:, ids].astype(np.float32)
        moved[c] += w @ (x - centre[c]).astype(np.float32)
        counts[c] += w.sum(axis=1)
    usable = np.all(counts > 0, axis=0)  # a draw may leave a class out
    moved /= np.maximum(counts, 1)[..., None].astype(np.float32)
    reduced = (contrasts.astype(np.float32) @ moved.reshape(n_classes, -1)).reshape(-1, *moved.shape[1:])
    reduced += (contrasts @ centre).astype(np.float32)[:, None]  # (C - 1, 1 + draws, feature)

    few = moved[:, 1 : 1 + _FEW].reshape(-1, moved.shape[2])
    spread = np.zeros(len(few))
    q = np.zeros((n_classes, len(drawn.weights), len(contrasts), len(contrasts)))
    for c, x, ids in by_class():
        x = (x - centre[c]).astype(np.float32)
        along = (reduced.reshape(-1, reduced.shape[2]) @ x.T).reshape(*reduced.shape[:2], -1)
        weighted = along * drawn.weights[:, ids].astype(np.float32)
        q[c] += weighted.transpose(1, 0, 2) @ along.transpose(1, 2, 0)
        spread += np.square(few @ x.T).sum(axis=1) / size[c]
    q /= np.maximum(counts, 1)[..., None, None]
    across = reduced.transpose(1, 0, 2)  # (1 + draws, C - 1, feature)
    off = (moved.transpose(1, 0, 2) @ across.transpose(0, 2, 1)).transpose(1, 0, 2)
    q -= off[..., :, None] * off[..., None, :]

    n, second, third = moments
    few_ids = n / np.maximum(n - 1, 1)
    noise = np.einsum("cwd,cwd->c", moved[:, 1:], moved[:, 1:]) / max(int(usable[1:].sum()), 1) * few_ids
    # What a class mean shares with its own examples is alike for all of them and taken off with their mean; only the
    # part that differs by their weights is left.
    shared = np.square(noise) / n_classes
    spread_noise = spread.reshape(n_classes, -1).mean(axis=1) / n_classes * few_ids - shared
    k = (across @ across.transpose(0, 2, 1)).astype(np.float64)
    k_freed = k - np.einsum("kc,wc,lc->wkl", contrasts, noise * second, contrasts)
    q_freed = (q / np.maximum(1 - second / n, 1e-12).T[..., None, None]).mean(axis=0)
    q_freed -= np.einsum("kc,wc,lc->wkl", contrasts, spread_noise * second + shared * (third - second**2), contrasts)
    nu = np.stack([_nu(k, q.mean(axis=0)), _nu(k_freed, q_freed)])
    nu[:, ~usable] = np.nan
    nu[0, 0] = value
    return nu


def _nu(k: np.ndarray, q: np.ndarray) -> np.ndarray:
    """trace(K^-1 Q K^-1) of every draw; inf where K is not positive, so the classes may not differ at all."""
    scale = np.linalg.eigvalsh(k)
    positive = scale[:, 0] > 1e-12 * scale[:, -1]
    inverse = np.linalg.inv(np.where(positive[:, None, None], k, np.eye(k.shape[1])))
    return np.where(positive, np.einsum("wkl,wlm,wmk->w", inverse, q, inverse, optimize=True), np.inf)


def _id_weights(rows: np.ndarray, drawn: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many ids each class has, and for every row of weights its second and third moment over them.

    Both are 1 for equal weights: n sum(w^2) / sum(w)^2, the noise of a weighted mean against that of the plain one,
    and n^2 sum(w^3) / sum(w)^3.
    """
    there = np.unique(drawn.label[rows])
    n = np.empty(len(there))
    second, third = np.empty((2, len(drawn.weights), len(there)))
    for i, c in enumerate(there):
        ids = np.unique(drawn.ids[rows[drawn.label[rows] == c]])
        w = drawn.weights[:, ids].astype(np.float64)
        n[i], total = len(ids), np.maximum(w.sum(axis=1), 1)
        second[:, i] = len(ids) * np.square(w).sum(axis=1) / total**2
        third[:, i] = len(ids) ** 2 * (w**3).sum(axis=1) / total**3
    return n, second, third
