"""Lost, kept or cannot tell: a reading of a comparison, by what its models are for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from probes.errors import InputError
from probes.results.blame import blamed
from probes.results.calibration import ends
from probes.results.cells import NO_LAYER
from probes.results.draws import POOLED
from probes.results.table import Table

STATES = ("lost", "cannot tell", "kept")  # of a model, the worst first
SAFE = ("kept", "gained", "not lost")  # of a language that is shown not to lose too much
CEILING = 0.98  # from where on a share can hardly rise
_MOST = 1e6  # sentences: nobody has more


@dataclass(frozen=True)
class Verdict:
    """What compression did to what models are for; `print` it for the words.

    Attributes:
        models: a row a model and judged measure: `model, probe, state` ("lost", "kept", "cannot
            tell"), `tolerance`, `layer` and `baseline_layer` (missing at the output), `value` and
            `baseline_value` of all languages together, `begins` (the layer from which a loss stays;
            missing where there is none), `begins_by` (the measure that says so), `against` (a
            measure that rose while this one fell, or ""), `ceiling` (whether the baseline is so
            high that hardly a gain could be seen).
        languages: a row a model, measure and language, and `pooled` for all together, most lost
            first: `state` ("lost", "kept", "gained", "not lost", "cannot tell", "no value"),
            `difference`,
            `low`, `high` (negative is loss, whichever way the measure goes; each end holds for all
            at once in 95 % of corpora), `n` and `more` (how many more sentences would settle it; infinite where none
            would).
        baseline: the model that the others are judged against.
        words: the same in words.
        causes: where `compare(..., patching=True)` ran, a row a model, measure, language that is
            lost, and layer, or `module` of a layer that is named: what its original weights alone
            give back (`gain, low, high`; intervals hold for all at once), of which `damage`, for how
            many more `bytes`, and whether it is `named` as a cause: its interval lies above zero.
    """

    models: pd.DataFrame
    languages: pd.DataFrame
    baseline: str
    words: str = ""
    causes: pd.DataFrame = field(default_factory=pd.DataFrame)

    def state(self, model: str) -> str:
        """Return the state of a model: the worst of its judged measures."""
        return min(self.models.loc[self.models["model"] == model, "state"], key=STATES.index)

    def order(self) -> list[str]:
        """Return the models, the worst first; those of one state as they were given."""
        return sorted(map(str, dict.fromkeys(self.models["model"])), key=lambda model: STATES.index(self.state(model)))

    def __str__(self) -> str:
        return self.words

    __repr__ = __str__


def verdict(
    table: Table, *, judge: Sequence[str] | None = None, tolerance: Mapping[str, float] | None = None
) -> Verdict:
    """Judge every model against the baseline, measure by measure and language by language.

    Of each language the difference at the end of the model (its last layer, or its output) is held
    against what would be tolerated. It is "lost" where its interval lies wholly beyond the
    tolerance, "gained" where it does so on the other side, "kept" where it lies within it (two
    one-sided tests), and otherwise the corpus cannot tell. A model is "lost" where one language is,
    or all of them together; "kept" where each is shown not to lose more than the tolerance; and
    otherwise one cannot tell.

    Args:
        table: a comparison.
        judge: the measures; by default those of a head (accuracy, label loyalty; of language models
            bits per byte and the same top token) where there are any, or else retrieval.
        tolerance: measure -> the largest loss that does not matter; by default what the measure
            declares.

    Raises:
        InputError: there is nothing to judge, or nothing to judge by; a measure was not measured,
            cannot be judged or has no tolerance; a tolerance is none.

    Notes:
        Intervals are of two tests of one side at 5 % each, over models, measures and languages at
        once: in 95 % of corpora all lower ends hold, and in 95 % all upper ones (max-T on the draws
        that all of them share). Half of the 5 % is spent on all languages together, half on single
        ones. So where nothing was lost beyond the tolerance, any language of any model is called
        lost in at most 5 % of corpora; one that lost more is called kept in at most 5 %.
    """
    others = [m for m in table.provenance["models"] if m != table.baseline]
    if not others:
        raise InputError("only one model was measured, so there is nothing to judge. Compare at least two")
    limits = _limits(table, judge, tolerance or {})
    # Report, explorer and command line ask for the same one.
    found: Verdict = table.once(("verdict", *limits.items()), lambda: _found(table, others, limits))
    return found


def _found(table: Table, others: Sequence[str], limits: Mapping[str, float]) -> Verdict:
    cells = pd.concat([_cells(table, model, probe) for probe in limits for model in others], ignore_index=True)
    cells["tolerance"] = cells["probe"].map(limits)
    judged = pd.concat([cells, _judged(table, cells)], axis=1)
    models = [
        _of_model(table, str(model), str(probe), rows, judged)
        for (model, probe), rows in judged.groupby(["model", "probe"], sort=False)
    ]
    judged["pooled"] = judged["language"] == POOLED
    order = ["model", "probe", "pooled", "difference"]
    places = {name: place for place, name in enumerate([*others, *limits])}
    judged = judged.sort_values(order, key=lambda c: c.map(places) if c.name in order[:2] else c, na_position="first")
    columns = ["model", "probe", "language", "state", "difference", "low", "high", "tolerance", "n", "more"]
    judged = judged[columns].reset_index(drop=True)
    causes = blamed(table.provenance.get("causes", {}), judged)
    return Verdict(pd.DataFrame(models), judged, table.baseline, causes=causes)


def states_of(difference: np.ndarray, low: np.ndarray, high: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Return the state of each difference, negative where something is lost.

    Example:
        >>> ends = np.array([[-0.05, -0.02], [-0.005, 0.005], [0.02, 0.05], [-0.05, 0.0]])
        >>> states_of(ends.mean(axis=1), *ends.T, np.full(4, 0.01)).tolist()
        ['lost', 'kept', 'gained', 'cannot tell']
    """
    conditions = [
        ~np.isfinite(difference) | np.isnan(low) | np.isnan(high),
        high < -tolerance,
        low > tolerance,
        (low >= -tolerance) & (high <= tolerance),
        low >= -tolerance,
    ]
    names = ["no value", "lost", "gained", "kept", "not lost"]
    return np.select(conditions, names, "cannot tell").astype(object)


def sentences_needed(
    difference: np.ndarray, low: np.ndarray, high: np.ndarray, tolerance: np.ndarray, n: np.ndarray
) -> np.ndarray:
    """Return how many more sentences would settle a state, by the width that is seen.

    An interval narrows with the root of the number of sentences; it has to become so narrow that it
    lies on one side of the tolerance, around the same difference. Infinite where that takes more
    than a million.

    Example:
        >>> one = np.ones(1)
        >>> sentences_needed(0 * one, -0.02 * one, 0.02 * one, 0.01 * one, 200 * one).tolist()
        [600.0]
    """
    room = np.abs(np.abs(difference) - tolerance)
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = n * np.square((high - low) / 2 / room)
    return np.where(wanted > _MOST, np.inf, np.ceil(np.maximum(wanted - n, 0)))


def _limits(table: Table, judge: Sequence[str] | None, tolerance: Mapping[str, float]) -> dict[str, float]:
    """The measures that are judged, and what each is tolerated to lose."""
    about = table.provenance["probes"]
    for probe, limit in tolerance.items():
        table.names(probe)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not (0 <= limit < math.inf):
            raise InputError(f"tolerance of {probe}: expected a number of at least 0, found {limit!r}")
    declared = {name: about[name].get("tolerance") for name in about} | dict(tolerance)
    if judge is None:
        known = [name for name, limit in declared.items() if limit is not None and not table.is_map(name)]
        heads = [name for name in known if (table.table.loc[table.table["probe"] == name, "layer"] == NO_LAYER).all()]
        judge = [*dict.fromkeys([*(heads or known), *tolerance])]
    if isinstance(judge, str) or not judge:
        raise InputError(
            "there is nothing to judge by: expected accuracy (models with a head, and labels), bits per byte "
            "(decoders), retrieval (a pivot), or judge= and tolerance= for another measure; measured were "
            f"{', '.join(about)}"
        )
    for probe in judge:
        table.names(probe)
        if not about[probe]["better"] or table.is_map(probe):
            raise InputError(
                f"{probe} cannot be judged: more of it is neither better nor worse, or it has more to a number than "
                "layer and language"
            )
        if declared[probe] is None:
            raise InputError(
                f"{probe} has no tolerance of its own: say how much may be lost, tolerance={{{probe!r}: ...}}"
            )
    return {probe: float(declared[probe]) for probe in judge}


def _cells(table: Table, model: str, probe: str) -> pd.DataFrame:
    """Where the differences of a model come from, a row a language: rows of the table."""
    own, base = (at_the_end(table, name, probe) for name in (model, table.baseline))
    compares = table.provenance["probes"][probe]["compares"]
    languages = [x for x in own["language"] if compares or x in set(base["language"])]
    own = own.set_index("language").loc[languages]
    there = base.set_index("language").reindex(languages)
    return pd.DataFrame(
        {
            "model": model,
            "probe": probe,
            "language": languages,
            "layer": own["layer"].to_numpy(),
            "baseline_layer": own["layer"].to_numpy() if compares else there["layer"].to_numpy(),
            "n": own["n"].to_numpy(),
            "row": own["row"].to_numpy(),
            "baseline_row": np.full(len(own), -1) if compares else there["row"].to_numpy(),
        }
    )


def at_the_end(table: Table, model: str, probe: str) -> pd.DataFrame:
    """Return the rows of what a model is used by: its output, or its last layer."""
    rows = table.table[(table.table["model"] == model) & (table.table["probe"] == probe)]
    rows = rows.assign(row=rows.index)
    return rows[rows["layer"] == rows["layer"].max()]


def _judged(table: Table, cells: pd.DataFrame) -> pd.DataFrame:
    """Differences, negative where something is lost, their intervals, and what that says."""
    about = table.provenance["probes"]
    value = table.table["value"].to_numpy(float)
    kept = pd.Series(np.arange(table.draws.sizes["row"]), index=table.draws["row"].values)
    draws, unseen, units = (table.draws[name].values for name in ("draws", "unseen", "units"))
    sign = np.array([{"higher": 1.0, "lower": -1.0}[about[probe]["better"]] for probe in cells["probe"]])
    same = np.array([float(about[probe]["unchanged"] or 0) for probe in cells["probe"]])

    def side(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        alone = rows < 0  # what compares with the baseline itself is held against "nothing has changed"
        at = kept.reindex(rows).fillna(-1).to_numpy(int)
        known = (at >= 0) & ~alone
        drawn = np.where(known[:, None], draws[at], np.where(alone, same, np.nan)[:, None])
        beside = np.where(known, unseen[at], 0.0), np.where(known, units[at], np.inf)
        return np.where(alone, same, value[rows]), drawn, *beside

    own, base = side(cells["row"].to_numpy()), side(cells["baseline_row"].to_numpy())
    gap, moved = sign * (own[0] - base[0]), sign[:, None] * (own[1] - base[1])
    low, high = np.full((2, len(cells)), np.nan)
    at = np.flatnonzero(np.isfinite(gap) & np.isfinite(moved).any(axis=1))
    if len(at):
        scale = np.nanmax(np.abs(own[1][at]), axis=1) + np.nanmax(np.abs(base[1][at]), axis=1)
        unseen, units = (own[2] + base[2])[at], np.minimum(own[3], base[3])[at]
        low[at], high[at] = ends(gap[at], moved[at], scale, unseen, _weights(cells)[at], units)
    tolerance, n = cells["tolerance"].to_numpy(float), cells["n"].to_numpy(float)
    states = states_of(gap, low, high, tolerance)
    more = np.where(np.isin(states, ["cannot tell", "not lost"]), sentences_needed(gap, low, high, tolerance, n), 0.0)
    columns = {"state": states, "difference": gap, "low": low, "high": high}
    return pd.DataFrame(columns | {"more": np.where(states == "no value", np.nan, more)})


def _weights(cells: pd.DataFrame) -> np.ndarray:
    """How much of the error each may take: of a model all languages together as much as all single ones."""
    pooled = (cells["language"] == POOLED).to_numpy()
    single = (~pooled).astype(float)
    count = pd.Series(single).groupby([cells["model"], cells["probe"]]).transform("sum").to_numpy()
    return np.where(pooled, np.maximum(count, 1.0), 1.0)


def _of_model(table: Table, model: str, probe: str, rows: pd.DataFrame, judged: pd.DataFrame) -> dict[str, Any]:
    """What a measure says of a model."""
    safe = rows["state"].isin(SAFE).all()
    state = "lost" if (rows["state"] == "lost").any() else "kept" if safe else "cannot tell"
    first = rows.iloc[0]
    pooled = rows[rows["language"] == POOLED]
    of_all = pooled.iloc[0] if len(pooled) else first
    value = table.table["value"]
    base = float(value[of_all["baseline_row"]]) if of_all["baseline_row"] >= 0 else math.nan
    by, begins = _begins(table, model, probe) if state == "lost" else ("", pd.NA)
    return {
        "model": model,
        "probe": probe,
        "state": state,
        "tolerance": float(first["tolerance"]),
        "layer": first["layer"],
        "baseline_layer": first["baseline_layer"],
        "value": float(value[of_all["row"]]),
        "baseline_value": base,
        "begins": begins,
        "begins_by": by,
        "against": _against(table, model, probe) if state == "lost" else "",
        "ceiling": table.provenance["probes"][probe]["better"] == "higher" and base >= CEILING,
    }


def _begins(table: Table, model: str, probe: str) -> tuple[str, Any]:
    """The first layer from which a loss of all languages together stays, and the measure that says
    so.
    """
    for name in [probe, *_quality(table, without=probe)]:
        rows = _of_all(table, model, name)
        rows = rows[rows["layer"] != NO_LAYER].sort_values("layer", ascending=False)
        found = pd.NA
        for layer, gone in zip(rows["layer"], _loss(table, name, rows), strict=True):
            if not gone:
                break
            found = layer
        if found is not pd.NA:
            return name, found
    return "", pd.NA


def _against(table: Table, model: str, probe: str) -> str:
    """A measure of quality that rose at the end of a model while this one fell."""
    for name in _quality(table, without=probe):
        rows = _of_all(table, model, name)
        if rows.empty:
            continue
        last = rows[rows["layer"] == rows["layer"].max()]
        better = {"higher": 1, "lower": -1}[table.provenance["probes"][name]["better"]]
        low, high = last[["adjusted_low", "adjusted_high"]].to_numpy(float).T
        if ((low if better > 0 else -high) > 0).any():
            return name
    return ""


def _quality(table: Table, without: str) -> list[str]:
    """The measures that models can be judged by, and that have differences."""
    about = table.provenance["probes"]
    there = (p for p in about if p != without and about[p].get("tolerance") is not None and not about[p]["compares"])
    return [p for p in there if not table.is_map(p)]


def _of_all(table: Table, model: str, probe: str) -> pd.DataFrame:
    rows = table.table
    return rows[(rows["model"] == model) & (rows["probe"] == probe) & (rows["language"] == POOLED)]


def _loss(table: Table, probe: str, rows: pd.DataFrame) -> np.ndarray:
    """Whether differences, for all layers at once, are losses."""
    low, high = rows[["adjusted_low", "adjusted_high"]].to_numpy(float).T
    return high < 0 if table.provenance["probes"][probe]["better"] == "higher" else low > 0
