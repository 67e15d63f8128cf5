"""What the layers of models are the cause of, of what a verdict calls lost."""

from __future__ import annotations

from typing import Any

import pandas as pd

from probes.results.draws import POOLED

# What a row of the provenance holds: of `probes.measures.attribution.causes`.
CAUSE = {
    **dict.fromkeys(("measure", "language"), str),
    **dict.fromkeys(("layer", "bytes"), int),
    **dict.fromkeys(("gain", "damage", "low", "high"), (float, None)),
    "named": bool,
    "module?": str,
}
COLUMNS = ["model", "probe", "language", "layer", "module", "gain", "low", "high", "damage", "bytes", "named"]


def blamed(causes: dict[str, list[dict[str, Any]]], judged: pd.DataFrame) -> pd.DataFrame:
    """Return what each layer, or module of it, gives back of each loss.

    Args:
        causes: model -> rows of `causes_of`, as a comparison keeps them.
        judged: the languages of a verdict: `model, probe, language, state`.

    Returns:
        A row a model, measure, language that is lost, and layer, or `module` of a layer ("" for all
        of it): `gain, low, high` of its original weights in units of the measure, negative where it
        makes things worse, and whether it is `named`: whether the interval, which holds for all of
        them at once, lies above zero. Where all languages together are lost, they come first.

    Example:
        >>> row = {"measure": "accuracy", "language": "en", "layer": 2, "gain": 0.1, "low": 0.05}
        >>> row |= {"high": 0.15, "damage": 0.1, "bytes": 100, "named": True}
        >>> state = {"model": "m", "probe": "accuracy", "language": "en", "state": "lost"}
        >>> blamed({"m": [row]}, pd.DataFrame([state])).layer.tolist()
        [2]
        >>> blamed({"m": [row]}, pd.DataFrame([state | {"state": "kept"}])).empty
        True
    """
    rows = pd.DataFrame([{"model": model} | row for model, found in causes.items() for row in found])
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS)
    rows = rows.rename(columns={"measure": "probe"}).assign(module=rows.get("module", ""))
    lost = judged.loc[judged["state"] == "lost", ["model", "probe", "language"]]
    lost = lost.assign(alone=lost["language"] != POOLED).sort_values("alone", kind="stable").drop(columns="alone")
    found = lost.merge(rows, on=["model", "probe", "language"])
    return found[COLUMNS].reset_index(drop=True)
