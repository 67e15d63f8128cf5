"""A verdict in words: a line a model, and what stands behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from probes.measures.attribution.causes import SHARES
from probes.measures.catalogue import by_name
from probes.printing import printable
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.results.verdict import SAFE, STATES, Verdict
from probes.views.causes import said_of_causes
from probes.views.language_names import language_names
from probes.views.sizes import Size, sizes

_MOST = 5  # languages that a sentence names


class Reading(NamedTuple):
    """What is said of a model."""

    model: str
    state: str  # of STATES
    sentences: list[str]
    size: Size = Size()


def read(found: Verdict, table: Table) -> tuple[list[Reading], list[str]]:
    """Return what is said of each model, the worst first, and of the comparison as a whole."""
    names, said = _Names(table), sizes(table)
    readings = [
        Reading(
            str(model),
            found.state(str(model)),
            _of_model(rows, found, names)
            + said_of_causes(found, table, str(model), told=names.change, unit=names.unit, called=names.language),
            said.get(str(model), Size()),
        )
        for model, rows in found.models.groupby("model", sort=False)
    ]
    for one in readings:
        if one.size.embeddings:
            one.sentences[-1] += f"; {one.size.embeddings}"
    order = found.order()
    readings.sort(key=lambda one: order.index(one.model))
    high = found.models[found.models["ceiling"]].drop_duplicates("probe")
    return readings, [_of_ceiling(row, found.baseline, names) for row in high.itertuples()]


def in_words(found: Verdict, table: Table) -> str:
    """Return a verdict as text: a line or more a model."""
    readings, notes = read(found, table)
    columns = [(printable(one.model), one.size.stored, one.size.speed, one.state.upper()) for one in readings]
    wide = [max(map(len, column)) for column in zip(*columns, strict=True)]
    wide[-1] = max(map(len, STATES))
    lines = []
    for cells, one in zip(columns, readings, strict=True):
        first, *more = map(printable, one.sentences)
        begins = "  ".join(f"{cell:{width}}" for cell, width in zip(cells, wide, strict=True) if width)
        lines.append(f"{begins}  {first}")
        lines += [f"{'':{len(begins)}}  {sentence}" for sentence in more]
    return "\n".join([*lines, *(f"note: {printable(note)}" for note in notes)])


def as_change(value: float, share: bool) -> str:
    """Return a difference in the units that it is told in: points of a share, or as it is.

    Example:
        >>> as_change(-0.314, True), as_change(0.004, True), as_change(-0.314, False)
        ('-31', '+0.4', '-0.314')
    """
    if not share:
        return f"{value:+.3g}"
    points = 100 * value
    digits = 0 if abs(points) >= 9.95 else 1
    return f"{points:+.{digits}f}"


class _Names:
    """What measures and languages are called."""

    def __init__(self, table: Table) -> None:
        self.about = table.provenance["probes"]
        codes = [str(x) for x in dict.fromkeys(table.table["language"]) if x != POOLED]
        self.languages = dict(zip(codes, language_names(codes), strict=True))

    def title(self, probe: str) -> str:
        return str(self.about[probe]["title"])

    def share(self, probe: str) -> bool:
        return bool(self.about[probe].get("share"))

    def change(self, probe: str, value: float) -> str:
        """A change in the units of `unit`."""
        return as_change(value, self._in_points(probe))

    def unit(self, probe: str) -> str:
        """What a change is of, as "points of retrieval"."""
        return f"points of {self.title(probe)}" if self._in_points(probe) else f"of {self.title(probe)}"

    def language(self, code: str) -> str:
        return self.languages.get(code, code)

    def _in_points(self, probe: str) -> bool:
        return probe in SHARES or self.share(probe)

    def amount(self, probe: str, value: float) -> str:
        """A size in words, as "1 point of retrieval"."""
        if not self.share(probe):
            return f"{value:g} of {self.title(probe)}"
        points = f"{100 * value:g}"
        return f"{points} point{'' if points == '1' else 's'} of {self.title(probe)}"


def _of_ceiling(row: object, baseline: str, names: _Names) -> str:
    """That hardly a change can be seen, and what would show one."""
    probe, base = str(row.probe), float(row.baseline_value)  # type: ignore[attr-defined]
    harder = names.about[probe].get("harder")
    more = (
        f", or {by_name()[harder].title} (--probes {harder}), can" if harder in by_name() else ", or harder ones, can"
    )
    return (
        f"the {names.title(probe)} of {baseline} is {base:.3f}: this corpus cannot show a gain, and hardly a small "
        f"loss. More sentences{more}"
    )


def _of_model(rows: pd.DataFrame, found: Verdict, names: _Names) -> list[str]:
    """The sentences of a model: of its worst measure first."""
    said: list[str] = []
    for row in rows.sort_values("state", key=lambda s: s.map(STATES.index), kind="stable").itertuples():
        every = found.languages
        of_measure = every[(every["model"] == row.model) & (every["probe"] == row.probe)]
        alone, pooled = of_measure[of_measure["language"] != POOLED], of_measure[of_measure["language"] == POOLED]
        say = {"lost": _lost, "kept": _kept, "cannot tell": _open}[str(row.state)]
        said.append(say(row, alone, pooled, names))
        said += _besides(row, alone, names)
    return said


def _lost(row: object, alone: pd.DataFrame, pooled: pd.DataFrame, names: _Names) -> str:
    probe, tolerance = str(row.probe), float(row.tolerance)  # type: ignore[attr-defined]
    lost = alone[alone["state"] == "lost"]
    amount = names.amount(probe, tolerance)
    together = _listed(pooled.assign(language="all languages together"), probe, names)
    if lost.empty:
        return f"{together}: more than {amount}, though of no language alone is that shown"
    begins = row.begins  # type: ignore[attr-defined]
    by = row.begins_by  # type: ignore[attr-defined]
    where = (
        "" if pd.isna(begins) else f"; begins at layer {begins}" + ("" if by == probe else f", by {names.title(by)}")
    )
    of = f"{len(lost)} of {len(alone)} languages" if len(alone) > 1 else "the language"
    return f"{of} lost more than {amount}: {_listed(lost, probe, names)}{where}"


def _kept(row: object, alone: pd.DataFrame, pooled: pd.DataFrame, names: _Names) -> str:
    amount = names.amount(str(row.probe), float(row.tolerance))  # type: ignore[attr-defined]
    of = f"all {len(alone)} languages" if len(alone) > 1 else "the language"
    return f"no more than {amount} lost: shown for {of}"


def _open(row: object, alone: pd.DataFrame, pooled: pd.DataFrame, names: _Names) -> str:
    probe, tolerance = str(row.probe), float(row.tolerance)  # type: ignore[attr-defined]
    amount = names.amount(probe, tolerance)
    without = alone[alone["state"] == "no value"]
    if len(without) == len(alone):
        return f"{names.title(probe)} has no value in any language"
    safe = alone["state"].isin(SAFE).sum()
    open_ = alone[alone["state"] == "cannot tell"]
    said = f"no language is shown to lose more than {amount}, and {safe} of {len(alone)} are shown not to"
    if len(without):
        said += f"; no value: {_named(without['language'], names)}"
    if len(open_):
        more = open_["more"].median()
        which = "it" if len(open_) == 1 else "half of them"
        told = (
            f"no number of sentences would settle {which}: the change is as large as what is tolerated"
            if math.isinf(more)
            else f"about {_rounded(more)} more sentences a language would settle {which}, if all stays as seen"
        )
        listed = "all of them" if len(open_) == len(alone) > 1 else _named(open_["language"], names)
        said += f"; open: {listed} ({told})"
    if len(pooled) and pooled["state"].iloc[0] in SAFE:
        said += f"; shown not to for {_listed(pooled.assign(language='all languages together'), probe, names)}"
    return said


def _besides(row: object, alone: pd.DataFrame, names: _Names) -> list[str]:
    """Gains, and what goes the other way."""
    probe = str(row.probe)  # type: ignore[attr-defined]
    gained = alone[alone["state"] == "gained"].sort_values("difference", ascending=False)
    said = [] if gained.empty else [f"{len(gained)} gained: {_listed(gained, probe, names)}"]
    against = row.against  # type: ignore[attr-defined]
    if against:
        said.append(f"{names.title(against)} rose while {names.title(probe)} fell: {_what_that_means(probe, against)}")
    return said


def _what_that_means(fell: str, rose: str) -> str:
    if "retrieval" in rose:
        return "the languages became more alike, and less useful for the task"
    return "one is no stand-in for the other"


def _listed(rows: pd.DataFrame, probe: str, names: _Names) -> str:
    """Languages with their changes, the first with its interval."""
    share = names.share(probe)
    said = []
    for number, (language, value, low, high) in enumerate(
        rows[["language", "difference", "low", "high"]].itertuples(index=False)
    ):
        ends = f" [{as_change(low, share)}, {as_change(high, share)}]" if number == 0 else ""
        said.append(f"{names.languages.get(language, language)} {as_change(value, share)}{ends}")
    return _and_more(said)


def _named(languages: pd.Series, names: _Names) -> str:
    return _and_more([names.languages.get(language, language) for language in languages])


def _and_more(said: Sequence[str]) -> str:
    more = len(said) - _MOST
    return ", ".join([*said[:_MOST], *([f"and {more} more"] if more > 0 else [])])


def _rounded(count: float) -> str:
    """A number of sentences to one or two digits, as nobody knows it better."""
    scale = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return f"{math.ceil(count / scale) * scale:,}"
