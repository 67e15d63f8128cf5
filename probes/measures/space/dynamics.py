"""The layers of a model as known dynamics: an affine map from each layer to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.results.draws import Sample
from probes.states.representations import aligned, check_representations

FOLDS = 4
FEWEST = 20  # ids, or groups of them, to learn from and test on
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, np.inf)  # of ridge, over the mean eigenvalue; infinite changes nothing
_CHOICE = 5  # one unit in so many of those learned from chooses the strength

# From a layer (by position) and rows to states (rows, feature) in float64.
Read = Callable[[int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Known:
    """An affine map from each layer of a model to the next, in coordinates of its own.

    States of a layer are centred and divided by one number, so that the mean square of a feature is
    1: what is said of layers then weighs alike.

    Attributes:
        means: (layer, feature).
        scales: (layer,).
        maps: (step, feature + 1, feature) what a step adds, the last row for a constant.
    """

    means: np.ndarray
    scales: np.ndarray
    maps: np.ndarray

    def coordinates(self, layer: int, states: np.ndarray) -> np.ndarray:
        """Return states (example, feature) of a layer in its coordinates."""
        return (states - self.means[layer]) / self.scales[layer]

    def step(self, layer: int, z: np.ndarray) -> np.ndarray:
        """Return where the map of a layer takes coordinates (example, feature) of it."""
        return z + affine(self.maps[layer], z)

    def copied(self, layer: int, z: np.ndarray) -> np.ndarray:
        """Return where the map of the layer before would take them; the first layer has none."""
        return z if layer == 0 else self.step(layer - 1, z)


def affine(by: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return z (example, feature) through a map (feature + 1, feature), the last row for a constant."""
    moved: np.ndarray = z @ by[:-1] + by[-1]
    return moved


def known_dynamics(read: Read, layers: int, rows: np.ndarray, choosing: np.ndarray) -> Known:
    """Fit the known dynamics of a model by ridge regression, each map drawn to the identity.

    Args:
        read: the states of a layer.
        layers: how many there are.
        rows: to learn from.
        choosing: (row,) those of them that choose the strength of each map.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(400, 3))
        >>> both = [x, 2 * x @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]) + 5]
        >>> rows = np.arange(400)
        >>> found = known_dynamics(lambda layer, at: both[layer][at], 2, rows, rows % 5 == 0)
        >>> said = found.step(0, found.coordinates(0, x))
        >>> bool(np.abs(said - found.coordinates(1, both[1])).max() < 0.05)
        True
    """
    means, scales, maps = [], [], []
    last: np.ndarray | None = None
    for layer in range(layers):
        x = read(layer, rows)
        with np.errstate(invalid="ignore"):
            means.append(x.mean(axis=0))
            z = x - means[-1]
            scales.append(np.sqrt(np.square(z).mean()))
        # States that are all equal: rounding is no variance.
        if not scales[-1] > 1e-12 * (1 + np.abs(means[-1]).max()):
            scales[-1] = np.nan
        z /= scales[-1]
        if last is not None:
            maps.append(ridge(last, z - last, choosing))
        last = z
    return Known(np.array(means), np.array(scales), np.array(maps))


def ridge(x: np.ndarray, y: np.ndarray, choosing: np.ndarray, strengths: tuple[float, ...] = STRENGTHS) -> np.ndarray:
    """Return the affine map from x (row, feature) to y that ridge regression finds, drawn to 0.

    The strength that predicts the choosing rows best, of maps that are fitted on the others; then
    fitted on all. NaN where what is given is not finite.

    Args:
        x, y: (row, feature).
        choosing: (row,) boolean.
        strengths: of the penalty, over the mean eigenvalue of the covariance of x.

    Returns:
        (feature + 1, feature), the last row the constant.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.full((x.shape[1] + 1, y.shape[1]), np.nan)
    tried = _path(x[~choosing], y[~choosing], strengths)
    errors = [np.square(y[choosing] - affine(by, x[choosing])).sum() for by in tried]
    (best,) = _path(x, y, (strengths[int(np.argmin(errors))],))
    return best


def _path(x: np.ndarray, y: np.ndarray, strengths: tuple[float, ...]) -> list[np.ndarray]:
    """The maps of several strengths, from one eigendecomposition."""
    mean, target = x.mean(axis=0), y.mean(axis=0)
    z = x - mean
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    cross = vectors.T @ (z.T @ (y - target) / len(z))
    out = []
    for strength in strengths:
        if np.isinf(strength):
            out.append(np.zeros((x.shape[1] + 1, y.shape[1])))
            continue
        by = vectors @ (cross / (values + strength * values.mean() + 1e-30)[:, None])
        out.append(np.vstack([by, target - mean @ by]))
    return out


def folds_of_units(drawn: Sample, seed: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Deal ids, or groups of them, into folds: rows to learn from, which of these choose, rows to test on."""
    units = drawn.units[drawn.ids]
    count = int(drawn.units.max()) + 1
    place = np.random.default_rng(seed).permutation(count)
    out = []
    for fold in range(FOLDS):
        test = place[units] % FOLDS == fold
        learned = np.flatnonzero(~test)
        choosing = place[units[learned]] // FOLDS % _CHOICE == 0
        out.append((learned, choosing, np.flatnonzero(test)))
    return out


def check_dynamics(base: xr.Dataset, other: xr.Dataset, drawn: Sample, fewest: int, who: str) -> xr.Dataset:
    """Return the other model with its examples in the order of the baseline.

    Args:
        base, other: Representations.
        drawn: of the baseline.
        fewest: states, the embeddings among them.
        who: asks, as messages begin.

    Raises:
        InputError: the two hold different sentences, differ in depth or width, have too few layers,
            or too few sentences.
    """
    names = [str(r.attrs.get("model", "?")) for r in (base, check_representations(other))]
    other = aligned(base, other)
    depths = [r["layer"].values.tolist() for r in (base, other)]
    if depths[0] != depths[1]:
        raise InputError(
            f"{who}: expected models of one depth; {names[0]!r} has the layers {_listed(depths[0])} and {names[1]!r} "
            f"{_listed(depths[1])}. Compare it with models whose blocks are all there, or take drift, which maps layers"
        )
    widths = [r.sizes["feature"] for r in (base, other)]
    if widths[0] != widths[1]:
        raise InputError(
            f"{who}: expected models of one width; {names[0]!r} has {widths[0]} features and {names[1]!r} {widths[1]}. "
            "Models of different width can be compared by probes.similarity"
        )
    if len(depths[0]) < fewest:
        many = f"{fewest - 1} layer{'s' if fewest > 2 else ''}"
        raise InputError(
            f"{who}: expected at least {many} after the embeddings; {names[0]!r} "
            f"has the layers {_listed(depths[0])}. Capture all of them"
        )
    check_ids(drawn, who)
    return other


def check_ids(drawn: Sample, who: str) -> None:
    """Raise `InputError` where there are too few ids, or groups of them, to learn from and test on."""
    units, what = int(drawn.units.max()) + 1, "groups" if drawn.grouped else "ids"
    if units < FEWEST:
        raise InputError(
            f"{who}: expected at least {FEWEST} {what}, to learn from three quarters of them and test on the others; "
            f"found {units}. Give more sentences"
        )


def _listed(layers: list[int]) -> str:
    return ", ".join(map(str, layers)) if len(layers) < 5 else f"{layers[0]} to {layers[-1]}"
