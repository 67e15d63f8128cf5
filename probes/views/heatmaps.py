"""Maps of a comparison: of what has more to a number than its layer, and of what changed where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd

from probes.errors import InputError
from probes.printing import printable
from probes.results.cells import BESIDE, NO_LAYER
from probes.results.difference import MARKED, family_in_words
from probes.results.draws import POOLED
from probes.results.table import FURTHER, Table
from probes.views.drawing import (
    Names,
    called,
    captioned,
    chosen,
    inches,
    models_of,
    panels,
    stands_for,
    titled,
    wrapped,
)
from probes.views.language_names import language_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.18  # inches that a row needs
_TICK = 0.2  # inches that the number of a layer needs
_CELL = 0.33  # inches that a number in a cell needs
_DARK, _LIGHT = "#000001", "#fffffe"  # what stands on a cell: not quite grey, see `dark`


def maps(
    comparison: Table,
    probe: str,
    languages: Names = None,
    *,
    ax: Axes | None = None,
    models: Names = None,
    layers: int | Sequence[int] | None = None,
    width: float | None = None,
    caption: bool = True,
) -> Figure:
    """Draw a probe that has more to a number than its layer: one map a model, all on one scale.

    Args:
        comparison: what is drawn.
        probe: what is drawn of it.
        languages: one, by default all together; where the map is of languages, those in it.
        ax, models, layers, width, caption: as in `Comparison.plot`.
    """
    names = models_of(comparison, models)
    table = comparison.table[comparison.table["probe"] == probe]
    further = next(c for c in FURTHER if c in table and (table[c].notna() & (table[c] != NO_LAYER)).any())
    if further == "other_language":
        # By the last layer: who is behind the predictions of each language.
        rows, columns, where = "language", "other_language", "at the last layer of each model"
        table = table[table["layer"] == table.groupby("model")["layer"].transform("max")]
        table = chosen(table, names, languages, None)
        if languages is not None:
            table = table[table["other_language"].isin(table["language"])]
    else:
        rows, columns = (further, "layer") if further == "module" else ("layer", further)
        language = POOLED if languages is None else languages if isinstance(languages, str) else languages[0]
        if not isinstance(languages, str) and languages is not None and len(languages) > 1:
            raise InputError(f"a map of {probe} is of one language: give one of {', '.join(map(repr, languages))}")
        if language not in set(table["language"]):
            raise InputError(f"no values of {probe} for language {language!r}")
        where = f"all {stands_for(comparison)}s pooled" if language == POOLED else language_names([language])[0]
        table = chosen(table, names, language, layers)
    names = [m for m in names if m in set(table["model"])]
    wide = {
        m: table[table["model"] == m].pivot(index=rows, columns=columns, values="value").astype(float) for m in names
    }
    for model, values in wide.items():
        order = dict.fromkeys(table.loc[table["model"] == model, rows])
        wide[model] = values.loc[list(order)] if rows != "layer" else values.iloc[::-1]
    every = np.concatenate([w.to_numpy().ravel() for w in wide.values()])
    lowest, highest = (float(f(every[np.isfinite(every)], initial=0.0)) for f in (np.min, np.max))
    top = max(highest, 1.0) if lowest >= 0 and highest <= 1 else highest
    title = comparison.provenance["probes"][probe]["title"]
    figure, axes = _panels(wide, ax, width)
    for axis, model in zip(axes, names, strict=True):
        heat = _heat(axis, wide[model], {"cmap": "viridis", "vmin": lowest, "vmax": top}, numbers=True)
        titled(axis, f"{title}: {printable(model)}" if ax is not None else printable(model))
        other = f"layer of {printable(comparison.baseline)}"
        axis.set_xlabel(
            {"other_layer": other, "other_language": f"training {stands_for(comparison)}"}.get(columns, columns)
        )
        axis.set_ylabel(
            {"layer": f"layer of {printable(model)}", "language": f"test {stands_for(comparison)}"}.get(rows, "")
        )
    figure.colorbar(heat, ax=axes, aspect=30, pad=0.02)
    if ax is None:
        figure.suptitle(wrapped(title, figure.get_figwidth(), matplotlib.rcParams["figure.titlesize"]))
        if caption:
            captioned(figure, f"{where}; all models on one scale")
    return figure


def change(
    comparison: Table,
    probe: str,
    languages: Names = None,
    *,
    ax: Axes | None = None,
    models: Names = None,
    layers: int | Sequence[int] | None = None,
    width: float | None = None,
    caption: bool = True,
    ends: float | None = None,
) -> Figure:
    """Draw the difference to the baseline, languages by layers, a panel a model.

    Red and blue stand for damage and gain where the probe is one of quality; other colours for less
    and more where it is not.

    Args:
        comparison: what is drawn.
        probe: what is drawn of it.
        languages: by default each, and all together.
        ax, models, layers, width, caption: as in `Comparison.plot_change`.
        ends: the difference at which colours end; by default the largest one.
    """
    others = models_of(comparison, None, others=True)
    if not others:
        raise InputError("only one model was measured, so there is no difference to draw. Compare at least two")
    names = models_of(comparison, models, others=True)
    if not comparison.has_difference(probe):
        raise InputError(
            f"{probe} compares with the baseline itself, or has more to a number than layer and language; "
            f"draw it with plot({probe!r})"
        )
    about = comparison.provenance["probes"][probe]
    table = comparison.table.assign(mark=comparison.marks())
    table = chosen(table[table["probe"] == probe], names, languages, layers)
    names = [m for m in names if m in set(table["model"])]
    if not names:
        raise InputError(f"there are no differences of {probe} to draw of these models")
    wide = {m: _wide(table[table["model"] == m], "difference") for m in names}
    largest = max(float(np.nanmax(np.abs(w.to_numpy(float)), initial=0.0)) for w in wide.values()) or 1.0
    largest = largest if ends is None else ends
    colours = {"higher": "RdBu", "lower": "RdBu_r"}.get(about["better"], "PuOr")
    figure, axes = _panels(wide, ax, width)
    dotted = False
    for axis, model in zip(axes, names, strict=True):
        heat = _heat(axis, wide[model], {"cmap": colours, "vmin": -largest, "vmax": largest})
        marks = _wide(table[table["model"] == model], "mark").to_numpy(float)
        dotted |= bool((marks < 0.05).any())
        for row, column in np.argwhere(marks < 0.05):
            dotted_at(axis, heat, row, column, wide[model].to_numpy(float)[row, column])
        what = f"{printable(model)} minus {printable(comparison.baseline)}"
        titled(axis, f"{about['title']}: {what}" if ax is not None else what)
        _name_layers(axis, table[table["model"] == model], comparison)
    figure.colorbar(heat, ax=axes, label="difference", aspect=30, pad=0.02)
    if ax is None:
        figure.suptitle(wrapped(about["title"], figure.get_figwidth(), matplotlib.rcParams["figure.titlesize"]))
        if caption:
            quality = "red is damage, blue is gain"
            said = quality if about["better"] else "orange is less, purple is more, neither is better"
            captioned(
                figure, f"{said}; {'•' if dotted else 'nowhere'} p < 0.05 adjusted over {family_in_words(MARKED)}"
            )
    return figure


def _panels(wide: dict[str, pd.DataFrame], ax: Axes | None, width: float | None) -> tuple[Figure, list[Axes]]:
    rows, columns = (max(w.shape[i] for w in wide.values()) for i in (0, 1))
    return panels([0.8 + _ROW * max(rows, 4)] * len(wide), ax, width, each=max(3.4, 0.36 * columns + 1.6), most=4)


def _heat(axis: Axes, wide: pd.DataFrame, scale: dict[str, Any], *, numbers: bool = False) -> Any:
    """A cell a value, the first row on top; numbers in the cells where there is room."""
    values = wide.to_numpy(float)
    heat = axis.pcolormesh(np.ma.masked_invalid(values), edgecolors=axis.get_facecolor(), linewidth=0.4, **scale)
    axis.invert_yaxis()
    rows, columns = values.shape
    room = inches(axis) - 1.5
    step = max(1, int(np.ceil(columns * _TICK / max(room, 0.5)))) if wide.columns.name != "other_language" else 1
    axis.set_xticks(np.arange(0, columns, step) + 0.5, _texts(wide.columns)[::step], fontsize="small")
    axis.set_yticks(np.arange(rows) + 0.5, _texts(wide.index), fontsize="small")
    if wide.columns.name == "other_language":
        axis.tick_params(axis="x", labelrotation=90)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for label, name in zip(axis.get_yticklabels(), wide.index, strict=True):
        label.set_fontweight("bold" if name == POOLED else "normal")
    if numbers and rows * columns <= 100 and room / columns >= _CELL:
        for row, column in np.argwhere(np.isfinite(values)):
            shade = shade_on(heat, values[row, column])
            text = f"{values[row, column]:.2f}"
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=shade, fontsize="x-small")
    return heat


def shade_on(heat: Any, value: float) -> str:
    """Return the colour, dark or light, that can be read on the cell of a value."""
    red, green, blue, _ = heat.cmap(heat.norm(value))
    return _LIGHT if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45 else _DARK


def dotted_at(axis: Axes, heat: Any, row: int, column: int, value: float) -> None:
    """Mark a cell with a dot that can be read on its colour."""
    axis.text(column + 0.5, row + 0.5, "•", ha="center", va="center", color=shade_on(heat, value))


def _texts(index: pd.Index) -> list[str]:
    if index.name in ("language", "other_language"):
        return called(list(index))
    return ["output" if x == NO_LAYER else printable(x) for x in index]


def _name_layers(axis: Axes, rows: pd.DataFrame, comparison: Table) -> None:
    """Say what the columns are: layers, and those of the baseline that they are compared with."""
    if (rows["layer"] == NO_LAYER).all():
        return
    beside = {} if BESIDE not in rows else dict(zip(rows["layer"], rows[BESIDE], strict=True))
    if all(layer == other for layer, other in beside.items()):
        axis.set_xlabel("layer")
        return
    ticks = [int(tick.get_text()) for tick in axis.get_xticklabels()]
    axis.set_xticks(axis.get_xticks(), [f"{x}\n({beside.get(x, NO_LAYER)})".replace("(-1)", "(–)") for x in ticks])
    axis.set_xlabel(f"layer (of {printable(comparison.baseline)})")


def _wide(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    there = dict.fromkeys(rows["language"])
    order = [POOLED] * (POOLED in there) + [x for x in there if x != POOLED]
    return rows.pivot(index="language", columns="layer", values=column).loc[order]
