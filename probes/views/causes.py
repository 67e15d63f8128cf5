"""Which layers and modules caused a loss, in words and for bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from probes.files import in_words
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.results.verdict import Verdict

_MOST = 3  # layers that a sentence names


def said_of_causes(
    found: Verdict,
    table: Table,
    model: str,
    *,
    told: Callable[[str, float], str],
    unit: Callable[[str], str],
    called: Callable[[str], str],
) -> list[str]:
    """Return what is said of the causes of what a model lost: the layers that are named, what to
    give back, and whether the states moved where the cause is; or what could have been missed.

    Args:
        found: the verdict.
        table: the comparison.
        model: the model.
        told: measure and change -> the change in words.
        unit: measure -> what it is a change of, as "points of accuracy".
        called: language -> what it is called.
    """
    causes = found.causes[found.causes["model"] == model] if len(found.causes) else found.causes
    if causes.empty:
        return []
    first = causes.iloc[0]
    probe, language = str(first["probe"]), str(first["language"])
    every = causes[(causes["probe"] == probe) & (causes["language"] == language)]
    rows = every[every["module"] == ""]
    named = rows[rows["named"]].sort_values("gain", ascending=False, kind="stable")
    where = "all languages together" if language == POOLED else called(language)
    most = told(probe, float(np.nanmax(rows["high"])))
    if named.empty:
        return [
            f"no single layer is shown to cause it: one whose original weights give back up to {most} "
            f"{unit(probe)} ({where}) could have been missed"
        ]
    listed = [
        f"layer {row.layer} {told(probe, row.gain)} [{told(probe, row.low)}, {told(probe, row.high)}]"
        for row in list(named.itertuples())[:_MOST]
    ]
    more = f" and {len(named) - _MOST} more" if len(named) > _MOST else ""
    others = rows[~rows["named"]]
    rest = "" if others.empty else told(probe, float(np.nanmax(others["high"])))
    missed = f"; of others up to {rest} could be missed" if rest else ""
    said = [f"caused by {', '.join(listed)}{more} {unit(probe)} ({where}), each by its original weights alone{missed}"]
    for layer in named["layer"].tolist()[:_MOST]:
        inside = every[(every["layer"] == layer) & (every["module"] != "")].sort_values("gain", ascending=False)
        parts = [
            f"its {row.module} {told(probe, row.gain)} [{told(probe, row.low)}, {told(probe, row.high)}]"
            for row in inside.itertuples()
        ]
        said += [f"of layer {layer} {', '.join(parts)}"] if parts else []
    return [*said, _to_do(every[every["named"]], told, unit), *_beside_drift(table, model, named)]


def _to_do(named: pd.DataFrame, told: Callable[[str, float], str], unit: Callable[[str], str]) -> str:
    """What to give back first: of what is named the most a byte."""
    a_byte = named["gain"] / named["bytes"].clip(lower=1)
    best = named.loc[a_byte.idxmax()]
    place = f"the {best['module']} of layer {best['layer']}" if best["module"] else f"layer {best['layer']}"
    size = f"{in_words(int(best['bytes']))} more as it is stored" if best["bytes"] > 0 else "which takes no more bytes"
    probe = str(best["probe"])
    return (
        f"to undo the most a byte: give {place} its original weights back, {size}, for an expected "
        f"{told(probe, best['gain'])} {unit(probe)}"
    )


def _beside_drift(table: Table, model: str, named: pd.DataFrame) -> list[str]:
    moved = _moves_most(table, model)
    if moved is None:
        return []
    which = "one of them" if moved in set(named["layer"]) else "none of them"
    return [f"the states move most at layer {moved}, which is {which}"]


def _moves_most(table: Table, model: str) -> int | None:
    """The layer at which the cosine to the baseline falls most; None where it was not measured."""
    rows = table.table
    rows = rows[(rows["model"] == model) & (rows["probe"] == "cosine_to_baseline") & (rows["language"] == POOLED)]
    rows = rows.dropna(subset="value").sort_values("layer")
    if len(rows) < 2:
        return None
    fall = -rows["value"].diff().to_numpy()
    return int(rows["layer"].iloc[int(np.nanargmax(fall))]) if np.nanmax(fall) > 0 else None


def bars(table: Table) -> list[dict[str, Any]]:
    """Return what a page draws for each model and measure: a bar a layer, with its interval, all
    languages together; below a layer bars of its modules, where they were looked at.

    Args:
        table: a comparison.

    Returns:
        Of each `model` and `measure` the `rows`: layer, module ("" for all of it), whether it is
        named, the gain in words, and
        where bar and interval begin and end in percent of the width.
    """
    out = []
    for model, causes in table.provenance.get("causes", {}).items():
        every = pd.DataFrame([{"module": ""} | row for row in causes])
        every = every[(every["language"] == POOLED) & every[["gain", "low", "high"]].notna().all(axis=1)]
        for measure, rows in every.groupby("measure", sort=False):
            low, high = min(0.0, rows["low"].min()), max(0.0, rows["high"].max())
            at = lambda x, low=low, high=high: 100 * (x - low) / (high - low) if high > low else 0.0  # noqa: E731
            out.append(
                {
                    "model": model,
                    "measure": str(measure),
                    "rows": [
                        {
                            "layer": int(row.layer),
                            "module": str(row.module),
                            "named": bool(row.named),
                            "told": f"{row.gain:+.3g}",
                            "from": round(at(min(0.0, row.gain)), 2),
                            "width": round(at(max(0.0, row.gain)) - at(min(0.0, row.gain)), 2),
                            "low": round(at(row.low), 2),
                            "spread": round(at(row.high) - at(row.low), 2),
                        }
                        for row in rows.sort_values(["layer", "module"]).itertuples()
                    ],
                }
            )
    return out
