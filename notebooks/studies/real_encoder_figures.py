"""Figures of the study of a real encoder."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import real_encoder_warning as warning
import seaborn as sns
from matplotlib.ticker import MaxNLocator
from real_encoder_answers import LANGUAGES, LOST, Kept
from real_encoder_methods import ENGLISH, VOCABULARY
from real_encoder_runs import ORIGINAL

from probes.results.intervals import interval
from probes.views.language_names import language_name

CUT = 0.7  # of the original's bytes: what keeps its embeddings as they are has more
SEEN = 0.02  # of what is lost in a language, that a model has to reach to be shown
FAMILIES = ("pruning", "quantisation", "fewer layers", "factors", "fusion", VOCABULARY)
TRAINED = ("pruning, trained", "quantisation, trained", "students")
COLOURS = dict(zip([*FAMILIES, *TRAINED], sns.color_palette("colorblind", len(FAMILIES + TRAINED)), strict=True))
MARKERS = dict(zip([*FAMILIES, *TRAINED], "osD^vPX*<", strict=True))


def tradeoff(kept: Kept) -> plt.Figure:
    """What is kept against the bytes that are stored, all families at once; the axis leaves out what has no run."""
    megabytes = (kept.runs["stored_bytes"] / 1e6).to_numpy()
    families = kept.families.to_numpy()
    whole = kept.about["cost"]["stored_bytes"] / 1e6
    parts = [x for x in (megabytes[megabytes < CUT * whole], megabytes[megabytes >= CUT * whole]) if len(x)]
    widths = [1.0, 2.2][-len(parts) :]
    figure, axes = plt.subplots(1, 2 * len(parts), figsize=(11.6, 5.2), width_ratios=widths * 2)
    for k, probe in enumerate(LOST):
        value, draws = kept.at_end(probe, ["pooled"])
        ends = np.array([interval(v, d) for v, d in zip(value[:, 0], draws[:, 0], strict=True)], dtype=float)
        own = axes[k * len(parts) : (k + 1) * len(parts)]
        for ax, part in zip(own, parts, strict=True):
            for family in FAMILIES:
                of = np.flatnonzero((families == family) & np.isin(megabytes, part))
                if len(of):
                    y = value[1 + of, 0]
                    ax.errorbar(
                        megabytes[of],
                        y,
                        yerr=np.abs(ends[1 + of].T - y),
                        fmt=MARKERS[family],
                        color=COLOURS[family],
                        markersize=6,
                        elinewidth=1,
                        capsize=2,
                        alpha=0.9,
                    )
            ax.axhline(value[0, 0], color="0.4", linestyle=":", linewidth=1)
            room = 0.06 * (max(part.max(), whole if part is parts[-1] else 0) - part.min()) + 4
            ax.set_xlim(part.min() - room, max(part.max(), whole if part is parts[-1] else 0) + room)
            ax.set_ylim(0, 1.03)
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.grid(color="0.93")
            ax.set_axisbelow(True)
            if ax is not own[0]:
                ax.set_yticklabels([])
        own[-1].set_title(f"{probe}, all languages together")
        own[-1].set_xlabel("megabytes as stored")
    handles = [
        plt.Line2D([], [], linestyle="none", marker=MARKERS[f], color=COLOURS[f], label=f)
        for f in FAMILIES
        if f in families
    ]
    axes[-1].legend(handles=handles, fontsize=9, loc="lower right")
    figure.tight_layout()
    return figure


def heat(kept: Kept, probe: str = "retrieval") -> plt.Figure:
    """What each run lost in each language, languages and runs of a family ordered by their mean.

    Runs that lost next to nothing in all languages are left out.
    """
    languages = kept.others(probe)
    lost, _ = kept.lost(probe, languages)
    table = pd.DataFrame(100 * lost, index=kept.runs["run"], columns=[language_name(x) for x in languages])
    some = (table.max(axis=1) >= 100 * SEEN).to_numpy()
    some = some if some.any() else np.ones_like(some)
    table, families = table[some], kept.families.to_numpy()[some]
    table = table[table.mean().sort_values(ascending=False).index]
    order = np.lexsort([table.mean(axis=1), pd.Series(families).map(FAMILIES.index)])
    table, families = table.iloc[order], families[order]
    figure, ax = plt.subplots(figsize=(11.6, 1.8 + 0.26 * len(table)))
    bar = {"label": f"{probe} lost, of 100", "pad": 0.01}
    sns.heatmap(table, ax=ax, cmap="rocket_r", vmin=0, cbar_kws=bar)
    for y in np.flatnonzero(families[1:] != families[:-1]) + 1:
        ax.axhline(y, color="white", linewidth=3)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="x", rotation=60, labelsize=10)
    ax.tick_params(axis="y", rotation=0, labelsize=9)
    figure.tight_layout()
    return figure


def told(kept: Kept, most: int = 9, about: float = 0.12) -> list[int]:
    """Places of runs that lost neither nothing nor all, near some loss, two of a family at most and one of a method."""
    lost = kept.lost("retrieval", ["pooled"])[0][:, 0]
    plain_runs = kept.runs[~kept.runs["method"].str.contains(",") & kept.runs["text"].ne(ENGLISH)]
    some = [
        i for i in np.argsort(np.abs(lost - about), kind="stable") if i in plain_runs.index and 0.03 < lost[i] < 0.5
    ]
    chosen: list[int] = []
    for i in some:
        own = kept.runs.iloc[chosen]
        few = (own["family"] == kept.runs["family"].iloc[i]).sum() < 2
        if few and kept.runs["method"].iloc[i] not in set(own["method"]) and len(chosen) < most:
            chosen.append(int(i))
    return sorted(chosen, key=lambda i: float(lost[i]))


def story(kept: Kept) -> plt.Figure:
    """What some models that lost neither nothing nor all lost in each language: a dot each, the mean as a line."""
    languages = kept.others("retrieval")
    lost, _ = kept.lost("retrieval", languages)
    mean, chosen = lost.mean(axis=1), told(kept)
    near = np.array([LANGUAGES[x][0] in ("Germanic", "Romance") for x in languages])
    figure, ax = plt.subplots(figsize=(10.4, 1.3 + 0.52 * len(chosen)))
    for y, i in enumerate(chosen):
        for own, colour, label in ((near, "#0173b2", "Germanic, Romance"), (~near, "#de8f05", "all others")):
            ax.scatter(
                100 * lost[i, own],
                np.full(own.sum(), y),
                s=42,
                color=colour,
                alpha=0.75,
                label=label if y == 0 else None,
            )
        ax.plot([100 * mean[i]] * 2, [y - 0.3, y + 0.3], color="black", linewidth=2, label="mean" if y == 0 else None)
        worst, best = lost[i].argmax(), lost[i].argmin()
        ax.annotate(
            language_name(languages[worst]),
            (100 * lost[i, worst], y),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
        ax.annotate(
            language_name(languages[best]),
            (100 * lost[i, best], y),
            (-7, 0),
            textcoords="offset points",
            va="center",
            ha="right",
            fontsize=9,
        )
    ax.set_yticks(range(len(chosen)), kept.runs["run"].to_numpy()[chosen])
    ax.set(xlabel="translations that are no longer found, of 100; a dot a language", ylim=(-0.6, len(chosen) - 0.4))
    ends = 100 * lost[chosen].min(), 100 * lost[chosen].max()
    ax.set_xlim(ends[0] - 0.17 * (ends[1] - ends[0]), ends[1] + 0.14 * (ends[1] - ends[0]))
    ax.grid(axis="x", color="0.93")
    ax.set_axisbelow(True)
    ax.legend(fontsize=9, loc="lower right")
    figure.tight_layout()
    return figure


def depth(kept: Kept) -> plt.Figure:
    """Retrieval by layer: the original, and the runs that lost neither nothing nor all."""
    figure, ax = plt.subplots(figsize=(10.4, 4.8))
    names = kept.runs["run"].to_numpy()[told(kept)]
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
    ax.set_axisbelow(True)
    figure.tight_layout()
    return figure


def warnings_figure(tables: dict[str, tuple[warning.Models, pd.DataFrame]]) -> plt.Figure:
    """How well each measure tells what was lost, and what the best one said of each model and language."""
    figure, axes = plt.subplots(1, 3, figsize=(11.6, 6.2), width_ratios=[1, 1, 1.5])
    models, retrieval = tables["retrieval"]
    names, best = retrieval["measure"].tolist()[::-1], first(retrieval)
    for ax, (probe, (_, table)) in zip(axes, tables.items(), strict=False):
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
        ax.set_axisbelow(True)
    for family in dict.fromkeys([*FAMILIES, *models.families]):
        of = models.families == family
        if of.any():
            axes[2].scatter(
                models.said[best][0][of].ravel(),
                models.lost[of].ravel(),
                s=14,
                color=COLOURS[family],
                marker=MARKERS[family],
                label=family,
                alpha=0.75,
            )
    axes[2].set(title="a point a model and language", xlabel=f"damage by {plain(best)}", ylabel="retrieval lost")
    axes[2].xaxis.set_major_locator(MaxNLocator(5))
    axes[2].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)  # it would cover points
    axes[2].grid(color="0.93")
    axes[2].set_axisbelow(True)
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
