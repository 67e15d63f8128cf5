"""The languages of a verdict, the most lost first: a panel a model."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from probes.errors import InputError
from probes.printing import printable
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.results.verdict import Verdict
from probes.views.figures import Shown
from probes.views.language_names import language_names

# Okabe and Ito's colours; the marks differ too, so that none is needed to read them.
STATE_MARKS: dict[str, tuple[str, str, Literal["full", "none"]]] = {
    "lost": ("#D55E00", "o", "full"),
    "gained": ("#009E73", "D", "full"),
    "kept": ("#0072B2", "o", "full"),
    "not lost": ("#0072B2", "o", "none"),
    "cannot tell": ("0.45", "o", "none"),
}


def ranking(found: Verdict, table: Table, probe: str | None = None) -> Shown:
    """Draw what each language lost or gained, with intervals that hold for all at once.

    Args:
        found: the verdict.
        table: the comparison that it reads.
        probe: a judged measure; by default the first.

    Raises:
        InputError: the measure is not among those that are judged.
    """
    judged = list(dict.fromkeys(found.models["probe"]))
    if probe is not None and probe not in judged:
        raise InputError(f"probe {probe!r} is not judged; judged are {', '.join(map(repr, judged))}")
    probe = judged[0] if probe is None else probe
    of_probe = found.languages[found.languages["probe"] == probe]
    models = list(dict.fromkeys(of_probe["model"]))
    codes = [str(x) for x in dict.fromkeys(of_probe["language"]) if x != POOLED]
    names = dict(zip(codes, language_names(codes), strict=True)) | {POOLED: "all together"}
    columns = min(len(models), 4)
    rows = -(-len(models) // columns)
    height = 0.19 * (len(codes) + 1) + 0.9
    figure = Shown(figsize=(2.9 * columns + 0.3, height * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    about = table.provenance["probes"][probe]
    unit = 100 if about.get("share") else 1
    for axis, model in zip(axes, models, strict=False):
        _panel(axis, of_probe[of_probe["model"] == model], names, unit)
        axis.set_title(f"{printable(model)}: {found.state(str(model))}", fontsize=10)
    for axis in axes[len(models) :]:
        axis.set_visible(False)
    there = [state for state in STATE_MARKS if state in set(of_probe["state"])]
    marks = (STATE_MARKS[state] for state in there)
    handles = [Line2D([], [], linestyle="", color=c, marker=m, fillstyle=f) for c, m, f in marks]
    figure.legend(handles, there, loc="outside upper center", ncols=len(there), frameon=False, fontsize=9)
    points = " (points)" if unit == 100 else ""
    limit = float(of_probe["tolerance"].iloc[0]) * unit
    figure.supxlabel(
        f"change of {about['title']}{points} to {printable(found.baseline)}, left is loss; 95 % intervals that hold "
        f"for all at once; the grey band, {limit:g} wide to each side, is tolerated",
        fontsize=8.5,
        color="0.35",
        wrap=True,
    )
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, names: dict[str, str], unit: float) -> None:
    rows = rows.iloc[::-1].reset_index(drop=True)
    limit = float(rows["tolerance"].iloc[0]) * unit if len(rows) else 0.0
    axis.axvspan(-limit, limit, color="0.9", linewidth=0, zorder=0)
    axis.axvline(0, color="0.6", linewidth=0.8, zorder=1)
    for state, (colour, marker, fill) in STATE_MARKS.items():
        of_state = rows[rows["state"] == state]
        middle = of_state["difference"] * unit
        ends = np.stack([middle - of_state["low"] * unit, of_state["high"] * unit - middle])
        axis.errorbar(
            middle,
            of_state.index,
            xerr=np.maximum(ends, 0),
            fmt=marker,
            color=colour,
            fillstyle=fill,
            markersize=4.5,
            elinewidth=1.2,
        )
    for at in rows.index[rows["state"] == "no value"]:
        axis.text(0, at, " no value", fontsize=8, color="0.45", va="center")
    axis.set_yticks(range(len(rows)), [names[x] for x in rows["language"]], fontsize=8)
    for label, language in zip(axis.get_yticklabels(), rows["language"], strict=True):
        if language == POOLED:
            label.set_fontweight("bold")
    axis.set_ylim(-0.7, max(len(rows), 1) - 0.3)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(visible=True, axis="x", color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
