"""Best layer: where variability is least, and in which share of the bootstrap draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from probes.measures.classes.labels import FEWEST
from probes.measures.classes.variability import VARIABILITY, variability_of
from probes.measures.probe import Run
from probes.results.draws import need_classes, sample


def best_layer(reps: xr.Dataset, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Choose the layer with the least variability in each language, and how certain that is.

    `value` is the share of bootstrap draws in which a layer has the least variability: 0 to 1, over
    all layers 1. One layer near 1 is a clear choice; a share spread over several says that the
    sentences cannot tell them apart.

    Args:
        reps: Representations with labels.
        fewest, draws, seed: as for `variability`.

    Returns:
        `best (language)`, the layer with the least variability, the lower one where several are
        equal; `value (layer, language)`, with all languages together as `pooled`; `n (language)`,
        the number of examples. `low` and `high` are NaN: the share is a statement about draws.

    Raises:
        InputError: there are no labels, or only one class.

    Notes:
        Xie, Qiu, Pasad, Du, Qu and Mei 2022, arXiv 2210.10041, take the layer with the least
        variability; the share of draws is added here. The draws are those of `variability`, of the
        same sentences at every layer, without the bias that noise in the class means brings. The
        share says how stable the choice is, not how good: with labels that say nothing, one layer
        can still win most draws, and the warning of `variability` about noise applies.

    See also:
        `variability`.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(120) % 3
        >>> x = rng.normal(size=(2, 120, 8)) + np.array([1, 4])[:, None, None] * np.eye(8)[y]
        >>> best = best_layer(probes.from_arrays(x, label=y))
        >>> best.best.sel(language="pooled").item()
        1
        >>> best.value.sel(language="pooled").values.tolist()
        [0.0, 1.0]
    """
    return _measured(Run(reps, sample(reps, draws=draws, seed=seed)), fewest)


def _measured(run: Run, fewest: int = FEWEST) -> xr.Dataset:
    nu = variability_of(run, fewest)
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
            "units": nu["units"].variable,
        },
        coords={k: nu[k].values for k in dims},
        attrs=nu.attrs | BEST_LAYER.about(),
    )


def _least(nu: np.ndarray) -> np.ndarray:
    """Return which layers (first axis) have the least variability, but for rounding; none where all
    are NaN.
    """
    filled = np.where(np.isnan(nu), np.inf, nu)
    least = filled.min(axis=0)
    return (filled <= least * (1 + 1e-6)) & np.isfinite(least)


BEST_LAYER = replace(
    VARIABILITY,
    name="best_layer",
    title="share of draws where variability is least",
    estimator="share of bootstrap draws in which the layer has the least variability",
    range="0 to 1; shares of all layers sum to 1",
    bounds=(0, 1),
    better="",
    higher_is="more often the best layer",
    family="",
    default=False,
    interval="none: the value is a share of bootstrap draws",
    measure=_measured,
    check=lambda run: need_classes(run.sample),
)
