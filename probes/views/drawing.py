"""What all figures share: which rows are drawn, how models look, panels of a width, what stands below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from probes.errors import InputError
from probes.printing import printable
from probes.results.cells import BESIDE, NO_LAYER
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.views.language_names import language_names
from probes.views.style import Widths, checked_width

Names = str | Sequence[str] | None
# Of the models beside the baseline, in their order, as in the explorer.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c4619a", "#d18f00", "#3d9fd8")
_DASHES = ((3.5, 1.5), (1, 1.5), (4.5, 1.5, 1, 1.5), (2, 1), (6, 1.5), (0.5, 1))
_MARKERS = "s^DvPX"
_EDGE = 4.0  # points that are left free beside texts
_CLOSE = 2.7  # inches that a panel needs where the width of a figure is given


class Shows(TypedDict, total=False):
    """What all figures can be told: see `Comparison.plot`."""

    ax: Axes | None
    models: str | Sequence[str] | None
    layers: int | Sequence[int] | None
    width: float | None
    caption: bool


class Shown(Figure):
    """A figure that a notebook shows by itself: made without pyplot, it opens no window and leaves
    no state. In PDF and PostScript its letters are TrueType, as journals ask for.
    """

    letters = False  # whether they are text in SVG too, and no outlines
    fits = True  # whether no text is wider than there is room; of a width that was asked for it is made so

    def draw(self, renderer: Any) -> None:
        """Draw the figure, as matplotlib does, its texts in as many lines as its width asks for."""
        if not self.fits:
            self.fits = True
            fit(self, renderer)
        super().draw(renderer)

    def savefig(self, *given: Any, **settings: Any) -> None:
        """Save the figure, as matplotlib does."""
        letters: dict[Any, Any] = {"pdf.fonttype": 42, "ps.fonttype": 42}
        with matplotlib.rc_context(letters | ({"svg.fonttype": "none"} if self.letters else {})):
            super().savefig(*given, **settings)

    def _repr_png_(self) -> bytes:
        import io

        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def models_of(comparison: Table, models: Names, *, others: bool = False) -> list[str]:
    """Return the models that are asked for, in the order of the table; raise `InputError` where one
    was not measured.

    Args:
        comparison: what is drawn.
        models: a name or several; by default all.
        others: leave the baseline out.
    """
    known = [m for m in comparison.provenance["models"] if not others or m != comparison.baseline]
    asked = _several(models)
    for name in asked or ():
        if name not in known:
            beside = " beside the baseline" if others else ""
            raise InputError(f"no model {name!r}{beside}; there are {', '.join(map(repr, known))}")
    return known if asked is None else [m for m in known if m in asked]


def chosen(
    rows: pd.DataFrame, models: Sequence[str], languages: Names, layers: int | Sequence[int] | None
) -> pd.DataFrame:
    """Return the rows of some models, languages and layers; what has no layer stays.

    Raises:
        InputError: there are none of a language or a layer.
    """
    rows = rows[rows["model"].isin(models)]
    asked = _several(languages)
    for name in asked or ():
        if name not in set(rows["language"]):
            known = dict.fromkeys(rows["language"])
            raise InputError(f"no values for language {name!r}; there are {', '.join(map(repr, known))}")
    if asked is not None:
        rows = rows[rows["language"].isin(asked)]
    if layers is not None:
        wanted = [layers] if isinstance(layers, int) else list(layers)
        there = sorted({int(x) for x in rows["layer"]} - {NO_LAYER})
        for layer in wanted:
            if there and layer not in there:
                raise InputError(f"no values for layer {layer!r}; there are {', '.join(map(str, there))}")
        rows = rows[rows["layer"].isin([*wanted, NO_LAYER])]
    return rows


def called(codes: Sequence[str]) -> list[str]:
    """Return languages as figures name them."""
    known = [x for x in codes if x != POOLED]
    names = dict(zip(known, language_names(known), strict=True)) | {POOLED: "all together"}
    return [printable(names[x]) for x in codes]


def stands_for(comparison: Table) -> str:
    """Return what a language of a comparison is: a language, or what its states say of themselves."""
    return printable(comparison.provenance["models"][comparison.baseline].get("languages_are", "language"))


def look(comparison: Table, model: str) -> dict[str, Any]:
    """How the line of a model looks, whichever others are drawn: see `look_among`."""
    return look_among(list(comparison.provenance["models"]), comparison.baseline, model)


def look_among(models: Sequence[str], baseline: str, model: str) -> dict[str, Any]:
    """How the line of a model looks: the baseline in the colour of text, solid and above the others;
    each of the others with a colour, dashes and a marker of its own.
    """
    if model == baseline:
        return {"color": matplotlib.rcParams["text.color"], "linestyle": "-", "marker": "o", "zorder": 4}
    place = [m for m in models if m != baseline].index(model)
    dashes, marker = _DASHES[place % len(_DASHES)], _MARKERS[place % len(_MARKERS)]
    return {"color": _COLOURS[place % len(_COLOURS)], "linestyle": (0, dashes), "marker": marker, "zorder": 3}


def panels(
    heights: Sequence[float], ax: Axes | None, width: float | None, *, each: float = 4.2, most: int = 3
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row, or the figure of the one that was given.

    Args:
        heights: of the panels, in inches; a row is as high as its highest.
        ax: a panel that is there already, for a figure of one panel.
        width: of the figure in inches; by default `each` a panel, `most` of them side by side.
        each, most: see width.

    Raises:
        InputError: a panel was given and there are several to draw; the width is no width.
    """
    if ax is not None:
        if len(heights) != 1:
            raise InputError(
                f"ax= takes one panel, and this figure has {len(heights)}. Choose one by probe, models= or languages="
            )
        if width is not None:
            raise InputError("width= is of a figure of its own: with ax= the size is that of your figure")
        figure = ax.get_figure()
        assert isinstance(figure, Figure)
        return figure, [ax]
    width = Widths.default if width is None else checked_width(width)
    most = most if width is None else max(1, min(most, int(width / _CLOSE)))
    columns = min(most, len(heights))
    rows = [max(heights[at : at + columns]) for at in range(0, len(heights), columns)]
    size = (each * columns if width is None else width, sum(rows) + 0.7)
    figure = Shown(figsize=size, layout="constrained")
    figure.fits, figure.letters = width is None, Widths.default is not None
    grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": rows})
    axes = grid.ravel().tolist()
    for axis in axes[len(heights) :]:
        axis.remove()
    return figure, axes[: len(heights)]


