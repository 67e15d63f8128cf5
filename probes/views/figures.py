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
from probes.results.cells import NO_LAYER
from probes.results.difference import MARKED, family_in_words
from probes.results.draws import POOLED
from probes.results.table import FURTHER, Table
from probes.views.described import title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Shown(Figure):
    """A figure that a notebook shows by itself: made without pyplot, it opens no window and leaves
    no state.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def curves(comparison: Table, probes: list[str], language: str, *, simultaneous: bool = False) -> Figure:
    """Draw value and interval by layer, one panel a probe; by language what has no layer.

    Args:
        comparison: what is drawn.
        probes: a panel each.
        language: of what has layers.
        simultaneous: whether the bands hold for all layers of a curve at once.
    """
    table = comparison.table.assign(**comparison.bands()) if simultaneous else comparison.table
    table = table[table["probe"].isin(probes)]
    if language not in set(table["language"]):
        known = dict.fromkeys(table["language"])
        raise InputError(f"no values for language {language!r}; there are {', '.join(map(repr, known))}")
    models = list(comparison.provenance["models"])
    columns = min(3, len(probes))
    rows = -(-len(probes) // columns)
    figure = Shown(figsize=(4.2 * columns + 0.6, 3.0 * rows + 0.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False).ravel())
    colours = dict(zip(models, sns.color_palette("colorblind", len(models)), strict=True))
    with sns.axes_style("whitegrid"):
        for axis, probe in zip(axes, probes, strict=False):
            of_probe = table[table["probe"] == probe].astype({"value": float, "low": float, "high": float})
            of_probe = of_probe.replace([np.inf, -np.inf], np.nan)
            at_output = (of_probe["layer"] == NO_LAYER).all()
            if at_output:
                _by_language(axis, of_probe, [m for m in models if m in set(of_probe["model"])], colours)
            else:
                of_probe = of_probe[of_probe["language"] == language].astype({"layer": float})
                (
                    so.Plot(of_probe, x="layer", y="value", ymin="low", ymax="high", color="model")
                    .add(so.Band(alpha=0.2), legend=False)
                    .add(so.Line(marker="o", pointsize=4), legend=False)
                    .scale(color=colours)
                    .on(axis)
                    .plot()
                )
                axis.set_xticks(sorted(of_probe["layer"].unique()))
            axis.set(
                title=_title(comparison, probe),
                ylabel="",
                xlabel="" if at_output else "layer",
            )
            axis.title.set_fontsize(10)
            axis.grid(visible=True, color="0.9")
            axis.set_axisbelow(True)
            sns.despine(ax=axis)
    for axis in axes[len(probes) :]:
        axis.set_visible(False)
    handles = [axes[0].plot([], [], color=colours[m], marker="o", markersize=4, label=m)[0] for m in models]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(models), 5), frameon=False)
    where = "all languages pooled" if language == POOLED else language
    bands = "95 % bands for all layers of a curve at once" if simultaneous else "95 % bootstrap intervals by sentence"
    figure.supxlabel(f"{where}; bands: {bands}", fontsize=9, color="0.35")
    return figure


def _by_language(axis: Axes, of_probe: pd.DataFrame, models: list[str], colours: dict[str, tuple]) -> None:
    """Points with error bars, side by side a model."""
    languages = list(dict.fromkeys(of_probe["language"]))
    for i, model in enumerate(models):
        rows = of_probe[of_probe["model"] == model].set_index("language").reindex(languages)
        at = np.arange(len(languages)) + 0.5 * ((i + 0.5) / len(models) - 0.5)
        gaps = np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]])
        axis.errorbar(at, rows["value"], yerr=gaps, fmt="o", markersize=4, color=colours[model], linewidth=1.5)
    axis.set_xticks(np.arange(len(languages)), languages, fontsize=8)


def _title(comparison: Table, probe: str) -> str:
    """What stands over a figure of a probe: its name, and whether higher is better or what it
    compares with.
    """
    about, title = comparison.provenance["probes"][probe], title_of(comparison, probe)
    return f"{title}, {about['better']} is better" if about["better"] and not about["compares"] else title


def maps(comparison: Table, probe: str, language: str) -> Figure:
    """Draw a probe that has more to a number than its layer: one map a model, all on one scale."""
    table = comparison.table[comparison.table["probe"] == probe]
    further = next(c for c in FURTHER if c in table and (table[c].notna() & (table[c] != NO_LAYER)).any())
    if further == "other_language":
        # By the last layer: who is behind the predictions of each language.
        rows, columns, where = "language", "other_language", "last layer of each"
        table = table[table["layer"] == table.groupby("model")["layer"].transform("max")]
    else:
        rows, columns = (further, "layer") if further == "module" else ("layer", further)
        where = "all languages pooled" if language == POOLED else language
        table = table[table["language"] == language]
    if table.empty:
        raise InputError(f"no values of {probe} for language {language!r}")
    models = [m for m in comparison.provenance["models"] if m in set(table["model"])]
    wide = {
        m: table[table["model"] == m].pivot(index=rows, columns=columns, values="value").astype(float) for m in models
    }
    for model, values in wide.items():
        order = dict.fromkeys(table.loc[table["model"] == model, rows])
        wide[model] = values.loc[list(order)] if rows != "layer" else values.iloc[::-1]
    every = np.concatenate([w.to_numpy().ravel() for w in wide.values()])
    lowest, highest = (float(f(every[np.isfinite(every)], initial=0.0)) for f in (np.min, np.max))
    height, width = next(iter(wide.values())).shape
    size = (max(3.4, 0.5 * width + 1.6) * len(models) + 0.8, max(2.4, 0.36 * height + 1.4))
    figure = Shown(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False)[0]
    for axis, model in zip(axes, models, strict=True):
        sns.heatmap(
            wide[model],
            ax=axis,
            cmap="viridis",
            vmin=lowest,
            vmax=max(highest, 1.0) if lowest >= 0 and highest <= 1 else highest,
            annot=height * width <= 100,
            fmt=".2f",
            annot_kws={"fontsize": 7},
            cbar=axis is axes[-1],
            linewidths=0.3,
            linecolor="white",
        )
        other = f"layer of {comparison.baseline}"
        axis.set(
            title=model,
            xlabel={"other_layer": other, "other_language": "training language"}.get(columns, columns),
            ylabel={"layer": f"layer of {model}", "language": "test language"}.get(rows, ""),
        )
        axis.title.set_fontsize(10)
        axis.tick_params(axis="y", rotation=0)
    figure.suptitle(f"{comparison.provenance['probes'][probe]['title']}: {where}", fontsize=10)
    return figure


def damage(comparison: Table, probe: str) -> Figure:
    """Draw the difference to the baseline, languages by layers, a panel a model; red is damage."""
    others = [m for m in comparison.provenance["models"] if m != comparison.baseline]
    table = comparison.table.assign(mark=comparison.marks())
    table = table[table["probe"] == probe]
    if not others:
        raise InputError("only one model was measured, so there is no difference to draw. Compare at least two")
    about = comparison.provenance["probes"][probe]
    if table["difference"].isna().all() or comparison.is_map(probe):
        raise InputError(
            f"{probe} compares with the baseline itself, or has more to a number than layer and language; "
            f"draw it with plot({probe!r})"
        )
    if (table["layer"] == NO_LAYER).all():  # one column: the output
        table = table.assign(layer="output")
    wide = {m: _wide(table[table["model"] == m], "difference") for m in others}
    largest = max(float(np.nanmax(np.abs(w.to_numpy(float)), initial=0.0)) for w in wide.values()) or 1.0
    rows, layers = next(iter(wide.values())).shape
    size = (max(3.2, 0.55 * layers + 1.6) * len(others) + 0.6, max(2.2, 0.32 * rows + 1.4))
    figure = Shown(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(others), squeeze=False)[0]
    for axis, model in zip(axes, others, strict=True):
        p = _wide(table[table["model"] == model], "mark")
        sns.heatmap(
            wide[model],
            ax=axis,
            cmap="RdBu_r" if about["better"] == "lower" else "RdBu",
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
    red = "red is damage" if about["better"] else "red is less"
    figure.suptitle(f"{about['title']}: {red}, • p < 0.05 adjusted over {family_in_words(MARKED)}", fontsize=10)
    return figure


def _wide(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    languages = list(dict.fromkeys(rows["language"]))
    return rows.pivot(index="language", columns="layer", values=column).loc[languages]
