"""Paired differences of models, with intervals and p alone and jointly over any family of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError, check_choice
from probes.results.calibration import LEVEL, calibrated
from probes.results.cells import BESIDE, COLUMNS, FURTHER, NO_LAYER
from probes.results.result import split_measures

# What varies within a family of differences: the columns of the table that say which.
FAMILIES = {
    "layer": ["layer", "other_layer", "module"],
    "language": ["language", "other_language"],
    "model": ["model"],
    "probe": ["probe"],
}
# What p is adjusted over where differences are marked: rings, dots, the language that lost most.
MARKED = ("layer", "language")
_DIFFERENCES = COLUMNS[8:]
_Side = tuple[np.ndarray, ...]  # value (cell,), draws (cell, draw), unseen (cell,), units (cell,)


def difference(result: xr.Dataset, baseline: xr.Dataset) -> xr.Dataset:
    """Return how far a result lies from the baseline's, draw by draw, where both have values.

    `p` is two-sided and of one difference alone, `p_adjusted` of all layers of a language at once:
    the chance, were there no difference at any of them, of one as large for its spread at any.
    Neither is smaller than 1 / (draws + 1).

    Returns:
        `difference, low, high, p, p_adjusted, adjusted_low, adjusted_high (layer, language)`:
        p < 0.05 if and only if `low` to `high` leaves out 0, and p_adjusted < 0.05 if and only if
        `adjusted_low` to `adjusted_high` does.

    Raises:
        InputError: the two results come from different probes, ids, groups, seeds or numbers of
            draws, have no draws, or have no layer (or another coordinate) in common.

    See also:
        `compare`, `Comparison.difference`, `Comparison.adjusted`.

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
    _check_common(result, baseline)
    result, baseline = xr.align(result, baseline, join="inner")
    dims = tuple(map(str, result["value"].dims))
    shape = result["value"].shape
    first, second = (
        (
            one["value"].values.ravel(),
            one["draws"].transpose(*dims, "draw").values.reshape(result["value"].size, -1),
            *(
                np.broadcast_to(one[name].values if name in one else otherwise, shape).ravel()
                for name, otherwise in (("unseen", 0.0), ("units", np.inf))
            ),
        )
        for one in (result, baseline)
    )
    # Over all that a language has: its layers, or pairs of them.
    family = np.broadcast_to(np.arange(shape[-1]), shape).ravel()
    out = _between(first, second, family).rename(columns={"difference_low": "low", "difference_high": "high"})
    return xr.Dataset(
        {name: (dims, out[name].to_numpy().reshape(shape)) for name in out},
        coords={k: result[k].values for k in dims},
    )


def _check_common(result: xr.Dataset, baseline: xr.Dataset) -> None:
    """Raise `InputError` where two results have no layer, or no other coordinate of a dimension, in common."""
    for dim in map(str, result["value"].dims):
        first, second = (one[dim].to_index() for one in (result, baseline))
        if first.intersection(second).empty:
            one, other = (", ".join(map(str, found[:8])) + ", ..." * (len(found) > 8) for found in (first, second))
            todo = "give the layers of one the numbers of those of the other (assign_coords), or " * (dim == "layer")
            raise InputError(
                f"the results of {result.attrs['model']} and {baseline.attrs['model']} have no {dim} in common: "
                f"expected the same at least once, found {dim} {one or 'none'} and {other or 'none'}. To compare them, "
                f"{todo}measure both over the same"
            )


