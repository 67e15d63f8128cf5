"""What holds on every corpus: the verdicts of one comparison on each of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from probes.errors import InputError
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.results.verdict import SAFE, Verdict, verdict

DIFFERS = "differs"  # lost on one corpus, and shown not to be on another
# Of a model, the worst first.
STATES = ("lost", DIFFERS, "cannot tell", "kept")


@dataclass(frozen=True)
class Agreement:
    """What verdicts on several corpora say together; `print` it for the words.

    Attributes:
        models: a row a model and judged measure: `model, probe`, `state`, what holds on every corpus
            ("lost", "kept", "differs": lost on one and kept on another, or "cannot tell"), and the
            state `on ...` each corpus.
        languages: a row a model, measure and language that is in every corpus by its code, and
            `pooled` for all of each together; columns likewise; `state` may also be "gained" or
            "not lost".
        corpora: the verdict on each corpus, by name.
        words: the same in words.
    """

    models: pd.DataFrame
    languages: pd.DataFrame
    corpora: dict[str, Verdict]
    words: str = ""

    def state(self, model: str) -> str:
        """Return what holds of a model: the worst of its judged measures."""
        return min(self.models.loc[self.models["model"] == model, "state"], key=STATES.index)

    def order(self) -> list[str]:
        """Return the models, the worst first; those of one state as they were given."""
        return sorted(map(str, dict.fromkeys(self.models["model"])), key=lambda model: STATES.index(self.state(model)))

    def __str__(self) -> str:
        return self.words

    __repr__ = __str__


def agreement(
    tables: Mapping[str, Table], *, judge: Sequence[str] | None = None, tolerance: Mapping[str, float] | None = None
) -> Agreement:
    """Return what holds on every corpus.

    Args:
        tables: a comparison of the same models on each corpus, by name.
        judge, tolerance: as in `verdict`; by default the measures by which each would be judged, or
            else those that all have.

    Raises:
        InputError: as `verdict`; no measure can be judged on every corpus.

    Notes:
        "lost" and "kept" are said where each corpus says so by itself. Said of one model and language,
        that is wrong in at most 5 % of corpora without being adjusted for their number, since each
        would have to be (Berger, 1982, an intersection of tests); said of any of many, in at most
        5 % for each corpus. What one corpus alone says is wrong more often the more there are.
    """
    found = {name: _of_one(name, table, judge, tolerance) for name, table in tables.items()}
    if judge is None:
        judge = _judged_by_all(tables, found, tolerance or {})
        kept = {probe: limit for probe, limit in (tolerance or {}).items() if probe in judge}
        found = {name: _of_one(name, table, judge, kept) for name, table in tables.items()}
    models = _together({name: one.models for name, one in found.items()}, ["model", "probe"])
    languages = _together({name: one.languages for name, one in found.items()}, ["model", "probe", "language"])
    return Agreement(models, languages, found)


def on_all(states: Sequence[str]) -> str:
    """Return what holds where single corpora say these.

    Example:
        >>> on_all(["lost", "lost"]), on_all(["lost", "kept"]), on_all(["lost", "cannot tell"])
        ('lost', 'differs', 'cannot tell')
        >>> on_all(["kept", "gained"])
        'not lost'
    """
    if len(set(states)) == 1 and states[0] != "no value":
        return states[0]
    if all(state in SAFE for state in states):
        return "not lost"
    if "lost" in states and any(state in SAFE for state in states):
        return DIFFERS
    return "cannot tell"


def common_languages(tables: Mapping[str, Table]) -> list[str]:
    """Return the languages that every corpus has, by their codes, in the order of the first."""
    there = [dict.fromkeys(table.table["language"]) for table in tables.values()]
    return [str(x) for x in there[0] if x != POOLED and all(x in other for other in there)]


def _of_one(name: str, table: Table, judge: Sequence[str] | None, tolerance: Mapping[str, float] | None) -> Verdict:
    try:
        return verdict(table, judge=judge, tolerance=tolerance)
    except InputError as error:
        raise InputError(f"corpus {name!r}: {error}") from error


def _judged_by_all(
    tables: Mapping[str, Table], found: Mapping[str, Verdict], tolerance: Mapping[str, float]
) -> list[str]:
    by_each = [list(dict.fromkeys(one.models["probe"])) for one in found.values()]
    judge = [probe for probe in by_each[0] if all(probe in other for other in by_each)]
    if judge:
        return judge
    about = [table.provenance["probes"] for table in tables.values()]
    known = [p for p in about[0] if about[0][p].get("tolerance") is not None or p in tolerance]
    judge = [p for p in known if all(p in other for other in about) and not any(t.is_map(p) for t in tables.values())]
    if not judge:
        each = "; ".join(f"{name} by {', '.join(by)}" for name, by in zip(tables, by_each, strict=True))
        raise InputError(f"no measure can be judged on every corpus ({each}): say one that all have, judge=[...]")
    return judge


def _together(frames: Mapping[str, pd.DataFrame], keys: list[str]) -> pd.DataFrame:
    """The states on each corpus side by side, and what holds on all, in the order of the first."""
    sides = [frame.set_index(keys)["state"].rename(f"on {name}") for name, frame in frames.items()]
    wide = pd.concat(sides, axis=1, join="inner").loc[lambda t: t.notna().all(axis=1)]
    order = [key for key in sides[0].index if key in wide.index]
    wide = wide.loc[order]
    states = [on_all(row) for row in wide.to_numpy().tolist()]
    wide.insert(0, "state", states)
    return wide.reset_index()
