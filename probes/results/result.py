"""A probe's numbers as its labelled result: what it says of itself, what is missing and why."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from probes.errors import LayerscopeWarning
from probes.results.draws import Sample
from probes.results.intervals import CONFIDENCE, interval
from probes.states.representations import LEFT_OUT, left_out_in_words, states

_MOST_NAMED = 20  # places without a value that a warning lists


def result(
    reps: xr.Dataset,
    drawn: Sample,
    statistics: Mapping[str, np.ndarray],
    attributes: Mapping[str, object],
    *,
    rows: Mapping[str, np.ndarray] | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    over: Mapping[str, npt.ArrayLike] | None = None,
    missing: Callable[[tuple[int, ...], str], str] | None = None,
) -> xr.Dataset:
    """Put a probe's numbers into its labelled result, and say which are missing and why.

    Args:
        reps: what was measured.
        drawn: the sample and its draws.
        statistics: for every language (or `POOLED`) an array (1 + draws, layer), row 0 the sample's
            own value.
        attributes: what the probe says of itself (`Probe.about`).
        rows: for every language the examples that count; by default all that it has.
        bounds: the range that the interval is kept within.
        over: the dimensions of a statistic after the draws, with their coordinates; by default
            `layer`.
        missing: (position along `over`, language) -> where there is no value and why, as "layer 3:
            ..."; by default, and where it gives "", what the states tell.

    Returns:
        `value, low, high (layer, language)`, `draws (draw, layer, language)`, or along `over` in
        place of `layer`, without an interval where all is of one group; `n (language)`, how many
        examples count, and `units (language)`, how many ids, or groups of them, these are of;
        `unseen (language)`, the variance that no draw shows (`of_shares`).
    """
    over = {"layer": reps["layer"].values} if over is None else over
    counted = [drawn.group(language) if rows is None else rows[language] for language in statistics]
    values = np.stack([statistics[language] for language in statistics], axis=-1)
    low, high = interval(values[0], values[1:])
    low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    units = np.array([len(np.unique(drawn.units[drawn.ids[at]])) for at in counted])
    if drawn.grouped:  # one group says nothing of others
        low[..., units < 2], high[..., units < 2] = np.nan, np.nan
    dims = (*over, "language")
    out = xr.Dataset(
        {
            "value": (dims, values[0]),
            "low": (dims, low),
            "high": (dims, high),
            "n": ("language", np.array([len(at) for at in counted])),
            "units": ("language", units),
            "unseen": ("language", np.zeros(len(statistics))),
            "draws": (("draw", *dims), values[1:]),
        },
        coords={**over, "language": np.array(list(statistics), dtype=object)},
        attrs={
            **attributes,
            "model": reps.attrs.get("model", "?"),
            "interval": f"{CONFIDENCE:.0%} percentile interval of {len(values) - 1} bootstrap draws of {drawn.what}, "
            f"{attributes['interval']}",
            "resampling": drawn.key,
            **({LEFT_OUT: said} if (said := left_out_in_words(reps)) else {}),
        },
    )
    why = missing or (lambda at, language: "")
    _warn_missing(out, lambda at, language: why(at, language) or _why(reps, drawn, out, at[0], language))
    return out


# What a probe says of itself, one value a measure where one function returns several.
ABOUT = ("probe", "estimator", "range", "better", "higher_is", "unchanged_by", "paper", "interval")


def stack_measures(results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put results of one run side by side along `measure`, what each says of itself beside it."""
    first = results[0]
    about = {k: ("measure", np.array([r.attrs[k] for r in results], dtype=object)) for k in ABOUT if k != "probe"}
    names = np.array([r.attrs["probe"] for r in results], dtype=object)
    out = xr.concat(results, pd.Index(names, name="measure"), combine_attrs="drop")
    return out.assign_coords(about).assign_attrs({k: v for k, v in first.attrs.items() if k not in ABOUT})


def split_measures(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the results that `stack_measures` put side by side, or a single one, by name."""
    if "measure" not in result.dims:
        return {result.attrs["probe"]: result}
    out = {}
    for name in result["measure"].values:
        one = result.sel(measure=name)
        about = {"probe": name} | {k: one[k].item() for k in ABOUT if k != "probe"}
        out[str(name)] = one.drop_vars(["measure", *(k for k in ABOUT if k != "probe")]).assign_attrs(about)
    return out


def _warn_missing(out: xr.Dataset, why: Callable[[tuple[int, ...], str], str]) -> None:
    reasons: dict[str, dict[str, None]] = {}  # in order, each once
    for *at, language in np.argwhere(np.isnan(out["value"].values)):
        name = str(out["language"].values[language])
        reasons.setdefault(why(tuple(at), name), {})[name] = None
    if reasons:
        found = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in list(reasons.items())[:_MOST_NAMED])
        more = len(reasons) - _MOST_NAMED
        warnings.warn(
            f"{out.attrs['probe']} of model {out.attrs['model']} has no value at {found}"
            f"{f'; and at {more} more places' if more > 0 else ''}",
            LayerscopeWarning,
            stacklevel=5,
        )


def _why(reps: xr.Dataset, drawn: Sample, out: xr.Dataset, layer: int, language: str) -> str:
    rows = drawn.group(language)
    if "pivot" in out.attrs:
        rows = np.union1d(rows, drawn.group(out.attrs["pivot"]))
    bad = int((~np.isfinite(states(reps, layer, rows)).all(axis=1)).sum())
    reason = f"{bad} rows are not finite" if bad else "undefined here (0/0), as for states that are all equal"
    return f"layer {out['layer'].values[layer]}: {reason}"