def fit(figure: Figure, renderer: Any) -> None:
    """Break titles, labels, legends and the sentence below into lines that no edge cuts."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)  # settles where the panels are
    room = figure.bbox.width - _EDGE * figure.dpi / 72

    def broken(text: Text, wide: float) -> None:
        said = " ".join(text.get_text().split())
        text.set_text("\n".join(_lines(said, wide, text.get_fontproperties(), renderer)))

    for axis in figure.axes:
        spec = axis.get_subplotspec()
        columns, column = (spec.get_gridspec().ncols, spec.colspan.start) if spec else (1, 0)
        left, right = (figure.bbox.width * at / columns for at in (column, column + 1))
        middle = (axis.bbox.x0 + axis.bbox.x1) / 2
        broken(axis.title, 2 * min(middle - left, right - middle) - _EDGE * figure.dpi / 72)
        broken(axis.yaxis.label, axis.bbox.height)
    for text in figure.texts:  # the sentence below, and the title above
        broken(text, room)
    for legend in list(figure.legends):
        _narrowed(figure, legend, room, renderer)


def _narrowed(figure: Figure, legend: Legend, room: float, renderer: Any) -> None:
    """Put a legend above the panels in so many columns as there is room for."""
    texts = legend.get_texts()
    if legend.get_window_extent(renderer).width <= room or not texts:
        return
    font = texts[0].get_fontproperties()
    points = font.get_size_in_points() * figure.dpi / 72
    beside = points * (legend.handlelength + legend.handletextpad + legend.columnspacing)
    labels = ["\n".join(_lines(t.get_text(), room - beside, font, renderer)) for t in texts]
    widest = max(
        renderer.get_text_width_height_descent(line, font, ismath=False)[0]
        for label in labels
        for line in label.split("\n")
    )
    handles = [h for h in legend.legend_handles if h is not None]
    legend.remove()
    columns = max(1, int((room + points * legend.columnspacing) / (widest + beside)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, prop=font)


def _lines(text: str, wide: float, font: FontProperties, renderer: Any) -> list[str]:
    """A text in lines that are not wider than so many pixels, long words cut where they must be."""

    def fits(line: str) -> bool:
        return bool(renderer.get_text_width_height_descent(line, font, ismath=False)[0] <= wide)

    lines: list[str] = []
    for word in text.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
            continue
        while not fits(word) and len(word) > 1:
            most = next((n for n in range(len(word) - 1, 1, -1) if fits(word[:n])), 1)
            at = max(word.rfind(sign, 0, most) for sign in "-_/.") + 1 or most
            lines.append(word[:at])
            word = word[at:]
        lines.append(word)
    return lines


def inches(axis: Axes) -> float:
    """About how wide a panel is, before it is laid out."""
    figure = axis.get_figure()
    assert isinstance(figure, Figure)
    columns = axis.get_subplotspec().get_gridspec().ncols if axis.get_subplotspec() else 1  # type: ignore[union-attr]
    return float(figure.get_figwidth()) / columns


def wrapped(text: str, width: float, size: str | float) -> str:
    """Return a text in lines that are not longer than a width in inches, at a size of letters."""
    points = FontProperties(size=size).get_size_in_points()
    return "\n".join(textwrap.wrap(text, max(12, int(width * 72 / (0.52 * points))))) if text else text


def titled(axis: Axes, text: str) -> None:
    """Put a title over a panel, in as many lines as its width asks for."""
    axis.set_title(wrapped(text, inches(axis) - 0.3, matplotlib.rcParams["axes.titlesize"]))


def tidy(axis: Axes, *, grid: str = "both") -> None:
    """Take the upper and the right line off a panel, and lay a faint grid below what is drawn."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, axis=grid, alpha=0.35)  # type: ignore[arg-type]
    axis.set_axisbelow(True)


