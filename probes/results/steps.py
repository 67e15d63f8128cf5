"""A training step by step: differences between its checkpoints, and when a change began."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.errors import InputError, check_choice
from probes.results.cells import FURTHER, NO_LAYER
from probes.results.difference import check_family
from probes.results.table import Table

AGAINST = ("baseline", "first", "before")


def series_of(table: Table, name: str | None) -> tuple[str, dict[str, int]]:
    """Return the name of a series of a comparison and its steps by model.

    Raises:
        InputError: there is none, or there are several and none was named.
    """
    there: dict[str, dict[str, int]] = table.provenance.get("series", {})
    if not there:
        raise InputError(
            "there is no series of checkpoints in this comparison: give compare one, as probes.series(...)"
        )
    if name is None and len(there) > 1:
        raise InputError(f"there are several series, {', '.join(map(repr, there))}: name one")
    name = next(iter(there)) if name is None else name
    check_choice("series", name, there)
    return name, there[name]


def by_step(table: Table, name: str | None, against: str, over: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a series with their differences; see `Comparison.steps`."""
    _, steps = series_of(table, name)
    check_choice("against", against, AGAINST)
    check_family(over)
    models = list(steps)
    pairs = {
        "baseline": {m: table.baseline for m in models if m != table.baseline},
        "first": dict.fromkeys(models[1:], models[0]),
        "before": dict(zip(models[1:], models, strict=False)),
    }[against]
    rows = table.between(pairs, over)
    rows = rows[rows["model"].isin(models)]
    rows.insert(1, "step", rows["model"].map(steps))
    out = rows.sort_values("step", kind="stable").reset_index(drop=True)
    out.attrs = rows.attrs
    return out


def began(table: Table, name: str | None, against: str, over: Sequence[str]) -> pd.DataFrame:
    """Return from which step on a difference stays; see `Comparison.since`."""
    rows = by_step(table, name, against, over)
    flat = rows[~rows["probe"].map({p: table.is_map(p) for p in table.provenance["probes"]}).astype(bool)]
    keys = ["probe", "language", "layer"]
    flat = flat[flat["difference"].notna()]
    sign = np.where(flat["adjusted_low"] > 0, 1, np.where(flat["adjusted_high"] < 0, -1, 0))
    flat = flat.assign(sign=sign)
    found = []
    for key, one in flat.groupby(keys, sort=False):
        last = int(one["sign"].iloc[-1])
        other = np.flatnonzero((one["sign"] != last).to_numpy())
        start = 0 if not len(other) else int(other[-1]) + 1
        row = dict(zip(keys, key, strict=True)) | {"step": None}
        if last:
            at = one.iloc[start]
            row |= {c: at[c] for c in ("step", "difference", "adjusted_low", "adjusted_high")}
        found.append(row)
    columns = [*keys, "step", "difference", "adjusted_low", "adjusted_high"]
    out = pd.DataFrame(found, columns=columns).astype({"step": "Int64"})
    out.attrs = rows.attrs
    return out


def last_layer(table: Table, models: Sequence[str], probe: str) -> int:
    """Return the last layer at which a probe was measured on some models."""
    rows = table.table[(table.table["probe"] == probe) & table.table["model"].isin(models)]
    if any(c in rows and (rows[c].notna() & (rows[c] != NO_LAYER)).any() for c in FURTHER):
        raise InputError(f"{probe} has more to a number than layer and language: it cannot be drawn by step")
    return int(rows["layer"].max())
