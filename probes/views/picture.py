"""A picture of curves and maps that stays in the notebook where no kernel runs."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from probes.views.drawing import look_among

# Okabe and Ito: colours that colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
_SHAPES = "osD^vPX*"  # of a code beyond the colours, which come again with another shape
_MOST = 2000  # points of a map


@dataclass(frozen=True)
class Curves:
    """The curves of a probe.

    Attributes:
        title: what stands over them.
        values: of every model by name (layer, 3): value and the ends of its interval.
        layer: where the slider is.
        baseline: the model whose curve is black.
    """

    title: str
    values: dict[str, np.ndarray]
    layer: int
    baseline: str = ""


@dataclass(frozen=True)
class Points:
    """A map.

    Attributes:
        title: what stands over it.
        points: (example, 2).
        codes: (example,) whole numbers that stand for colours.
        bound: how far the axes go.
    """

    title: str
    points: np.ndarray
    codes: np.ndarray
    bound: float


def picture(title: str, curves: Curves | None, maps: Sequence[Points] = ()) -> bytes:
    """Draw curves and, below them, maps as a PNG; the title alone where there is neither.

    Example:
        >>> picture("a model", None)[1:4]
        b'PNG'
    """
    rows = (curves is not None) + bool(maps)
    figure = Figure(figsize=(9, 2.6 * rows or 0.6), dpi=80)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(max(1, rows), 1, hspace=0.5, left=0.07, right=0.98, top=0.92)
    if curves is not None:
        _curves(figure.add_subplot(grid[0]), curves)
    if maps:
        row = grid[-1].subgridspec(1, len(maps), wspace=0.06)
        for at, one in enumerate(maps):
            _map(figure.add_subplot(row[at]), one)
    if not rows:
        figure.text(0.01, 0.5, f"{title}: run the cell to see it", va="center")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def why_still() -> str:
    """Return why there is a still picture in place of the explorer, and what to do about it."""
    said = (
        "A still picture of the explorer, as it was when its cell was run. It stands here because no kernel runs, or "
        "because this page shows no widgets. Run the cell again to use the explorer; explorer.save('view.html') writes "
        "a page that works without a kernel."
    )
    if "google.colab" in sys.modules:
        said += (
            " In Colab, widgets need its custom widget manager: from google.colab import output; "
            "output.enable_custom_widget_manager(), and run the cell again."
        )
    return said


def _curves(axis: Axes, curves: Curves) -> None:
    for name, values in curves.values.items():
        value, low, high = values.T
        layers, look = np.arange(len(value)), look_among(list(curves.values), curves.baseline, name)
        axis.plot(layers, value, **look, markersize=3, label=name)
        axis.fill_between(layers, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axis.axvline(curves.layer, color="0.6", linewidth=1)
    axis.set_title(curves.title, fontsize=9)
    axis.set_xlabel("layer", fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)


def _map(axis: Axes, one: Points) -> None:
    some = slice(None, None, -(-len(one.points) // _MOST))
    points, codes = one.points[some], one.codes[some]
    for shape, marker in enumerate(_SHAPES):
        own = codes // len(COLOURS) % len(_SHAPES) == shape
        colours = np.array(COLOURS)[codes[own] % len(COLOURS)]
        axis.scatter(
            points[own, 0],
            points[own, 1],
            s=4,
            marker=marker,
            c=np.where(codes[own] < 0, "#999999", colours),
            linewidths=0,
        )
    axis.set(xlim=(-one.bound, one.bound), ylim=(-one.bound, one.bound), xticks=[], yticks=[], aspect="equal")
    axis.set_title(one.title, fontsize=8)
