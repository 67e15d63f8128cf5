"""Tables for papers: values with their intervals, marked where they differ from the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from probes.errors import InputError, check_choice
from probes.results.cells import NO_LAYER
from probes.results.draws import POOLED
from probes.results.intervals import CONFIDENCE
from probes.results.table import Table
from probes.views.language_names import language_names

# Of one probe alone, so that a reader need not know more to a number than its row says.
_KEYS = ["probe", "model"]


def as_markdown(
    table: Table | Mapping[str, Table],
    probes: Sequence[str] | None,
    layer: int | None,
    languages: Sequence[str] | None,
    digits: int,
    models: Sequence[str] | None = None,
) -> str:
    """Return a table of Markdown, by default of all models; of several corpora with a first column
    that says which. The other arguments are those of `Comparison.to_markdown`.
    """
    frame = _frame(table, probes, layer, languages, digits, "\\*", models)
    names, frame = frame.index.nlevels, frame.reset_index()
    lines = [
        [str(c) for c in frame],
        [":--"] * names + ["--:"] * (frame.shape[1] - names),
        *frame.astype(str).to_numpy().tolist(),
    ]
    escaped = [lines[0], lines[1], *([plain(cell) for cell in line[:names]] + line[names:] for line in lines[2:])]
    rows = [f"| {' | '.join(line)} |" for line in escaped]
    return "\n".join([*rows, "", _caption(table, layer).replace("*", "\\*"), ""])


def as_latex(
    table: Table | Mapping[str, Table],
    probes: Sequence[str] | None,
    layer: int | None,
    languages: Sequence[str] | None,
    digits: int,
    label: str | None,
) -> str:
    """Return a table of LaTeX (booktabs), of several corpora with a first column that says which; the
    arguments are those of `Comparison.to_latex`.
    """
    frame = _frame(table, probes, layer, languages, digits, "$^{*}$")
    style = frame.style.format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    caption = _caption(table, layer)
    for sign in "&%$#_{}":
        caption = caption.replace(sign, f"\\{sign}")
    return style.to_latex(
        hrules=True,
        caption=caption.replace("*", "$^{*}$"),
        label=label,
        column_format="l" * frame.index.nlevels + "r" * frame.shape[1],
        multirow_align="t",
        position_float="centering",
    )


def _frame(table: Table | Mapping[str, Table], *asked: Any) -> pd.DataFrame:
    """Texts of values as they are shown: a row a probe and model, or a corpus, probe and model, and a
    column a language.
    """
    if isinstance(table, Table):
        wide = _texts(table, *asked)
    else:
        frames = {}
        for corpus, one in table.items():
            try:
                frames[corpus] = _texts(one, *asked)
            except InputError as error:
                raise InputError(f"corpus {corpus!r}: {error}") from error
        wide = pd.concat(frames, names=["corpus"]).fillna("")
    codes = [c for c in wide if c != POOLED]
    names = dict(zip(codes, language_names(codes), strict=True)) | {POOLED: "all"}
    return wide.rename(columns=names).rename_axis(columns=None)


def _texts(
    table: Table,
    probes: Sequence[str] | None,
    layer: int | None,
    languages: Sequence[str] | None,
    digits: int,
    star: str,
    models: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Texts of values, a row a probe and model and a column a code of a language."""
    if type(digits) is not int or not 0 <= digits <= 10:
        raise InputError(f"digits={digits!r}: expected a whole number of 0 to 10, of decimal places")
    for name, given in (("probes", probes), ("languages", languages)):
        if isinstance(given, str) or (given is not None and not given):
            raise InputError(f"{name}={given!r}: expected a list of names")
    flat = [p for p in table.provenance["probes"] if not table.is_map(p)]
    for probe in probes or ():
        check_choice("probes", probe, flat)
    rows = table.to_dataframe().assign(mark=table.marks() < 1 - CONFIDENCE)
    known = rows["language"].unique().tolist()
    for language in languages or ():
        check_choice("languages", language, known)
    wanted = list(languages) if languages else sorted(known, key=lambda code: code != POOLED)
    rows = rows[rows["probe"].isin(flat if probes is None else list(probes)) & rows["language"].isin(wanted)]
    if models is not None:
        rows = rows[rows["model"].isin(models)]
    last = rows.groupby(_KEYS)["layer"].transform("max")
    here = (rows["layer"] == last) if layer is None else rows["layer"].isin([layer, NO_LAYER])
    rows = rows[here]
    if rows.empty:
        raise InputError(f"layer={layer!r}: no model has values there")
    text = [
        "" if pd.isna(row.value) else _with_interval(row, digits) + (star if row.mark else "")
        for row in rows.itertuples()
    ]
    order = {key: i for i, key in enumerate(probes or flat)}
    places_of = {name: i for i, name in enumerate(table.table["model"].unique())}
    wide = rows.assign(text=text).pivot(index=_KEYS, columns="language", values="text").fillna("")
    places = sorted(wide.index, key=lambda key: (order[key[0]], places_of[key[1]]))
    wide = wide.loc[places, [language for language in wanted if language in wide]]
    titles = {name: about["title"] for name, about in table.provenance["probes"].items()}
    return wide.rename(index=titles, level=0)


def _with_interval(row: object, digits: int) -> str:
    value, low, high = (getattr(row, name) for name in ("value", "low", "high"))
    text = f"{value:.{digits}f}"
    return text if pd.isna(low) or pd.isna(high) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def plain(text: str) -> str:
    """A name as Markdown shows it."""
    for sign in "\\|*_`<[":
        text = text.replace(sign, f"\\{sign}")
    return text


def _caption(table: Table | Mapping[str, Table], layer: int | None) -> str:
    if not isinstance(table, Table):  # one for all corpora, where it says the same of all
        each = {corpus: _caption(one, layer) for corpus, one in table.items()}
        alike = len(set(each.values())) == 1
        return " ".join(dict.fromkeys(said if alike else f"{corpus}: {said}" for corpus, said in each.items()))
    where = "At the last layer of each model" if layer is None else f"At layer {layer}"
    return (
        f"{where}, with {CONFIDENCE:.0%} intervals by {table.provenance['draws']} bootstrap draws of "
        f"{table.provenance['drawn']}. * differs from {table.baseline} (p < {1 - CONFIDENCE:.2f}, max-T over layers "
        "and languages)."
    )