def differences(table: pd.DataFrame, kept: xr.Dataset, pairs: Mapping[str, str], over: Iterable[str]) -> pd.DataFrame:
    """Return the columns of differences of a tidy table, with the table's index.

    Args:
        table: the rows, whatever they are, numbered as `kept` numbers them.
        kept: their draws, as `tabulated` gives them.
        pairs: model -> the model that it is compared with; others have no differences.
        over: what varies within a family that p is adjusted over.
    """
    out = pd.DataFrame(np.nan, index=table.index, columns=_DIFFERENCES)
    place = [c for c in ("probe", "language", "layer", *FURTHER) if c in table]
    beside = table.assign(layer=table[BESIDE]) if BESIDE in table else table
    number = beside.groupby(place, dropna=False, sort=False).ngroup().to_numpy()
    if BESIDE in table:  # a layer without a partner
        alone = ((table[BESIDE] == NO_LAYER) & (table["layer"] != NO_LAYER)).to_numpy()
        number = np.where(alone, -1 - np.arange(len(number)), number)
    model = table["model"].to_numpy()
    pairs_at: list[np.ndarray] = []  # positions in the table, of a row and of what is subtracted
    for name, baseline in pairs.items():
        at, there = np.flatnonzero(model == name), np.flatnonzero(model == baseline)
        first = pd.Series(there, index=number[there])
        found = first[~first.index.duplicated()].reindex(number[at]).to_numpy()
        pairs_at.append(np.stack([at, found])[:, ~np.isnan(found)].astype(int))
    at, there = np.concatenate([np.zeros((2, 0), int), *pairs_at], axis=1)
    if not len(at):
        return out
    rows = pd.Series(np.arange(kept.sizes["row"]), index=kept["row"].values)
    value = table["value"].to_numpy(float)
    # Behind the last row of the draws, one without any.
    draws = np.concatenate([kept["draws"].values, np.full((1, kept.sizes["draw"]), np.nan)])
    unseen, units = np.append(kept["unseen"].values, 0.0), np.append(kept["units"].values, np.inf)

    def side(positions: np.ndarray) -> _Side:
        own = rows.reindex(table.index[positions]).fillna(len(rows)).to_numpy(int)
        return value[positions], draws[own], unseen[own], units[own]

    apart = [c for c in ("model", *place) if c not in _varying(over)]
    family = table.iloc[at].groupby(apart, dropna=False, sort=False).ngroup().to_numpy() if apart else 0 * at
    out.iloc[at] = _between(side(at), side(there), family).to_numpy()
    return out


def check_family(over: Sequence[str]) -> None:
    """Raise `InputError` where a family is none that p can be adjusted over."""
    if isinstance(over, str) or not over:
        raise InputError(f"over={over!r}: expected a list of what varies within a family, out of {', '.join(FAMILIES)}")
    for name in over:
        check_choice("over", name, FAMILIES)


def near_the_level(found: pd.DataFrame, draws: int, over: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return models and probes whose p may lie on the other side of 0.05 with more draws.

    So many draws know a p of 0.05 to a standard error; near are three of them, and all others of a
    family that has such a p.
    """
    error = np.sqrt(LEVEL * (1 - LEVEL) / draws)
    tested = found[found["p_adjusted"].notna()]
    near = tested[(tested["p_adjusted"] - LEVEL).abs() <= 3 * error]
    if near.empty:
        return [], []
    models, probes = ((tested if name in over else near)[name].unique().tolist() for name in ("model", "probe"))
    return models, probes


def with_more_draws(found: pd.DataFrame, again: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the differences of those that were measured again, in the same order."""
    out = found.copy()
    for (model, probe), rows in again[again["p"].notna()].groupby(["model", "probe"], sort=False):
        at = found.index[(found["model"] == model) & (found["probe"] == probe) & found["p"].notna()]
        out.loc[at, _DIFFERENCES] = rows[_DIFFERENCES].to_numpy()
    return out


def family_in_words(over: Iterable[str]) -> str:
    """Return what p is adjusted over, in words.

    Example:
        >>> family_in_words(["language", "layer"])
        'layers and languages'
    """
    names = [f"{name}s" for name in FAMILIES if name in set(over)]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def adjustment(over: Iterable[str]) -> str:
    """Return how p is adjusted, in a sentence that stands beside it."""
    fixed = [name for name in FAMILIES if name not in set(over)]
    within = f" of one {', '.join(fixed)}" if fixed else ""
    return (
        f"over {family_in_words(over)}{within}: max-T on the shared bootstrap draws, with step-down "
        "(Westfall and Young 1993)"
    )


def _varying(over: Iterable[str]) -> set[str]:
    return {column for name in over for column in FAMILIES[name]}


def _between(one: _Side, other: _Side, family: np.ndarray) -> pd.DataFrame:
    """The differences of cells of two sides, NaN where they have no draws."""
    with np.errstate(invalid="ignore"):  # of values that are infinite
        gap, draws = one[0] - other[0], one[1] - other[1]
    out = pd.DataFrame(np.nan, index=range(len(gap)), columns=_DIFFERENCES)
    out["difference"] = gap
    cells = np.flatnonzero(np.isfinite(gap) & np.isfinite(draws).any(axis=1))
    if len(cells):
        scale = sum(np.nanmax(np.abs(side[1][cells]), axis=1) for side in (one, other))
        unseen, units = (one[2] + other[2])[cells], np.minimum(one[3], other[3])[cells]
        found = calibrated(gap[cells], draws[cells], scale, unseen, family[cells], units)
        out.iloc[cells, 1:] = np.stack(found, axis=1)
    return out
