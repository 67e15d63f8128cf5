"""Quality against what it costs: which model is worth its bytes, operations or time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probes.errors import InputError, check_choice
from probes.printing import printable
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.results.verdict import Verdict, at_the_end
from probes.views.drawing import captioned, look, panels
from probes.views.language_names import language_names
from probes.views.sizes import SIMULATED

_STEP = 11.0  # the height of a label in points
_LETTER = 5.3  # the width of a letter in it


class _Against(NamedTuple):
    column: str
    words: str
    unit: float


AGAINST = {
    "bytes": _Against("stored_bytes", "megabytes as stored", 1e6),
    "operations": _Against("operations", "billion operations for 32 texts", 1e9),
    "seconds": _Against("seconds_32", "seconds for 32 texts", 1.0),
}


def tradeoff(
    found: Verdict,
    table: Table,
    probe: str | None = None,
    against: str = "bytes",
    *,
    ax: Axes | None = None,
    width: float | None = None,
) -> Figure:
    """Draw the quality of models against what they cost, with the front of those that none beats in
    both.

    Args:
        found: the verdict.
        table: the comparison that it reads.
        probe: a judged measure; by default the first.
        against: "bytes", "operations" or "seconds".
        ax, width: as in `Comparison.plot`.

    Raises:
        InputError: the measure is not among those that are judged; what it is drawn against is
            none of these, or was not measured of any two models.
    """
    judged = list(dict.fromkeys(found.models["probe"]))
    if probe is not None and probe not in judged:
        raise InputError(f"probe {probe!r} is not judged; judged are {', '.join(map(repr, judged))}")
    probe = judged[0] if probe is None else probe
    check_choice("against", against, AGAINST)
    about, scale = table.provenance["probes"][probe], AGAINST[against]
    points = points_of(table, probe, against)
    if len(points) < 2:
        raise InputError(
            f"against={against!r}: it was measured of {len(points)} models, expected at least two. Compare checkpoints "
            "or models, not their Representations, and leave timing on for operations and seconds"
        )
    up = about["better"] != "lower"
    figure, (axis,) = panels([3.6], ax, width, each=6.6)
    colours = {model: look(table, model)["color"] for model in table.provenance["models"]}
    front = points[points["front"]].sort_values("x")
    axis.plot(front["x"], front["value"], color="0.7", linewidth=1, zorder=1, label="_")
    for row in points.itertuples():
        colour = colours[row.model]
        axis.plot([row.x, row.x], [row.value, row.worst], color=colour, linewidth=0.8, linestyle=":", zorder=2)
        for value, low, high, fill in (
            (row.worst, row.worst_low, row.worst_high, "none"),
            (row.value, row.low, row.high, "full"),
        ):
            ends = np.maximum(np.nan_to_num([[value - low], [high - value]]), 0)
            marker = "s" if row.model == table.baseline else "o"
            axis.errorbar(
                row.x, value, yerr=ends, fmt=marker, color=colour, fillstyle=fill, markersize=6, elinewidth=1, zorder=3
            )
    wide = points["x"].max() / points["x"].min() > 20
    axis.set_xscale("log" if wide else "linear")
    if not wide:
        axis.set_xlim(0, 1.25 * points["x"].max())
    axis.set_xlabel(scale.words, fontsize="medium")
    axis.set_ylabel(f"{about['title']}, {'higher' if up else 'lower'} is better", fontsize="medium")
    axis.tick_params(labelsize="small")
    axis.grid(visible=True, color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], linestyle="", color="0.3", marker="o", fillstyle="full"),
        Line2D([], [], linestyle="", color="0.3", marker="o", fillstyle="none"),
        Line2D([], [], color="0.7", linewidth=1),
    ]
    names = ["all languages together", "the worst language", "none is better in both"]
    if ax is not None:
        axis.legend(handles, names, frameon=False, fontsize="small")
    else:
        figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
        captioned(figure, "95 % intervals, each by itself; the square is the baseline")
    _label(figure, axis, points, colours)
    return figure


def points_of(table: Table, probe: str, against: str) -> pd.DataFrame:
    """Return where models lie: a row for each whose cost was measured.

    Returns:
        `model, x` (its cost), `value, low, high` of all languages together, `worst, worst_low,
        worst_high` and `worst_language`, and whether it is on the `front`: no other costs as little
        and is as good, and better in one of both.
    """
    about, scale = table.provenance["probes"][probe], AGAINST[against]
    sign = -1.0 if about["better"] == "lower" else 1.0
    costs = table.models.set_index("model")[scale.column] if scale.column in table.models else pd.Series(dtype=float)
    ways = table.models.set_index("model")["stored_as"] if len(costs) else costs
    rows = []
    for model in table.provenance["models"]:
        x = float(costs.get(model, np.nan)) / scale.unit
        own = at_the_end(table, model, probe)
        if about["compares"] and model == table.baseline:  # which is what others are compared with
            same = float(about["unchanged"])
            cells = [same] * 6 + [""]
        else:
            own = own[own["value"].notna()]
            alone, pooled = own[own["language"] != POOLED], own[own["language"] == POOLED]
            if own.empty:
                continue
            worst = (alone if len(alone) else own).assign(by=lambda r: sign * r["value"]).sort_values("by").iloc[0]
            whole = pooled.iloc[0] if len(pooled) else worst
            cells = [*whole[["value", "low", "high"]], *worst[["value", "low", "high", "language"]]]
        if np.isfinite(x):
            simulated = against == "seconds" and ways[model] in SIMULATED
            rows.append([model, x, *cells, simulated])
    names = ["model", "x", "value", "low", "high", "worst", "worst_low", "worst_high", "worst_language", "simulated"]
    out = pd.DataFrame(rows, columns=names)
    x, y = out["x"].to_numpy(float), sign * out["value"].to_numpy(float)
    beaten = (x[:, None] >= x) & (y[:, None] <= y) & ((x[:, None] > x) | (y[:, None] < y))
    return out.assign(front=~beaten.any(axis=1))


def _label(figure: Figure, axis: Axes, points: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    """Name models and worst languages beside their points, and none over another."""
    codes = list(dict.fromkeys(str(x) for x in points["worst_language"] if x))
    names = dict(zip(codes, language_names(codes), strict=True)) if codes else {}
    wanted = []
    for row in points.itertuples():
        said = printable(row.model) + (" (simulated)" if row.simulated else "")
        wanted.append((row.x, row.value, said, colours[row.model]))
        if row.worst_language and row.worst != row.value:
            wanted.append((row.x, row.worst, names[row.worst_language], "0.35"))
    figure.draw_without_rendering()  # settles where the axes are
    scale = 72 / figure.dpi
    inside = axis.bbox.x0 * scale, axis.bbox.y0 * scale, axis.bbox.x1 * scale, axis.bbox.y1 * scale
    # What is taken, as left, lower, right, upper in points: markers and intervals first.
    taken = []
    for value in ("value", "worst"):
        low, high = ("low", "high") if value == "value" else ("worst_low", "worst_high")
        for name, reach, half in ((value, (value, value), 4.5), (value, (low, high), 1.5)):
            for x, *ends in points[["x", *reach]].fillna(dict.fromkeys(reach, points[name])).itertuples(index=False):
                (left, lower), (_, upper) = (axis.transData.transform((x, end)) * scale for end in ends)
                taken.append((left - half, lower - half, left + half, upper + half))
    room = int(((inside[2] - inside[0]) / 2 - 9) / _LETTER)  # letters: beside a point there is half of it at least
    for x, y, name, colour in wanted:
        text = name if len(name) <= room else f"{name[: room // 2]}…{name[-(room // 2) + 1 :]}"
        place = axis.transData.transform((x, y)) * scale
        box = _free(place, _LETTER * len(text) + 2, inside, taken)
        taken.append(box)
        side = "left" if box[0] > place[0] else "right"
        height = (box[1] + box[3]) / 2 - place[1]
        label = axis.annotate(
            text,
            (x, y),
            xytext=(box[0] - place[0] if side == "left" else box[2] - place[0], height),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8.5,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": "0.8", "linewidth": 0.6} if abs(height) > _STEP else None,
            annotation_clip=False,
        )
        label.set_in_layout(False)  # placed where the panel lies, it must not move that


def _free(
    place: np.ndarray, width: float, inside: tuple[float, ...], taken: Sequence[tuple[float, ...]]
) -> tuple[float, float, float, float]:
    """The box nearest to a point that nothing else is in: beside it, or above or below."""

    def box(side: int, shift: float) -> tuple[float, float, float, float]:
        left = place[0] + 7 if side > 0 else place[0] - 7 - width
        return left, place[1] + shift - _STEP / 2, left + width, place[1] + shift + _STEP / 2

    tried = [box(side, sign * _STEP / 2 * k) for k in range(60) for sign in (1, -1) for side in (1, -1)]
    for one in tried:
        within = all(a >= b for a, b in zip(one[:2], inside[:2], strict=True)) and one[2] <= inside[2]
        if within and one[3] <= inside[3] and not any(_meet(one, other) for other in taken):
            return one
    return tried[0]


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
