"""The tidy table of a comparison as data: columns, summary, save, open."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError, address_of, check_choice
from probes.remote import within
from probes.results.calibration import stretch
from probes.results.cells import (
    BESIDE,
    COLUMNS,
    COUNTS,
    FURTHER,
    NO_LAYER,
    costs_from_csv,
    from_csv,
    plain_layers,
    to_csv,
)
from probes.results.difference import MARKED, adjustment, check_family, differences, near_the_level, with_more_draws
from probes.results.draws import POOLED
from probes.results.kept import from_bytes, to_bytes
from probes.results.saved import FILES, read_files, write_files


@dataclass
class Table:
    """A tidy table, where its numbers come from, and the draws behind them.

    `provenance["probes"]` says of each probe what a reader of the table has to know: `title`,
    `estimator`, `range`, what is `better` ("higher", "lower" or ""), what `higher_is`, what it is
    `unchanged_by`, its `paper`, what its `interval` is, whether it `compares` with the baseline,
    and which value says that nothing is `unchanged`. `draws` holds the bootstrap draws of the rows
    (`probes.results.kept`), which differences of any two models and joint p-values come from.
    `models` says what each model costs, a row a model (`probes.costs.as_table`).
    """

    table: pd.DataFrame
    provenance: dict[str, Any]
    draws: xr.Dataset
    models: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"model": []}), repr=False, kw_only=True)
    _found: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: object, compute: Callable[[], Any]) -> Any:
        """Compute something of this table once, and anew where the table is another by then."""
        key = (key, id(self.draws), int(pd.util.hash_pandas_object(self.table, index=False).sum()))
        if self._found.get("key") != key:
            self._found |= {"key": key, "value": compute()}
        return self._found["value"]

    def to_dataframe(self) -> pd.DataFrame:
        """Return the tidy table: a row a model, probe, language and layer, with its difference.

        Returns:
            A copy: `model, layer, language, probe, value, low, high, n` and, of the models beside
            the baseline, `difference, difference_low, difference_high, p` (below 0.05 if and only
            if the interval leaves out 0) and, for all layers at once, `p_adjusted, adjusted_low,
            adjusted_high` (likewise); where a probe has more to a number, also `other_layer,
            module, other_language`. `layer` is a whole number, -1 for what is measured at the
            output, as `other_layer` and `baseline_layer` are where there is none.

        Example:
            >>> import probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> len(comparison.to_dataframe())  # two models, one layer, one language and pooled
            4

        See also:
            `Comparison.summary`, `Comparison.adjusted`, `Comparison.difference`.
        """
        return self.table.copy()

    def adjusted(self, over: Sequence[str] = ("layer",), *, draws: int | None = None) -> pd.DataFrame:
        """Return the tidy table with p and intervals that hold for a whole family at once.

        Args:
            over: what varies within a family: "layer" (as in the table), "language", "model",
                "probe", or several of them. All other things are the same within one.
            draws: so many in place of those that are kept, for families with a p so near 0.05
                that it may lie on the other side. Their probes are measured again.

        Returns:
            As `to_dataframe`, with `p_adjusted, adjusted_low, adjusted_high` over that family; its
            `attrs["p_adjusted"]` says which one it is.

        Raises:
            InputError: a family is unknown; more draws are asked for than there are Representations
                to draw from, or no more than there are.

        Notes:
            Westfall and Young's max-T with step-down, on draws that all models, probes, layers and
            languages share, so that what goes up and down together is not paid for twice. Of a
            family without any difference, one p_adjusted or more is below 0.05 in 5 % of corpora.
            p_adjusted < 0.05 if and only if `adjusted_low` to `adjusted_high` leaves out 0. Probes
            that compare with the baseline have no difference to it, and no p.

        Example:
            >>> import probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr", "norm"])
            >>> float(comparison.adjusted(over=["layer", "probe"])["p_adjusted"].min().round(3))
            0.005

        See also:
            `Comparison.difference`, `difference`.
        """
        check_family(over)
        pairs = {model: self.baseline for model in self.provenance["models"] if model != self.baseline}
        found = self.between(pairs, over)
        if draws is None:
            return found
        if draws <= self.provenance["draws"]:
            raise InputError(f"draws={draws!r}: expected more than the {self.provenance['draws']} that are kept")
        models, probes = near_the_level(found, self.provenance["draws"], over)
        again = self.again([self.baseline, *models], probes, draws)
        return found if again is None else with_more_draws(found, again.adjusted(over))

    def again(self, models: Sequence[str], probes: Sequence[str], draws: int) -> Table | None:
        """Return some models and probes measured with other draws, or None of none; raise
        `InputError` where there is nothing to measure them on.
        """
        raise InputError(f"draws={draws}: a table alone has no Representations to draw from")

    def difference(self, model: str, baseline: str, *, over: Sequence[str] = ("layer",)) -> pd.DataFrame:
        """Return the rows of a model with their differences to any other one.

        Args:
            model: as it is called in the table.
            baseline: what is subtracted.
            over: what varies within the family that p is adjusted over, as in `adjusted`.

        Returns:
            The columns of `to_dataframe`; `attrs["p_adjusted"]` says how p is adjusted. What
            compares both with the baseline of the comparison has a difference here.

        Raises:
            InputError: a model or a family is unknown.

        Example:
            >>> import probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> states = {name: x + k * np.eye(8)[y] for name, k in (("a", 3), ("b", 2), ("c", 1))}
            >>> models = {name: probes.from_arrays(z, label=y) for name, z in states.items()}
            >>> comparison = probes.compare(models, probes=["snr"])
            >>> comparison.difference("c", "b")["difference"].round(2).tolist()
            [-0.17, -0.17]

        See also:
            `Comparison.adjusted`, `difference`.
        """
        for name, given in (("model", model), ("baseline", baseline)):
            check_choice(name, given, self.provenance["models"])
        check_family(over)
        found = self.between({model: baseline}, over)
        return found[found["model"] == model].reset_index(drop=True)

    def marks(self) -> pd.Series:
        """Return p of every row, adjusted over layers and languages: rings and dots go by it."""
        return self.adjusted(MARKED)["p_adjusted"]

    def bands(self) -> pd.DataFrame:
        """Return `low, high` of every row such that those of all layers of a model, probe and
        language hold at once.
        """
        rows = self.table.loc[self.draws["row"].values]
        draws, unseen, units = (self.draws[name].values for name in ("draws", "unseen", "units"))
        there = np.isfinite(rows["value"].to_numpy(float)) & np.isfinite(draws).any(axis=1)
        rows, draws, unseen, units = rows[there], draws[there], unseen[there], units[there]
        family = rows.groupby(["model", "probe", "language"], sort=False).ngroup().to_numpy()
        wider = stretch(draws, np.nanmax(np.abs(draws), axis=1), unseen, family, units)
        out = self.table[["low", "high"]].copy()
        for end in out:
            out.loc[rows.index, end] = rows["value"] + wider * (rows[end] - rows["value"])
        return out

    def between(self, pairs: dict[str, str], over: Sequence[str]) -> pd.DataFrame:
        """Return the table with the differences of models to others, model -> what is subtracted."""
        # What compares with the baseline has of that itself, at most, how it is to itself.
        compares = self.table["probe"].map({k: about["compares"] for k, about in self.provenance["probes"].items()})
        rows = self.table[~(compares.astype(bool) & (self.table["model"] == self.baseline))]
        found = differences(rows, self.draws, pairs, over)
        out = self.table.assign(**found.reindex(self.table.index))
        out.attrs["p_adjusted"] = adjustment(over)
        return out

    def summary(self) -> pd.DataFrame:
        """Return one row a probe and model: the layer where the baseline is best, and what is lost.

        All languages together; `worst_language` is the one that lost most at that layer, by
        `its_difference`, or the value itself where it is a comparison; empty where none lost.
        `its_p` is adjusted over layers and languages, out of which it was chosen; `p_adjusted` over
        layers.
        Probes that compare a model with the baseline are given at the layer where the model is
        farthest from it (of similarities, the same layer of both). Where a model has no value from
        some layer on to its last, as where it overflows, that layer is the farthest and the row has
        no numbers; `no_value` lists all layers without one. Probes that are neither better nor
        worse when they are higher are left out. A model that does not have the layer has a row
        without numbers.

        Example:
            >>> import probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> comparison.summary()[["probe", "better", "layer", "model", "value"]].round(2)
              probe  better  layer model  value
            0   snr  higher      0   far   1.48
            1   snr  higher      0  near   1.08

        See also:
            `Comparison.to_dataframe`, `Comparison.plot_change`.
        """
        rows, marks = [], self.marks()
        beside = BESIDE if BESIDE in self.table else "layer"
        for probe, attributes in self.provenance["probes"].items():
            sign = {"higher": 1, "lower": -1}.get(attributes["better"], 0)
            of_probe = self.table[self.table["probe"] == probe]
            if "other_layer" in of_probe and (of_probe["other_layer"] != NO_LAYER).any():
                of_probe = of_probe[of_probe[beside] == of_probe["other_layer"]]
            elif self.is_map(probe):
                continue
            compares = attributes["compares"]
            for model in self.provenance["models"] if sign else ():
                if compares and model == self.baseline:
                    continue
                judge = of_probe[of_probe["model"] == (model if compares else self.baseline)]
                judge = judge[judge["language"] == POOLED]
                lacking, lost_from = _without_value(of_probe[of_probe["model"] == model])
                score = sign * judge["value"].dropna()
                if judge.empty or (score.empty and not compares):
                    continue
                if score.empty or (compares and lost_from is not None):
                    layer = NO_LAYER if lost_from is None else lost_from
                else:
                    layer = judge.loc[score.idxmin() if compares else score.idxmax(), "layer"]
                if model != self.baseline and not compares and layer != NO_LAYER:
                    layer = _nearest(of_probe[of_probe["model"] == model], beside, layer)
                here = of_probe[(of_probe["model"] == model) & (of_probe["layer"] == layer)]
                pooled = here[here["language"] == POOLED]
                row = {"probe": probe, "better": attributes["better"], "layer": layer, "model": model}
                if beside in here and beside == BESIDE and len(pooled):
                    row[BESIDE] = pooled[BESIDE].iloc[0]
                row |= (
                    pooled[["value", "low", "high", *(c for c in COUNTS if c in pooled), *COLUMNS[8:]]]
                    .squeeze()
                    .to_dict()
                    if len(pooled)
                    else {}
                )
                by_language = here.assign(p=marks[here.index])[here["language"] != POOLED].set_index("language")
                change = (sign * by_language["value" if compares else "difference"]).dropna()
                # Of a comparison the value itself, unless it says that nothing has changed.
                same = float(attributes["unchanged"]) if compares else np.nan
                lost = change[~np.isclose(np.abs(change), same, rtol=0, atol=1e-7) if compares else change < 0]
                row["worst_language"] = "" if lost.empty else lost.idxmin()
                row["its_difference"] = np.nan if lost.empty else sign * lost.min()
                row["its_p"] = np.nan if lost.empty else by_language.loc[lost.idxmin(), "p"]
                row["no_value"] = lacking
                rows.append(row)
        return plain_layers(pd.DataFrame(rows))

    @property
    def baseline(self) -> str:
        """The model that the others are compared with."""
        return self.provenance["baseline"]

    def save(self, folder: str | Path, *, overwrite: bool = False, wait: bool = True) -> Path | str:
        """Write `comparison.csv`, `models.csv`, `draws.npy` and `provenance.json` into a folder.

        Args:
            folder: where to, a path or a URL as s3://bucket/run; it is made where it is missing.
            overwrite: replace a comparison that is there.
            wait: where another process writes into the folder, wait until it is done, and say so;
                False to be refused.

        Raises:
            InputError: the folder holds a comparison already, and `overwrite` was not asked for.

        Notes:
            The provenance holds hashes of the tables and the draws that it belongs to. A kill leaves
            the old comparison or the new one, never the table of one with the provenance of the
            other. The draws are numbers alone (no pickle), to the last digit.

        Example:
            >>> import tempfile
            >>> import probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     opened = probes.Comparison.open(comparison.save(folder))
            >>> opened.baseline
            'far'

        See also:
            `Comparison.open`, `Comparison.report`.
        """
        folder = address_of(folder, "folder")
        # The table last: where it is, all is.
        files = {
            "draws": to_bytes(self.draws),
            "models": to_csv(self.models).encode(),
            "table": to_csv(self.table).encode(),
        }
        write_files(folder, files, self.provenance, overwrite=overwrite, wait=wait)
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Read what `save` wrote, from a folder or a URL. The Representations are not part of it.

        Raises:
            InputError: there is no comparison in the folder, or its table or draws are not those
                that the provenance belongs to.

        Example:
            >>> import tempfile
            >>> import probes
            >>> reps = probes.from_arrays(np.random.default_rng(0).normal(size=(60, 8)))
            >>> saved = probes.compare({"one": reps}, probes=["norm"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     opened = probes.Comparison.open(saved.save(folder))
            >>> opened.table.equals(saved.table.astype(opened.table.dtypes))
            True

        See also:
            `Comparison.save`.
        """
        folder = address_of(folder, "folder")
        provenance, read = read_files(folder)
        table = from_csv(io.BytesIO(read["table"]), within(folder, FILES["table"]))
        for column, place in {"model": "models", "probe": "probes"}.items():
            other = set(table[column]).difference(provenance[place])
            if other or (column == "model" and provenance["baseline"] not in provenance[place]):
                name = ascii(min(other or {provenance["baseline"]}))
                raise InputError(
                    f"{folder}: provenance.json does not know the {column} {name[:80]}: it is that of another "
                    "comparison. Make the comparison again"
                )
        draws = from_bytes(read["draws"], len(table), within(folder, FILES["draws"]))
        if "models" not in read:
            return cls(table, provenance, draws)
        return cls(
            table, provenance, draws, models=costs_from_csv(io.BytesIO(read["models"]), within(folder, FILES["models"]))
        )

    def is_map(self, probe: str) -> bool:
        """Whether a probe has more to a number than its layer, so that it is drawn as a map."""
        of_probe = self.table[self.table["probe"] == probe]
        further = of_probe[[c for c in FURTHER if c in of_probe]]
        return bool((further.notna() & (further != NO_LAYER)).any(axis=None))

    def has_difference(self, probe: str) -> bool:
        """Whether a probe has differences to the baseline that a map of languages by layers can
        show.
        """
        return not self.is_map(probe) and bool(self.table.loc[self.table["probe"] == probe, "difference"].notna().any())

    def names(self, probe: str | None) -> list[str]:
        """Return the probes that were measured, or the one asked for; raise `InputError` where it
        was not.
        """
        measured = list(self.provenance["probes"])
        if probe is not None and probe not in measured:
            raise InputError(f"probe {probe!r} was not measured; there are {', '.join(map(repr, measured))}")
        return measured if probe is None else [probe]


def _without_value(rows: pd.DataFrame) -> tuple[str, int | None]:
    """The layers at which one model has no value of one probe, in words, and the first of those
    that go on to its last.
    """
    rows = rows[(rows["language"] == POOLED) & (rows["layer"] != NO_LAYER)]
    values = rows.set_index("layer")["value"].sort_index()
    runs: list[list[int]] = []
    previous = False
    for layer, lacks in values.isna().items():
        if lacks and not previous:
            runs.append([])
        if lacks:
            runs[-1].append(int(layer))
        previous = bool(lacks)
    said = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
    return said, runs[-1][0] if previous else None


def _nearest(rows: pd.DataFrame, beside: str, layer: int) -> int:
    """The layer of a model that stands beside a layer of the baseline, or nearest to it."""
    there = rows[rows[beside] != NO_LAYER].drop_duplicates("layer")
    far = (there[beside] - layer).abs()
    return int(there.loc[far.idxmin(), "layer"]) if len(there) else layer
