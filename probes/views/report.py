"""One self-contained HTML page: verdict, figures, maps, table, and where the numbers come from."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import markupsafe
import matplotlib
import numpy as np
import pandas as pd

from probes.costs import as_rows
from probes.errors import InputError
from probes.remote import Address, exists, read_at, write_whole_at
from probes.results.calibration import p_text
from probes.results.difference import MARKED, family_in_words
from probes.results.table import Table
from probes.results.verdict import Verdict, verdict
from probes.views.causes import bars
from probes.views.dark import on_dark_pages_too
from probes.views.language_names import language_names
from probes.views.reading import read
from probes.views.report_data import as_json, language_maps
from probes.views.said import sentences_of
from probes.views.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARK = "<!-- layerscope report -->"
_MAP = 3.15  # inches


def write(comparison: Table, path: Address) -> Address:
    """Write the page; an earlier report at the path is replaced, any other file is left alone.

    Raises:
        InputError: there is a file at the path that is no report.
    """
    return write_page(lambda: page_of(comparison), path)


def write_page(page: Callable[[], str], path: Address) -> Address:
    """Write a page that is made once it is known that it can be written; see `write`."""
    check_path(path)
    if isinstance(path, Path) and not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder. Make it, or choose another path")
    with style(width=None):
        text = page()
    write_whole_at(path, text)
    return path


def check_path(path: Address) -> None:
    """Raise `InputError` where there is something at the path that is no earlier report."""
    there = path.exists() if isinstance(path, Path) else exists(path)
    if there and _MARK.encode() not in (read_at(path) or b"")[:200]:
        raise InputError(f"{path} exists and is no layerscope report; it is left as it is. Choose another path")


def page_of(comparison: Table) -> str:
    """Return the page of a comparison."""
    from probes.views.figures import curves, maps
    from probes.views.ranking import ranking

    # Everything is escaped: texts, labels and names come from files of others.
    environment = jinja2.Environment(loader=jinja2.PackageLoader("probes", "views"), autoescape=True)
    environment.filters["n"] = partial(_number, digits=4)
    environment.filters["short"] = partial(_number, digits=3)
    draws = comparison.provenance["draws"]
    environment.filters["chance"] = lambda p: "" if pd.isna(p) else p_text(p, draws)
    flat = [p for p in comparison.provenance["probes"] if not comparison.is_map(p)]
    probes, models = list(comparison.provenance["probes"]), comparison.provenance["models"]
    found, unjudged = _verdict(comparison)
    readings, notes = ([], []) if found is None else read(found, comparison)
    judged = [] if found is None else list(dict.fromkeys(found.models["probe"]))
    by_language = language_maps(comparison)
    wide = _MAP * min(len(models), 4)  # of a row of maps, such that its letters can be read on a page
    return environment.get_template("report.html.jinja").render(
        provenance=comparison.provenance,
        models=list(models),
        settings=list(dict.fromkeys(key for about in models.values() for key in about)),
        marked=family_in_words(MARKED),
        summary=comparison.summary().to_dict("records"),
        readings=readings,
        notes=notes,
        unjudged=unjudged if len(models) > 1 else "",
        rankings={} if found is None else {p: image(ranking(found, comparison, p)) for p in judged},
        costs=as_rows(comparison.models),
        tradeoffs={} if found is None else _tradeoffs(found, comparison),
        curves=image(curves(comparison, flat, None)) if flat else "",
        maps={p: image(maps(comparison, p, None, width=wide)) for p in probes if p not in flat},
        by_language=by_language,
        causes=bars(comparison),
        tokens=sentences_of(comparison.provenance, _names(comparison)),
        data=as_json(comparison, by_language),
        script=markupsafe.Markup(own_file("report.js")),  # of this package, as the style
        style=markupsafe.Markup(own_file("report.css")),
    )


def _names(comparison: Table) -> dict[str, str]:
    """The names of languages, by their codes."""
    codes = [str(x) for x in dict.fromkeys(comparison.table["language"])]
    return dict(zip(codes, language_names(codes), strict=True))


def _tradeoffs(found: Verdict, comparison: Table) -> dict[str, str]:
    """Quality against bytes and time, as far as they were measured."""
    from probes.views.tradeoff import AGAINST, points_of, tradeoff

    probe = str(found.models["probe"].iloc[0])
    there = [a for a in AGAINST if a != "operations" and len(points_of(comparison, probe, a)) > 1]
    return {against: image(tradeoff(found, comparison, probe, against)) for against in there}


def _verdict(comparison: Table) -> tuple[Verdict | None, str]:
    """The verdict, or why there is none."""
    try:
        return verdict(comparison), ""
    except InputError as error:
        return None, str(error)


def own_file(name: str) -> str:
    """Return what is in a file of this package."""
    return files("probes.views").joinpath(name).read_text(encoding="utf-8")


def image(figure: Figure) -> str:
    """Return a figure as a page holds it."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "layerscope"}):  # or ids would differ from run to run
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(on_dark_pages_too(buffer.getvalue()).encode()).decode()


def _number(value: object, digits: int) -> object:
    """Some digits of a number, nothing for a missing one; anything else as it is."""
    if value is None or value is pd.NA:
        return ""
    if not isinstance(value, float | np.floating):
        return value
    return "" if np.isnan(value) else f"{value:#.{digits}g}"
