"""Figures of a comparison: curves by layer with bands, and points by language of what has no layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from probes.errors import InputError
from probes.printing import printable
from probes.results.cells import NO_LAYER
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.views.described import title_of
from probes.views.drawing import (
    Names,
    called,
    captioned,
    chosen,
    finish,
    layered,
    look,
    models_of,
    panels,
    placed,
    stands_for,
    tidy,
    titled,
)
from probes.views.heatmaps import change, maps

__all__ = ["change", "curves", "maps"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves(
    comparison: Table,
    probes: Sequence[str],
    languages: Names = None,
    *,
    simultaneous: bool = False,
    ax: Axes | None = None,
    models: Names = None,
    layers: int | Sequence[int] | None = None,
    width: float | None = None,
    caption: bool = True,
) -> Figure:
    """Draw value and interval by layer, one panel a probe and language; by language what has no
    layer.

    Args:
        comparison: what is drawn.
        probes: what is drawn of it.
        languages: of what has layers by default all together; of what has none by default each.
        simultaneous: whether the bands hold for all layers of a curve at once.
        ax, models, layers, width, caption: as in `Comparison.plot`.
    """
    table = comparison.table.assign(**comparison.bands()) if simultaneous else comparison.table
    names = models_of(comparison, models)
    table = chosen(table[table["probe"].isin(probes)], names, languages, layers)
    table = table.astype({"value": float, "low": float, "high": float}).replace([np.inf, -np.inf], np.nan)
    if table.empty:
        raise InputError(f"there are no values of {', '.join(probes)} to draw of {', '.join(map(repr, names))}")
    names = [m for m in names if m in set(table["model"])]
    by_layer, by_language = [], []
    for probe in probes:
        rows = table[table["probe"] == probe]
        at_output = (rows["layer"] == NO_LAYER).all()
        if len(rows) and at_output:
            by_language.append((probe, rows))
        elif len(rows):
            wanted = [languages] if isinstance(languages, str) else [POOLED] if languages is None else languages
            by_layer += [(probe, rows[rows["language"] == x], x) for x in wanted]
    counts = [rows["language"].nunique() for _, rows in by_language]
    heights = [3.0] * len(by_layer) + [0.7 + n * (0.12 + 0.055 * len(names)) for n in counts]
    figure, axes = panels(heights, ax, width)
    apart = len({language for *_, language in by_layer}) > 1
    moved = False
    for axis, (probe, rows, language) in zip(axes, by_layer, strict=False):
        for name in names:
            moved |= _curve(axis, rows[rows["model"] == name].sort_values("layer"), look(comparison, name))
        of = f", {called([language])[0]}" if apart else ""
        titled(axis, _title(comparison, probe) + of)
        layered(axis, "layer")
        tidy(axis)
    for axis, (probe, rows) in zip(axes[len(by_layer) :], by_language, strict=True):
        _by_language(axis, rows, names, comparison)
        titled(axis, _title(comparison, probe))
        tidy(axis, grid="x")
    if ax is None or len(names) > 1:
        finish(figure, axes, names, comparison, given=ax is not None)
    if caption and ax is None:
        of_layers = dict.fromkeys(language for *_, language in by_layer)
        captioned(figure, _caption(comparison, list(of_layers), bool(by_language), simultaneous, moved))
    return figure


def _curve(axis: Axes, rows: pd.DataFrame, style: dict) -> bool:
    """A line with its band; whether its layers stand elsewhere than at their numbers."""
    at, moved = placed(rows)
    band = {"color": style["color"], "zorder": style["zorder"] - 2, "linewidth": 0}
    axis.fill_between(at, rows["low"], rows["high"], alpha=0.18, **band)
    axis.plot(at, rows["value"], markersize=4, **style)
    return moved


def _by_language(axis: Axes, rows: pd.DataFrame, models: Sequence[str], comparison: Table) -> None:
    """Points with error bars, a line a language, one below the other a model."""
    codes = [x for x in dict.fromkeys(rows["language"]) if x != POOLED]
    codes = [POOLED] * (POOLED in set(rows["language"])) + codes
    for i, model in enumerate(models):
        own = rows[rows["model"] == model].drop_duplicates("language").set_index("language").reindex(codes)
        at = np.arange(len(codes)) + 0.7 * ((i + 0.5) / len(models) - 0.5)
        gaps = np.stack([own["value"] - own["low"], own["high"] - own["value"]])
        style = {k: v for k, v in look(comparison, model).items() if k != "linestyle"}
        axis.errorbar(own["value"], at, xerr=np.maximum(gaps, 0), linestyle="", markersize=4, elinewidth=1.2, **style)
    axis.set_yticks(np.arange(len(codes)), called(codes))
    axis.set_ylim(len(codes) - 0.4, -0.6)
    for label, code in zip(axis.get_yticklabels(), codes, strict=True):
        label.set_fontweight("bold" if code == POOLED else "normal")


def _title(comparison: Table, probe: str) -> str:
    """What stands over a figure of a probe: its name, and whether higher is better or what it
    compares with.
    """
    about, title = comparison.provenance["probes"][probe], title_of(comparison, probe)
    return f"{title}, {about['better']} is better" if about["better"] and not about["compares"] else title


def _caption(comparison: Table, languages: Sequence[str], points: bool, simultaneous: bool, moved: bool) -> str:
    """What is drawn, and what its bands and bars are."""
    said = []
    if languages == [POOLED]:
        said.append(f"curves: all {stands_for(comparison)}s pooled")
    elif languages:
        said.append(f"curves: {', '.join(called(languages))}")
    if points:
        said.append(f"points: one a {stands_for(comparison)}")
    what = " and ".join(["bands"] * bool(languages) + ["bars"] * points)
    drawn = comparison.provenance.get("drawn", "sentences")
    unit = "group" if "group" in drawn else "sentence"
    if simultaneous and languages:
        said.append("bands: 95 % for all layers of a curve at once")
        if points:
            said.append(f"bars: 95 % bootstrap intervals by {unit}")
    else:
        said.append(f"{what}: 95 % bootstrap intervals by {unit}")
    if moved:
        said.append(f"layers of a model of another depth stand where {printable(comparison.baseline)} has theirs")
    return "; ".join(said)
