"""Comparisons on several corpora side by side: what holds on each, in words, in figures and on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import markupsafe
import numpy as np
import pandas as pd

from probes.errors import InputError
from probes.printing import printable
from probes.remote import Address
from probes.results.agreed import DIFFERS, Agreement, agreement, common_languages
from probes.results.agreed import STATES as TOGETHER
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.views import figures
from probes.views.drawing import Names, Shows, captioned, models_of, panels, titled
from probes.views.language_names import language_names
from probes.views.ranking import ranking as ranking_of
from probes.views.reading import as_change, read
from probes.views.report import image, own_file, page_of, write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 5  # languages that a sentence names
_ROW = 0.18  # inches a language


class Reading(NamedTuple):
    """What is said of a model on all corpora."""

    model: str
    state: str
    sentences: list[str]


def readings(found: Agreement, tables: Mapping[str, Table]) -> list[Reading]:
    """Return what is said of each model, the worst first."""
    said = []
    for model in found.order():
        sentences = []
        for row in found.models[found.models["model"] == model].itertuples():
            sentences.append(_of_measure(found, tables, model, str(row.probe), str(row.state)))
        said.append(Reading(model, found.state(model), sentences))
    return said


def in_words(found: Agreement, tables: Mapping[str, Table]) -> str:
    """Return what holds on all corpora as text, and the verdict on each below it."""
    said = readings(found, tables)
    wide = max((len(printable(one.model)) for one in said), default=0)
    longest = max(map(len, TOGETHER))
    lines = [f"on {', '.join(map(printable, tables))}:"]
    for one in said:
        begins = f"{printable(one.model):{wide}}  {one.state.upper():{longest}}"
        first, *more = map(printable, one.sentences)
        lines.append(f"{begins}  {first}")
        lines += [f"{'':{len(begins)}}  {sentence}" for sentence in more]
    for name, table in tables.items():
        lines.append(f"on {printable(name)} alone:")
        of_each, notes = read(found.corpora[name], table)
        for reading in of_each:
            begins = f"{printable(reading.model):{wide}}  {reading.state.upper():{longest}}"
            lines += [f"{begins}  {printable(sentence)}" for sentence in reading.sentences[:1]]
            lines += [f"{'':{len(begins)}}  {printable(sentence)}" for sentence in reading.sentences[1:]]
        lines += [f"note: {printable(note)}" for note in notes]
    return "\n".join(lines)


def _of_measure(found: Agreement, tables: Mapping[str, Table], model: str, probe: str, state: str) -> str:
    """A sentence: the states on each corpus, and the languages that are lost on all, or on some alone."""
    rows = found.languages[(found.languages["model"] == model) & (found.languages["probe"] == probe)]
    alone = rows[rows["language"] != POOLED]
    about = next(iter(tables.values())).provenance["probes"][probe]
    mine = found.models[(found.models["model"] == model) & (found.models["probe"] == probe)].iloc[0]
    each = ", ".join(f"{mine[f'on {name}']} on {name}" for name in tables)
    said = [f"{about['title']}: {each if state in (DIFFERS, 'cannot tell') else f'{state} on each'}"]
    codes = [str(code) for code in alone["language"]]
    names = dict(zip(codes, language_names(codes), strict=True))
    share = bool(about.get("share"))

    def amounts(code: str) -> str:
        """What a language lost on each corpus."""
        changes = []
        for one in found.corpora.values():
            own = one.languages[(one.languages["model"] == model) & (one.languages["probe"] == probe)]
            changes.append(as_change(float(own.loc[own["language"] == code, "difference"].iloc[0]), share))
        return f"{names[code]} ({', '.join(changes)})"

    for what, there in (("on each of them", "lost"), ("they differ on", DIFFERS)):
        of_state = [str(code) for code in alone.loc[alone["state"] == there, "language"]]
        if of_state:
            more = f" and {len(of_state) - _MOST} more" if len(of_state) > _MOST else ""
            said.append(f"{what}: {', '.join(map(amounts, of_state[:_MOST]))}{more}")
    safe = int(alone["state"].isin(["kept", "gained", "not lost"]).sum())
    said.append(f"{safe} of {len(alone)} languages that all have are shown not to be lost on any")
    return "; ".join(said)


def curves(
    tables: Mapping[str, Table], probe: str | None, languages: Names, simultaneous: bool, shown: Shows
) -> Figure:
    """Draw layer curves, a row a probe and a column a corpus; see `Comparisons.plot`."""
    _alone(shown)
    names = _probes(tables, probe)
    first = next(iter(tables.values()))
    if probe is not None and any(t.is_map(probe) for t in tables.values()):
        names, models = [probe], models_of(first, shown.get("models"))
        size = max(t.table.loc[t.table["probe"] == probe, "layer"].nunique() for t in tables.values())
        return _grid(
            tables,
            [(m, 0.8 + _ROW * max(size, 4)) for m in models],
            lambda t, m, ax: figures.maps(t, probe, languages, **_inner(shown, ax, models=[m])),
            shown,
            "a column a corpus",
            each=3.6,
            same="",
        )
    heights = []
    for name in names:
        rows = first.table[first.table["probe"] == name]
        count = max(t.table.loc[t.table["probe"] == name, "language"].nunique() for t in tables.values())
        tall = 0.7 + count * (0.12 + 0.055 * len(first.provenance["models"]))
        heights.append((name, tall if (rows["layer"] < 0).all() else 3.0))
    return _grid(
        tables,
        heights,
        lambda t, p, ax: figures.curves(t, [p], languages, simultaneous=simultaneous, **_inner(shown, ax)),
        shown,
        "a column a corpus; " + ("bands: 95 % for all layers at once" if simultaneous else "95 % bootstrap intervals"),
        each=4.2,
        same="y",
    )


def change(tables: Mapping[str, Table], probe: str, languages: Names, shown: Shows) -> Figure:
    """Draw what changed, a row a model and a column a corpus; see `Comparisons.plot_change`."""
    _alone(shown)
    for name, table in tables.items():
        if probe not in table.provenance["probes"]:
            table.names(probe)
        if not table.has_difference(probe):
            raise InputError(f"corpus {name!r}: {probe} has no differences that a map of languages by layers can show")
    first = next(iter(tables.values()))
    largest = 0.0
    for table in tables.values():
        differences = table.table.loc[table.table["probe"] == probe, "difference"].to_numpy(float)
        largest = max(largest, float(np.nanmax(np.abs(differences), initial=0.0)))
    size = max(t.table.loc[t.table["probe"] == probe, "language"].nunique() for t in tables.values())
    models = models_of(first, shown.get("models"), others=True)
    return _grid(
        tables,
        [(m, 0.8 + _ROW * max(size, 4)) for m in models],
        lambda t, m, ax: figures.change(t, probe, languages, ends=largest or 1.0, **_inner(shown, ax, models=[m])),
        shown,
        "a column a corpus; • p < 0.05 adjusted over layers and languages of one",
        each=4.0,
        same="",
    )


def ranking(tables: Mapping[str, Table], found: Agreement, probe: str | None, languages: Names, shown: Shows) -> Figure:
    """Draw what each language lost, a row a model and a column a corpus; see
    `Comparisons.plot_languages`.
    """
    _alone(shown)
    first = next(iter(tables.values()))
    judged = list(dict.fromkeys(found.models["probe"]))
    if probe is not None and probe not in judged:
        raise InputError(f"probe {probe!r} is not judged on every corpus; judged are {', '.join(map(repr, judged))}")
    probe = judged[0] if probe is None else probe
    size = max(t.table.loc[t.table["probe"] == probe, "language"].nunique() for t in tables.values())
    wanted = models_of(first, shown.get("models"), others=True)
    names = {id(table): name for name, table in tables.items()}
    return _grid(
        tables,
        [(m, 0.8 + 0.16 * (size + 1)) for m in found.order() if m in wanted],
        lambda t, m, ax: ranking_of(found.corpora[names[id(t)]], t, probe, languages, **_inner(shown, ax, models=[m])),
        shown,
        f"change of {first.provenance['probes'][probe]['title']}, left is loss; each end of the intervals holds for "
        "all of one corpus at once in 95 % of corpora; the grey band is tolerated",
        each=2.9,
        same="x",
    )


def write(tables: Mapping[str, Table], path: Address) -> Address:
    """Write the page; an earlier report at the path is replaced, any other file is left alone.

    Raises:
        InputError: there is a file at the path that is no report.
    """
    return write_page(lambda: _page(tables), path)


def _page(tables: Mapping[str, Table]) -> str:
    environment = jinja2.Environment(loader=jinja2.PackageLoader("probes", "views"), autoescape=True)
    found, unjudged = _agreement(tables)
    first = next(iter(tables.values()))
    flat = [p for p in _probes(tables, None, needed=False) if (first.table["probe"] == p).any()]
    judged = [] if found is None else list(dict.fromkeys(found.models["probe"]))
    return environment.get_template("several.html.jinja").render(
        corpora=list(tables),
        models=list(first.provenance["models"]),
        readings=[] if found is None else readings(found, tables),
        unjudged=unjudged if len(first.provenance["models"]) > 1 else "",
        common=common_languages(tables),
        languages=[] if found is None else _named(found.languages).to_dict("records"),
        rankings={} if found is None else {p: image(ranking(tables, found, p, None, {})) for p in judged},
        curves=image(curves(tables, None, None, False, {})) if flat else "",
        pages={name: page_of(table) for name, table in tables.items()},
        style=markupsafe.Markup(own_file("report.css")),  # of this package
    )


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    codes = [str(code) for code in dict.fromkeys(rows["language"]) if code != POOLED]
    names = dict(zip(codes, language_names(codes), strict=True)) | {POOLED: "all together"}
    return rows.assign(language=rows["language"].map(names))


def _agreement(tables: Mapping[str, Table]) -> tuple[Agreement | None, str]:
    try:
        return agreement(tables), ""
    except InputError as error:
        return None, str(error)


def _probes(tables: Mapping[str, Table], probe: str | None, *, needed: bool = True) -> list[str]:
    """The probes that are drawn: one, or all that every corpus has and that are no maps."""
    if probe is not None:
        for name, table in tables.items():
            if probe not in table.provenance["probes"]:
                there = ", ".join(map(repr, table.provenance["probes"]))
                raise InputError(f"corpus {name!r}: probe {probe!r} was not measured; there are {there}")
        return [probe]
    first, *others = tables.values()
    found = [p for p in first.provenance["probes"] if all(p in t.provenance["probes"] for t in others)]
    found = [p for p in found if not any(t.is_map(p) for t in tables.values())]
    if needed and not found:
        raise InputError("no probe that has curves was measured on every corpus: say which to draw")
    return found


def _alone(shown: Shows) -> None:
    if shown.get("ax") is not None:
        raise InputError("ax= takes one panel, and this figure has one a corpus: draw comparisons[...] into it")


def _inner(shown: Shows, ax: Axes, **more: Any) -> Any:
    """What is said to the figure of one panel."""
    kept = {k: v for k, v in shown.items() if k in ("models", "layers")}
    return {**kept, **more, "ax": ax}


def _grid(
    tables: Mapping[str, Table],
    rows: Sequence[tuple[str, float]],
    draw: Callable[[Table, str, Axes], Any],
    shown: Shows,
    said: str,
    *,
    each: float,
    same: str,
) -> Figure:
    """A panel each row and corpus: all of a row on one scale, one legend."""
    heights = [height for _, height in rows for _ in tables]
    figure, axes = panels(heights, None, shown.get("width"), each=each, most=len(tables))
    looks: dict[str, Any] = {}  # what stands for what, of all panels
    for number, (what, _) in enumerate(rows):
        row = axes[number * len(tables) : (number + 1) * len(tables)]
        for axis, (name, table) in zip(row, tables.items(), strict=True):
            draw(table, what, axis)
            titled(axis, f"{printable(name)}: {axis.get_title().replace(chr(10), ' ')}")
            if (legend := axis.get_legend()) is not None:
                texts = [text.get_text() for text in legend.get_texts()]
                looks |= dict(zip(texts, legend.legend_handles, strict=True))
                legend.remove()
        if same:
            ends = np.array([getattr(axis, f"get_{same}lim")() for axis in row])
            inverted = ends[0, 0] > ends[0, 1]
            if not inverted:
                for axis in row:
                    getattr(axis, f"set_{same}lim")(ends[:, 0].min(), ends[:, 1].max())
    if looks:
        columns = max(1, min(len(looks), int(figure.get_figwidth() / 1.6)))
        where: Any = {"loc": "outside upper center", "ncols": columns}
        figure.legend(list(looks.values()), list(looks), frameon=False, fontsize="small", **where)
    if shown.get("caption", True):
        captioned(figure, said)
    return figure
