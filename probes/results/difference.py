"""Paired differences to a baseline, with p-values adjusted over layers."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError
from probes.results.intervals import interval
from probes.results.result import split_measures


def difference(result: xr.Dataset, baseline: xr.Dataset) -> xr.Dataset:
    """Return how far a result lies from the baseline's, draw by draw, where both have values.

    The p-value is two-sided and adjusted over the layers of one language (Westfall and Young's
    single-step max-T, on the bootstrap draws): the chance, were there no difference at any layer,
    of a standardised difference as large as this one at any of them. It cannot be smaller than 1 /
    (draws + 1).

    Returns:
        `difference, low, high, p_adjusted (layer, language)`.

    Raises:
        InputError: the two results come from different probes, ids, groups, seeds or numbers of
            draws, or have no draws.

    See also:
        `compare`.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(60, 8)), np.arange(60) % 3
        >>> base = probes.snr(probes.from_arrays(x + 2 * np.eye(8)[y], label=y))
        >>> less = probes.snr(probes.from_arrays(x + np.eye(8)[y], label=y))
        >>> bool(difference(less, base).high.sel(layer=0, language="pooled") < 0)
        True
    """
    if "measure" in result.dims and "measure" in baseline.dims:
        pairs = zip(split_measures(result).items(), split_measures(baseline).values(), strict=True)
        gaps = {name: difference(one, other) for (name, one), other in pairs}
        return xr.concat(list(gaps.values()), pd.Index(list(gaps), name="measure"))
    if "draws" not in result or "draws" not in baseline:
        raise InputError(f"{result.attrs.get('probe', 'this')} has no draws, so no difference to a baseline")
    for key, what in (("probe", "probes"), ("resampling", "ids, groups, seeds or numbers of draws")):
        if result.attrs[key] != baseline.attrs[key]:
            raise InputError(
                f"the results of {result.attrs['model']} and {baseline.attrs['model']} come from different {what}, so "
                "their draws are not paired. Measure both on the same corpus with the same draws and seed"
            )
    result, baseline = xr.align(result, baseline, join="inner")
    gap = (result["value"] - baseline["value"]).values
    draws = (result["draws"] - baseline["draws"]).values
    low, high = interval(gap, draws)
    dims = tuple(map(str, result["value"].dims))
    return xr.Dataset(
        {
            "difference": (dims, gap),
            "low": (dims, low),
            "high": (dims, high),
            # Over all that a language has: its layers, or pairs of them.
            "p_adjusted": (dims, _max_t(gap, draws)),
        },
        coords={k: result[k].values for k in dims},
    )


def _max_t(gap: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Adjusted p-values (layer, language) of differences, from draws (draw, layer, language)."""
    shape = gap.shape
    gap, draws = gap.reshape(-1, shape[-1]), draws.reshape(len(draws), -1, shape[-1])
    draws = np.where(np.isfinite(draws), draws, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        centre, spread = np.nanmean(draws, axis=0), np.nanstd(draws, axis=0)
        # A spread of rounding errors is none: two models that agree here differ by 0 with certainty.
        still = ~(spread > 1e-12 * (1 + np.abs(centre)))
        standard = np.where(still, 0.0, np.abs(draws - centre) / spread)
        largest = np.nanmax(standard, axis=1, keepdims=True)
        observed = np.where(still, np.where(np.abs(centre) > 1e-12, np.inf, 0.0), np.abs(centre) / spread)
    p = (1 + (largest >= observed).sum(axis=0)) / (1 + len(draws))
    return np.where(np.isnan(gap), np.nan, p).reshape(shape)
