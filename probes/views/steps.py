"""A training by step: a curve with its band, and a map of layers by steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from probes.errors import InputError, check_choice
from probes.measures.fidelity.layer_pairs import layers_between, side_of
from probes.measures.fidelity.similarity import MEASURES
from probes.printing import printable
from probes.results.cells import NO_LAYER
from probes.results.draws import POOLED
from probes.results.steps import AGAINST, by_step, last_layer, series_of
from probes.results.table import Table
from probes.views.drawing import Names, called, captioned, chosen, panels, stands_for, tidy, titled
from probes.views.heatmaps import dotted_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def by_steps(
    comparison: Table,
    probe: str,
    name: str | None,
    layer: int | None,
    languages: Names,
    width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
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
    heights = [3.0, 0.9 + 0.18 * max(len(depth), 5)] if len(depth) > 1 else [3.0]
    figure, axes = _panels(heights, width, ax)
    _curves(axes[0], here, wanted, comparison, probe)
    about = comparison.provenance["probes"][probe]
    better = f", {about['better']} is better" if about["better"] and not about["compares"] else ""
    titled(axes[0], f"{about['title']}{better}{'' if layer == NO_LAYER else f', layer {layer}'}")
    axes[0].set_xlabel(f"step of {printable(name)}")
    said = "band: 95 % bootstrap interval"
    if len(axes) > 1:
        _map(axes[1], comparison, probe, name, wanted[0])
        titled(axes[1], f"since step {min(steps.values())}, {called(wanted[:1])[0]}")
        said += "; • p < 0.05 adjusted over layers and steps"
    if ax is None:
        captioned(figure, said)
    return figure


def _panels(
    heights: Sequence[float], width: float | None, ax: Axes | Sequence[Axes] | None
) -> tuple[Figure, list[Axes]]:
    """A figure of a curve and, where there are layers, a map; or the panels that were given."""
    if ax is None:
        return panels(heights, None, width, each=4.6)
    given = [ax] if isinstance(ax, Axes) else list(ax)
    if not given or len(given) > len(heights):
        raise InputError(f"ax=: expected a panel for the curve{' and one for the map' * (len(heights) > 1)}")
    figure, _ = panels(heights[:1], given[0], width)
    return figure, given


def _curves(axis: Axes, rows: pd.DataFrame, wanted: Sequence[str], comparison: Table, probe: str) -> None:
    """A line a language, with its band."""
    names = dict(zip(wanted, called(wanted), strict=True))
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, len(wanted)))
    for language, colour in zip(wanted, colours, strict=True):
        own = rows[rows["language"] == language]
        shade = matplotlib.rcParams["text.color"] if len(wanted) == 1 else colour
        axis.fill_between(own["step"], own["low"], own["high"], alpha=0.18, color=shade, linewidth=0)
        axis.plot(own["step"], own["value"], color=shade, marker="o", markersize=4, label=names[language])
    if len(wanted) > 1:
        axis.legend(frameon=False, fontsize="small")
    tidy(axis)


def _map(axis: Axes, comparison: Table, probe: str, name: str, language: str) -> None:
    """Layers by steps: the difference to the first step, a dot where it is significant."""
    found = by_step(comparison, name, "first", ("layer", "model"))
    rows = found[(found["probe"] == probe) & (found["language"] == language)]
    wide = rows.pivot(index="layer", columns="step", values="difference").sort_index(ascending=False)
    small = rows.pivot(index="layer", columns="step", values="p_adjusted").reindex_like(wide).to_numpy(float) < 0.05
    values = wide.to_numpy(float)
    most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    colours = {"higher": "RdBu", "lower": "RdBu_r"}.get(comparison.provenance["probes"][probe]["better"], "PuOr")
    heat = axis.pcolormesh(np.ma.masked_invalid(values), cmap=colours, vmin=-most, vmax=most)
    every = max(1, len(wide.columns) // 8)
    ticks = np.arange(len(wide.columns))[::every] + 0.5
    axis.set_xticks(ticks, [str(c) for c in wide.columns[::every]], fontsize="small")
    axis.set_yticks(np.arange(len(wide)) + 0.5, [str(c) for c in wide.index], fontsize="small")
    axis.invert_yaxis()
    for row, column in np.argwhere(small):
        dotted_at(axis, heat, row, column, values[row, column])
    axis.set_ylabel("layer")
    axis.set_xlabel("step")
    figure = axis.get_figure()
    assert figure is not None
    figure.colorbar(heat, ax=axis, label="difference", aspect=30, pad=0.02)


def similarity_of_steps(
    comparison: Table,
    states: Mapping[str, xr.Dataset],
    name: str | None,
    measure: str,
    against: str,
    width: float | None = None,
    ax: Axes | None = None,
    steps: Sequence[int] | None = None,
) -> Figure:
    """Draw how similar layers are between steps; the arguments are those of
    `Comparison.plot_step_similarity`, and the Representations.
    """
    name, of = series_of(comparison, name)
    check_choice("measure", measure, MEASURES)
    check_choice("against", against, AGAINST)
    models = sorted(of, key=lambda model: of[model])
    pairs = {
        "baseline": [(model, comparison.baseline) for model in models if model != comparison.baseline],
        "first": [(model, models[0]) for model in models[1:]],
        "before": list(zip(models[1:], models, strict=False)),
    }[against]
    there = [of[model] for model, _ in pairs]
    if strange := [step for step in steps or () if step not in there]:
        raise InputError(f"steps: {strange[0]!r} is compared with none; there are {', '.join(map(str, there))}")
    pairs = [(model, other) for model, other in pairs if steps is None or of[model] in steps]
    if not pairs:
        raise InputError(f"series {name!r} has one step: there is none to compare it with")
    lacking = [model for pair in pairs for model in pair if model not in states]
    if lacking:
        raise InputError(
            f"the states of {', '.join(map(repr, dict.fromkeys(lacking)))} are not at hand, as after opening a "
            "comparison: open it with store=..."
        )
    rows = np.arange(states[pairs[0][1]].sizes["example"])
    values = []
    for model, other in pairs:
        sides = (side_of(states[one], rows) for one in (model, other))
        values.append(layers_between(MEASURES[measure], *sides)[0])
    depth = max(value.shape[0] for value in values)
    figure, axes = panels([0.9 + 0.18 * max(depth, 6)] * len(values), ax, width, each=2.8, most=4)
    every = np.concatenate([value.ravel() for value in values])
    lowest = float(np.nanmin(every, initial=0.0))
    scale: dict[str, Any] = {"cmap": "viridis", "vmin": lowest, "vmax": max(float(np.nanmax(every, initial=0.0)), 1.0)}
    for axis, value, (model, other) in zip(axes, values, pairs, strict=True):
        heat = axis.pcolormesh(np.ma.masked_invalid(value), **scale)
        for ticks, layers in ((axis.set_xticks, states[other]["layer"]), (axis.set_yticks, states[model]["layer"])):
            thin = max(1, layers.size // 8)
            ticks(np.arange(layers.size)[::thin] + 0.5, [str(x) for x in layers.values[::thin]], fontsize="small")
        said = f"step {of[other]}" if other in of else printable(other)
        titled(axis, f"step {of[model]} with {said}")
        axis.set_xlabel(f"layer, {said}")
        axis.set_ylabel(f"layer, step {of[model]}")
    figure.colorbar(heat, ax=axes, aspect=30, pad=0.02)
    if ax is None:
        what = f"{MEASURES[measure].estimator} of layers of {printable(name)}"
        captioned(figure, f"{what}; all {stands_for(comparison)}s pooled, one scale")
    return figure
