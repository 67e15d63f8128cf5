"""A picture of an explorer that stays in the notebook where no kernel runs."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from probes.views.explorer import Explorer

# Okabe and Ito: colours that colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
_OF_MODELS = ("#000000", *COLOURS[:1], COLOURS[4], COLOURS[2], COLOURS[3], COLOURS[1], COLOURS[5], COLOURS[6])
_DASHES = ("-", "--", ":", "-.")
_MOST = 2000  # points of a map


def picture(explorer: Explorer, *, maps: bool) -> bytes:
    """Draw curves and maps of an explorer as they are chosen now, as a PNG; without maps where they are not ready."""
    about, answers = explorer.about, explorer.answers
    probes = [p for p in about["probes"] if p["by"] == "layer"] if "curves" in explorer.parts else []
    names = explorer.models if maps and "maps" in explorer.parts and answers.reps else []
    figure = Figure(figsize=(9, 2.6 * (bool(probes) + bool(names)) or 0.6), dpi=80)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(max(1, bool(probes) + bool(names)), 1, hspace=0.5, left=0.07, right=0.98, top=0.92)
    if probes:
        _curves(figure.add_subplot(grid[0]), explorer)
    if names:
        row = grid[-1].subgridspec(1, len(names), wspace=0.06)
        for at, name in enumerate(names):
            _map(figure.add_subplot(row[at]), explorer, name)
    if not probes and not names:
        figure.text(0.01, 0.5, f"{about['title']}: run the cell to see it", va="center")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _curves(axis, explorer: Explorer) -> None:  # type: ignore[no-untyped-def]
    about = explorer.about
    names = [p["name"] for p in about["probes"]]
    by_layer = [p["name"] for p in about["probes"] if p["by"] == "layer"]
    which = names.index(explorer.probe if explorer.probe in by_layer else by_layer[0])
    language = about["curve_languages"].index(explorer.language)
    for i, model in enumerate(about["models"]):
        value, low, high = explorer.curve_values[which, i, language, :, :3].T
        layers, colour = np.arange(len(value)), _OF_MODELS[i % len(_OF_MODELS)]
        axis.plot(layers, value, _DASHES[i % 4], marker="o", markersize=3, color=colour, label=model["name"])
        axis.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.axvline(explorer.layer, color="0.6", linewidth=1)
    axis.set_title(f"{about['probes'][which]['title']} ({explorer.language})", fontsize=9)
    axis.set_xlabel("layer", fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)


def _map(axis, explorer: Explorer, name: str) -> None:  # type: ignore[no-untyped-def]
    answers = explorer.answers
    i = answers.names.index(name)
    layer = answers.last(i, explorer.layer)
    some = slice(None, None, -(-answers.n // _MOST))
    points, bound = answers.maps(i).points[layer][some], answers.domain()
    colour = explorer.colour if explorer.colour in ("label", "prediction") else "language"
    codes = answers.codes()[{"language": 0, "label": 1, "prediction": 2 + i}[colour]][some]
    colours = np.array(COLOURS)[codes % len(COLOURS)]
    axis.scatter(*points.T, s=3, c=colours, linewidths=0)
    axis.set(xlim=(-bound, bound), ylim=(-bound, bound), xticks=[], yticks=[], aspect="equal")
    axis.set_title(f"{name}, layer {layer}, by {colour}", fontsize=8)