def layered(axis: Axes, label: str) -> None:
    """Say that the horizontal axis counts layers, with ticks at whole numbers."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_xlabel(label)


def finish(figure: Figure, axes: Sequence[Axes], names: Iterable[str], comparison: Table, *, given: bool) -> None:
    """Say which model is which: above the panels, or within the one that was given."""
    handles = []
    for name in names:
        style = {k: v for k, v in look(comparison, name).items() if k != "zorder"}
        handles += axes[0].plot([], [], label=printable(name), **style)
    if given:
        axes[0].legend(handles=handles, frameon=False, fontsize="small")
        return
    size = FontProperties(size=matplotlib.rcParams["legend.fontsize"]).get_size_in_points()
    longest = max(len(str(h.get_label())) for h in handles)
    columns = int(figure.get_figwidth() * 72 / ((0.55 * longest + 4.5) * size))
    figure.legend(
        handles=handles, loc="outside upper center", ncols=max(1, min(len(handles), columns, 6)), frameon=False
    )


def captioned(figure: Figure, text: str) -> None:
    """Put a sentence below the panels, in as many lines as it needs."""
    figure.supxlabel(wrapped(text, figure.get_figwidth() - 0.1, "small"), fontsize="small")


def placed(rows: pd.DataFrame) -> tuple[pd.Series, bool]:
    """Return where the layers of one model stand: beside those of the baseline, where each has one
    of its own, and whether that is another place than its number.
    """
    if BESIDE in rows and (rows[BESIDE] != NO_LAYER).all() and rows[BESIDE].is_unique:
        return rows[BESIDE], bool((rows[BESIDE] != rows["layer"]).any())
    return rows["layer"], False


def _several(names: Names) -> list[str] | None:
    return [names] if isinstance(names, str) else None if names is None else list(names)
