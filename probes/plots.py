"""Figures of a comparison: layer curves with bands, and the damage by layer and language."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
import seaborn.objects as so
from matplotlib.figure import Figure

from probes.errors import InputError
from probes.resampling import POOLED

if TYPE_CHECKING:
    from probes.comparison import Comparison

_TITLES = {
    "class_separability": "class separability (R²)",
    "variability": "variability (ν)",
    "snr": "signal-to-noise ratio",
    "retrieval": "retrieval",
    "margin_retrieval": "margin retrieval",
    "alignment_gap": "alignment gap",
}


class _Shown(Figure):
    """A figure that a notebook shows by itself: made without pyplot, it opens no window and leaves no state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def curves(comparison: Comparison, probes: list[str], language: str) -> Figure:
    """Draw value and interval by layer: one panel a probe, one colour a model."""
    table = comparison.table
    table = table[table["probe"].isin(probes) & (table["language"] == language)]
    if table.empty:
        known = dict.fromkeys(comparison.table.loc[comparison.table["probe"].isin(probes), "language"])
        raise InputError(f"no values for language {language!r}; there are {', '.join(map(repr, known))}")
    models = list(comparison.provenance["models"])
    columns = min(3, len(probes))
    rows = -(-len(probes) // columns)
    figure = _Shown(figsize=(4.2 * columns + 0.6, 3.0 * rows + 0.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False).ravel())
    colours = dict(zip(models, sns.color_palette("colorblind", len(models)), strict=True))
    with sns.axes_style("whitegrid"):
        for axis, probe in zip(axes, probes, strict=False):
            of_probe = table[table["probe"] == probe]
            (
                so.Plot(of_probe, x="layer", y="value", ymin="low", ymax="high", color="model")
                .add(so.Band(alpha=0.2), legend=False)
                .add(so.Line(marker="o", pointsize=4), legend=False)
                .scale(color=colours)
                .on(axis)
                .plot()
            )
            better = comparison.provenance["probes"][probe]["higher_is"].startswith("better")
            axis.set(title=f"{_TITLES[probe]}, {'higher' if better else 'lower'} is better", ylabel="", xlabel="layer")
            axis.title.set_fontsize(10)
            axis.set_xticks(sorted(of_probe["layer"].unique()))
            axis.grid(visible=True, color="0.9")
            axis.set_axisbelow(True)
            sns.despine(ax=axis)
    for axis in axes[len(probes) :]:
        axis.set_visible(False)
    handles = [axes[0].plot([], [], color=colours[m], marker="o", markersize=4, label=m)[0] for m in models]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(models), 5), frameon=False)
    where = "all languages pooled" if language == POOLED else language
    figure.supxlabel(f"{where}; bands: 95 % bootstrap intervals by sentence", fontsize=9, color="0.35")
    return figure


def damage(comparison: Comparison, probe: str) -> Figure:
    """Draw the difference to the baseline, languages by layers, one panel a model; red is damage."""
    others = [m for m in comparison.provenance["models"] if m != comparison.baseline]
    table = comparison.table[comparison.table["probe"] == probe]
    if not others:
        raise InputError("only one model was measured, so there is no difference to draw. Compare at least two")
    better = comparison.provenance["probes"][probe]["higher_is"].startswith("better")
    wide = {m: _wide(table[table["model"] == m], "difference") for m in others}
    largest = max(float(np.nanmax(np.abs(w.to_numpy(float)), initial=0.0)) for w in wide.values()) or 1.0
    rows, layers = next(iter(wide.values())).shape
    size = (max(3.2, 0.55 * layers + 1.6) * len(others) + 0.6, max(2.2, 0.32 * rows + 1.4))
    figure = _Shown(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(others), squeeze=False)[0]
    for axis, model in zip(axes, others, strict=True):
        p = _wide(table[table["model"] == model], "p_adjusted")
        sns.heatmap(
            wide[model],
            ax=axis,
            cmap="RdBu" if better else "RdBu_r",
            center=0,
            vmin=-largest,
            vmax=largest,
            annot=np.where(p.to_numpy(float) < 0.05, "•", ""),
            fmt="",
            cbar=axis is axes[-1],
            cbar_kws={"label": "difference"},
            linewidths=0.5,
            linecolor="white",
        )
        axis.set(title=f"{model} minus {comparison.baseline}", xlabel="layer", ylabel="")
        axis.title.set_fontsize(10)
        axis.tick_params(axis="y", rotation=0)
    figure.suptitle(f"{_TITLES[probe]}: red is damage, • p < 0.05 adjusted over layers", fontsize=10)
    return figure


def _wide(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    languages = list(dict.fromkeys(rows["language"]))
    return rows.pivot(index="language", columns="layer", values=column).loc[languages]
