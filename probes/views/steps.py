"""A training by step: a curve with its band, and a map of layers by steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

from probes.printing import printable
from probes.results.cells import NO_LAYER
from probes.results.draws import POOLED
from probes.results.steps import by_step, last_layer, series_of
from probes.results.table import Table
from probes.views.drawing import Names, called, captioned, chosen, panels, tidy, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def by_steps(
    comparison: Table, probe: str, name: str | None, layer: int | None, languages: Names, width: float | None
) -> Figure:
    """Draw a probe by step; the arguments are those of `Comparison.plot_steps`."""
    name, steps = series_of(comparison, name)
    comparison.names(probe)
    layer = last_layer(comparison, list(steps), probe) if layer is None else layer
    rows = comparison.table[comparison.table["probe"] == probe]
    wanted: Sequence[str] = [POOLED] if languages is None else [languages] if isinstance(languages, str) else languages
    here = chosen(rows, list(steps), list(wanted), None if layer == NO_LAYER else layer)
    here = here.assign(step=here["model"].map(steps)).sort_values("step")
    depth = sorted({int(x) for x in rows["layer"]} - {NO_LAYER})
    figure, axes = panels([3.0, 0.9 + 0.18 * max(len(depth), 5)] if len(depth) > 1 else [3.0], None, width, each=4.6)
    names = dict(zip(wanted, called(wanted), strict=True))
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(wanted)))
    for language, colour in zip(wanted, colours, strict=True):
        own = here[here["language"] == language]
        shade = matplotlib.rcParams["text.color"] if len(wanted) == 1 else colour
        axes[0].fill_between(own["step"], own["low"], own["high"], alpha=0.18, color=shade, linewidth=0)
        axes[0].plot(own["step"], own["value"], color=shade, marker="o", markersize=4, label=names[language])
    if len(wanted) > 1:
        axes[0].legend(frameon=False, fontsize="small")
    about = comparison.provenance["probes"][probe]
    better = f", {about['better']} is better" if about["better"] and not about["compares"] else ""
    where = "" if layer == NO_LAYER else f", layer {layer}"
    titled(axes[0], f"{about['title']}{better}{where}")
    axes[0].set_xlabel(f"step of {printable(name)}")
    tidy(axes[0])
    said = "band: 95 % bootstrap interval"
    if len(axes) > 1:
        found = by_step(comparison, name, "first", ("layer", "model"))
        of_all = found[(found["probe"] == probe) & (found["language"] == wanted[0])]
        wide = of_all.pivot(index="layer", columns="step", values="difference").sort_index(ascending=False)
        small = (
            of_all.pivot(index="layer", columns="step", values="p_adjusted").reindex_like(wide).to_numpy(float) < 0.05
        )
        values = wide.to_numpy(float)
        most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
        colourmap = {"higher": "RdBu", "lower": "RdBu_r"}.get(about["better"], "PuOr")
        heat = axes[1].pcolormesh(np.ma.masked_invalid(values), cmap=colourmap, vmin=-most, vmax=most)
        every = max(1, len(wide.columns) // 8)
        axes[1].set_xticks(
            np.arange(len(wide.columns))[::every] + 0.5, [str(c) for c in wide.columns[::every]], fontsize="small"
        )
        axes[1].set_yticks(np.arange(len(wide)) + 0.5, [str(c) for c in wide.index], fontsize="small")
        axes[1].invert_yaxis()
        for row, column in np.argwhere(small):
            axes[1].text(column + 0.5, row + 0.5, "•", ha="center", va="center", color="#000001")
        axes[1].set_ylabel("layer")
        axes[1].set_xlabel("step")
        titled(axes[1], f"since step {min(steps.values())}, {names[wanted[0]]}")
        figure.colorbar(heat, ax=axes[1], label="difference", aspect=30, pad=0.02)
        said += "; • p < 0.05 adjusted over layers and steps"
    captioned(figure, said)
    return figure
