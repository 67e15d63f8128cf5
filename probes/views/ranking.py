"""The languages of a verdict, the most lost first: a panel a model, the worst model first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probes.errors import InputError
from probes.printing import printable
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.results.verdict import Verdict
from probes.views.drawing import Names, captioned, chosen, models_of, panels, titled
from probes.views.language_names import language_names
from probes.views.sizes import Size, sizes

# Okabe and Ito's colours; the marks differ too, so that none is needed to read them.
STATE_MARKS: dict[str, tuple[str, str, Literal["full", "none"]]] = {
    "lost": ("#D55E00", "o", "full"),
    "gained": ("#009E73", "D", "full"),
    "kept": ("#0072B2", "o", "full"),
    "not lost": ("#0072B2", "o", "none"),
    "cannot tell": ("0.45", "o", "none"),
}


def ranking(
    found: Verdict,
    table: Table,
    probe: str | None = None,
    languages: Names = None,
    *,
    ax: Axes | None = None,
    models: Names = None,
    layers: int | Sequence[int] | None = None,
    width: float | None = None,
    caption: bool = True,
) -> Figure:
    """Draw what each language lost or gained, with intervals whose ends hold for all at once.

    Args:
        found: the verdict.
        table: the comparison that it reads.
        probe: a judged measure; by default the first.
        languages: only these.
        ax, models, width, caption: as in `Comparison.plot`.
        layers: none; a verdict is of the end of a model.

    Raises:
        InputError: the measure is not among those that are judged; layers were given; there is no
            such model or language.
    """
    judged = list(dict.fromkeys(found.models["probe"]))
    if probe is not None and probe not in judged:
        raise InputError(f"probe {probe!r} is not judged; judged are {', '.join(map(repr, judged))}")
    if layers is not None:
        raise InputError("layers= does not go with a verdict, which is of the end of a model. See plot_change")
    probe = judged[0] if probe is None else probe
    of_probe = found.languages[found.languages["probe"] == probe]
    of_probe = chosen(of_probe, models_of(table, models, others=True), languages, None)
    names_of_models = [model for model in found.order() if model in set(of_probe["model"])]
    codes = [str(x) for x in dict.fromkeys(of_probe["language"]) if x != POOLED]
    names = dict(zip(codes, language_names(codes), strict=True)) | {POOLED: "all together"}
    height = 0.16 * (len(codes) + 1) + 0.8
    side_by_side = len(names_of_models) if len(names_of_models) in (5, 6) else 4  # a row, as far as names can be read
    each = min(2.9, 12.2 / side_by_side)
    figure, axes = panels([height] * len(names_of_models), ax, width, each=each, most=side_by_side)
    about = table.provenance["probes"][probe]
    unit = 100 if about.get("share") else 1
    said = sizes(table)
    for axis, model in zip(axes, names_of_models, strict=True):
        _panel(axis, of_probe[of_probe["model"] == model], names, unit)
        stored = said.get(str(model), Size()).stored
        titled(axis, f"{printable(model)}: {found.state(str(model))}")
        if stored:
            axis.set_title(axis.get_title(), pad=18)
            axis.text(
                1, 1.01, stored, transform=axis.transAxes, ha="right", va="bottom", fontsize="small", color="0.35"
            )
    there = [state for state in STATE_MARKS if state in set(of_probe["state"])]
    marks = (STATE_MARKS[state] for state in there)
    handles = [Line2D([], [], linestyle="", color=c, marker=m, fillstyle=f) for c, m, f in marks]
    if ax is not None:
        ax.legend(handles, there, frameon=False, fontsize="small")
        return figure
    columns = max(1, min(len(there), int(figure.get_figwidth() / 1.1)))
    figure.legend(handles, there, loc="outside upper center", ncols=columns, frameon=False, fontsize="small")
    if caption:
        points = " (points)" if unit == 100 else ""
        limit = float(of_probe["tolerance"].iloc[0]) * unit
        text = (
            f"change of {about['title']}{points} to {printable(found.baseline)}, left is loss; each end of the "
            f"intervals holds for all at once in 95 % of corpora; the grey band, {limit:g} wide to each side, is "
            "tolerated"
        )
        captioned(figure, text)
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, names: dict[str, str], unit: float) -> None:
    rows = rows.iloc[::-1].reset_index(drop=True)
    limit = float(rows["tolerance"].iloc[0]) * unit if len(rows) else 0.0
    axis.axvspan(-limit, limit, color="0.5", alpha=0.2, linewidth=0, zorder=0)
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
        axis.text(0, at, " no value", fontsize="small", color="0.45", va="center")
    axis.set_yticks(range(len(rows)), [names[x] for x in rows["language"]], fontsize="small")
    for label, language in zip(axis.get_yticklabels(), rows["language"], strict=True):
        if language == POOLED:
            label.set_fontweight("bold")
    axis.set_ylim(-0.7, max(len(rows), 1) - 0.3)
    axis.tick_params(axis="x", labelsize="small")
    axis.grid(visible=True, axis="x", alpha=0.35)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
