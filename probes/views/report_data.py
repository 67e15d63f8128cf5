"""What a report's page draws from: its table and its maps, once, as plain columns."""

from __future__ import annotations

import json
from typing import Any

import markupsafe
import numpy as np
import pandas as pd

from probes.results.cells import LAYERS, NO_LAYER
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.views.language_names import language_names, script_name

_TEXTS = ("model", "language", "probe", "module", "other_language")


def language_maps(comparison: Table) -> dict[str, pd.DataFrame]:
    """Return the rows of every map of languages by layers: what is shown, with its interval.

    Of probes that compare with the baseline the value; of others the difference, and the interval
    that holds for all languages and layers of a model at once.
    """
    about = comparison.provenance["probes"]
    table = comparison.adjusted(["layer", "language"])
    table = table[
        (table["language"] != POOLED) & (table["layer"] != NO_LAYER) & (table["model"] != comparison.baseline)
    ]
    out = {}
    for probe in sorted(about, key=lambda name: about[name].get("tolerance") is None):  # what is judged comes first
        rows = table[table["probe"] == probe]
        columns = (
            ["value", "low", "high"] if about[probe]["compares"] else ["difference", "adjusted_low", "adjusted_high"]
        )
        if comparison.is_map(probe) or rows.empty or rows[columns[0]].isna().all():
            continue
        rows = rows.rename(columns=dict(zip(columns, ["shown", "lowest", "highest"], strict=True)))
        place = ["model", "language", "layer", *(["baseline_layer"] if "baseline_layer" in rows else [])]
        found = rows[[*place, "shown", "lowest", "highest"]].rename(columns={"lowest": "low", "highest": "high"})
        out[probe] = found if "baseline_layer" in found else found.assign(baseline_layer=found["layer"])
    return out


def as_json(comparison: Table, maps: dict[str, pd.DataFrame]) -> markupsafe.Markup:
    """Return all of it as JSON that can stand in a page: no text of it can end the script."""
    codes = [str(x) for x in dict.fromkeys(comparison.table["language"]) if x != POOLED]
    models = list(comparison.provenance["models"])
    data = {
        "models": models,
        "baseline": comparison.baseline,
        "draws": comparison.provenance["draws"],
        "languages": [
            {"name": name, "script": script_name(code)} for code, name in zip(codes, language_names(codes), strict=True)
        ],
        "probes": {
            name: {k: about.get(k) for k in ("title", "better", "compares", "share")}
            for name, about in comparison.provenance["probes"].items()
        },
        "maps": {
            probe: {
                "model": rows["model"].map({m: i for i, m in enumerate(models)}).tolist(),
                "language": rows["language"].map({x: i for i, x in enumerate(codes)}).tolist(),
                "layer": _numbers(rows["layer"]),
                "baseline_layer": _column(rows["baseline_layer"])["codes"],
                **{
                    k: [x if isinstance(x, float | int) else None for x in _numbers(rows[k])]
                    for k in ("shown", "low", "high")
                },
            }
            for probe, rows in maps.items()
        },
        "table": {str(column): _column(comparison.table[column]) for column in comparison.table},
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return markupsafe.Markup(text)


def _column(values: pd.Series) -> dict[str, Any]:
    if values.name in LAYERS:
        values = values.where(values != NO_LAYER)
    if values.name not in _TEXTS:
        return {"codes": _numbers(values)}
    codes, names = pd.factorize(values, use_na_sentinel=True)
    texts = [str(name) for name in names]
    missing = (codes < 0).any()
    return {"codes": np.where(codes < 0, len(texts), codes).tolist(), "names": [*texts, ""] if missing else texts}


def _finite(value: int | float | str | None) -> int | float | None:
    return None if isinstance(value, str) else value


def _numbers(values: pd.Series) -> list[int | float | str | None]:
    """Numbers to four digits; nothing for a missing one, a word for an infinite one."""
    out: list[int | float | str | None] = []
    for value in values.astype("Float64").to_numpy(float, na_value=np.nan):
        if np.isnan(value):
            out.append(None)
        elif np.isinf(value):
            out.append("Infinity" if value > 0 else "-Infinity")
        else:
            out.append(int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.4g}"))
    return out
