"""Intervals of ratios of sums whose parts have long tails, as squares of what is missed have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from probes.results.counts import sums_over
from probes.results.draws import Sample
from probes.results.intervals import CONFIDENCE


def of_ratios(out: xr.Dataset, drawn: Sample, above: np.ndarray, below: np.ndarray) -> xr.Dataset:
    """Give ratios of sums over examples, or 1 minus them, symmetric bootstrap-t intervals.

    Where few examples make most of a sum, percentiles of draws lie too near: a draw without them
    has a smaller value and a smaller spread at once. So each draw is measured in units of its own
    standard error (Hall 1988).

    Args:
        out: the result, `value (..., language)`, whose draws stay as they are.
        drawn: the sample, of which `out` has every language and all together.
        above, below: (example, ...) what is summed above and below the line.

    Returns:
        The result with other `low` and `high`; none of a language whose examples are of one group.
    """
    half = half_widths(drawn, [str(group) for group in out["language"].values], above, below)
    value, dims = out["value"].values, out["value"].dims
    said = out.attrs["interval"].replace("percentile interval", "symmetric bootstrap-t interval")
    return out.assign(low=(dims, value - half), high=(dims, value + half)).assign_attrs(interval=said)


def half_widths(drawn: Sample, groups: Sequence[str], above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return half the width of the interval of a ratio of sums in languages, or all of them together:
    (..., group).

    Args:
        drawn: the sample.
        groups: the languages.
        above, below: (example, ...) what is summed above and below the line.
    """
    return np.stack([_half_width(drawn, drawn.group(group), above, below) for group in groups], axis=-1)


def _half_width(drawn: Sample, rows: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    units, first, of_row = np.unique(drawn.units[drawn.ids[rows]], return_index=True, return_inverse=True)
    there = drawn.ids[rows[first]]
    shape = above.shape[1:]
    a, b = (np.zeros((len(units), int(np.prod(shape)))) for _ in range(2))
    np.add.at(a, of_row, above[rows].reshape(len(rows), -1))
    np.add.at(b, of_row, below[rows].reshape(len(rows), -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        # All at once, so that the draws are looked up once.
        sums = sums_over(drawn.weights, there, np.stack([a, b, np.square(a), a * b, np.square(b)], axis=1))
        above_line, whole, of_a, of_both, of_b = np.moveaxis(sums, 1, 0)
        ratio = above_line / whole
        squares = of_a - 2 * ratio * of_both + np.square(ratio) * of_b
        error = np.sqrt(np.maximum(squares, 0)) / whole
        away = np.abs(ratio[1:] - ratio[0])
        # Of what does not vary nothing is away, by no error.
        far = np.where(away <= 1e-12 * np.abs(ratio[0]), 0.0, away / error[1:])
    half = np.quantile(far, CONFIDENCE, axis=0, method="weibull") * error[0]
    if drawn.grouped and len(units) < 2:
        half = np.full_like(half, np.nan)
    out: np.ndarray = half.reshape(shape)
    return out
