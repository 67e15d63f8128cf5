"""Figures of the study of a real encoder."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import real_encoder_warning as warning
import seaborn as sns
from matplotlib.ticker import MaxNLocator
from real_encoder_answers import LOST, Kept
from real_encoder_methods import VOCABULARY
from real_encoder_runs import ORIGINAL

from probes.results.intervals import interval
from probes.views.language_names import language_name

FAMILIES = ("pruning", "quantisation", "fewer layers", "factors", "fusion", VOCABULARY)
COLOURS = dict(zip(FAMILIES, sns.color_palette("colorblind", len(FAMILIES)), strict=True))
MARKERS = dict(zip(FAMILIES, "osD^vP", strict=True))


def tradeoff(kept: Kept) -> plt.Figure:
    """What is kept against the bytes that are stored, all families at once."""
    figure, axes = plt.subplots(1, 2, figsize=(11.6, 5.2))
    megabytes = (kept.runs["stored_bytes"] / 1e6).to_numpy()
    for ax, probe in zip(axes, LOST, strict=True):
        value, draws = kept.at_end(probe, ["pooled"])
        ends = np.array([interval(v, d) for v, d in zip(value[:, 0], draws[:, 0], strict=True)], dtype=float)
        for family in FAMILIES:
            of = np.flatnonzero(kept.families.to_numpy() == family)
            if len(of):
                y = value[1 + of, 0]
                ax.errorbar(
                    megabytes[of],
                    y,
                    yerr=np.abs(ends[1 + of].T - y),
                    fmt=MARKERS[family],
                    color=COLOURS[family],
                    label=family,
                    markersize=6,
                    elinewidth=1,
                    capsize=2,
                    alpha=0.9,
                )
        order = np.argsort(megabytes, kind="stable")
        best = np.maximum.accumulate(value[1:, 0][order])
        ax.step(megabytes[order], best, where="post", color="0.7", linewidth=1, zorder=0)
        ax.axhline(value[0, 0], color="0.4", linestyle=":", linewidth=1)
        ax.set_title(f"{probe} at the end, all languages together")
        ax.set_xlabel("megabytes as stored")
        ax.set_ylim(bottom=0)
        ax.grid(color="0.93")
    axes[1].legend(fontsize=9)
    figure.tight_layout()
    return figure


def heat(kept: Kept, probe: str = "retrieval") -> plt.Figure:
    """What each run lost in each language, languages and runs of a family ordered by their mean."""
    languages = kept.others(probe)
    lost, _ = kept.lost(probe, languages)
    table = pd.DataFrame(lost, index=kept.runs["run"], columns=[language_name(x) for x in languages])
    table = table[table.mean().sort_values(ascending=False).index]
    family = pd.Series(kept.families.to_numpy(), index=table.index).map(FAMILIES.index)
    table = table.iloc[np.lexsort([table.mean(axis=1), family])]
    figure, ax = plt.subplots(figsize=(11.6, 1.6 + 0.27 * len(table)))
    top = max(0.02, float(np.nanmax(np.abs(table.to_numpy()))))
    sns.heatmap(
        table, ax=ax, cmap="RdBu_r", center=0, vmin=-top, vmax=top, cbar_kws={"label": f"{probe} lost", "pad": 0.01}
    )
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="x", rotation=60, labelsize=9)
    ax.tick_params(axis="y", rotation=0, labelsize=8)
    figure.tight_layout()
    return figure


def depth(kept: Kept, most: int = 8) -> plt.Figure:
    """Retrieval by layer: the original, and the runs that lost neither nothing nor all."""
    figure, ax = plt.subplots(figsize=(10.4, 4.8))
    lost, _ = kept.lost("retrieval", ["pooled"])
    names = kept.runs["run"].to_numpy()[np.argsort(np.abs(lost[:, 0] - 0.15), kind="stable")][:most]
    of = kept.rows[(kept.rows["probe"] == "retrieval") & (kept.rows["language"] == "pooled")]
    own = of[of["run"] == ORIGINAL].sort_values("layer")
    ax.plot(own["layer"], own["value"], color="black", linewidth=2.2, label=ORIGINAL)
    ax.fill_between(own["layer"], own["low"], own["high"], color="0.85")
    for name, colour in zip(names, sns.color_palette("husl", len(names)), strict=True):
        rows = of[of["run"] == name].sort_values("layer")
        beside = (
            rows["baseline_layer"]
            if "baseline_layer" in rows and rows["baseline_layer"].notna().all()
            else rows["layer"]
        )
        ax.plot(beside, rows["value"], marker=MARKERS[kept.families[name]], markersize=4, color=colour, label=name)
    ax.set(xlabel="layer of the original (0: embeddings)", ylabel="retrieval, all languages", ylim=(0, 1.02))
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.grid(color="0.93")
    figure.tight_layout()
    return figure


def warnings_figure(kept: Kept, tables: dict[str, pd.DataFrame]) -> plt.Figure:
    """How well each measure tells what was lost, and what the best one said of each model and language."""
    figure, axes = plt.subplots(1, 3, figsize=(11.6, 6.2), width_ratios=[1, 1, 1.5])
    retrieval, best = tables["retrieval"], first(tables["retrieval"])
    names = retrieval["measure"].tolist()[::-1]
    for ax, (probe, table) in zip(axes, tables.items(), strict=False):
        table = table.set_index("measure").loc[names]
        ax.errorbar(
            table["over all"],
            np.arange(len(names)),
            xerr=_widths(table),
            fmt="o",
            color="0.2",
            markersize=4,
            elinewidth=1,
        )
        ax.axvline(0, color="0.6", linewidth=1)
        ax.set(title=f"{probe} lost", xlabel="rank correlation", xlim=(min(-0.3, table["low"].min()), 1.02))
        ax.set_yticks(np.arange(len(names)), [plain(name) for name in names] if ax is axes[0] else [])
        ax.grid(color="0.93")
    probe, languages = "retrieval", kept.others("retrieval")
    lost, _ = kept.lost(probe, languages)
    said = warning.damages(kept, languages)[best][0]
    for family in FAMILIES:
        of = kept.families.to_numpy() == family
        if of.any():
            axes[2].scatter(
                said[of].ravel(),
                lost[of].ravel(),
                s=14,
                color=COLOURS[family],
                marker=MARKERS[family],
                label=family,
                alpha=0.75,
            )
    axes[2].set(title="a point a model and language", xlabel=f"damage by {plain(best)}", ylabel=f"{probe} lost")
    axes[2].xaxis.set_major_locator(MaxNLocator(5))
    axes[2].legend(fontsize=9)
    axes[2].grid(color="0.93")
    figure.tight_layout()
    return figure


def _widths(table: pd.DataFrame) -> np.ndarray:
    ends = np.stack([table["over all"] - table["low"], table["high"] - table["over all"]])
    return np.nan_to_num(np.maximum(ends, 0))


def plain(name: str) -> str:
    """The name of a measure in words."""
    return name.replace("_", " ")


def first(table: pd.DataFrame) -> str:
    """The measure that told most, of those that are measured."""
    return str(table.loc[~table["measure"].isin([warning.BYTES, warning.CHANCE]), "measure"].iloc[0])
