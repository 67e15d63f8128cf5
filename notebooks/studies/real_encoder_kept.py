"""The fine-tuned runs of the study of a real encoder that are kept in the repository, so that none is made twice.

Runs come about over several evenings and on several machines. Each is a row of real_encoder_trained.csv, and a row a
language of real_encoder_trained_rows.csv; what is there, of the same encoder, corpora and steps, is not made again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import common
import joblib
import pandas as pd
import real_encoder_runs as of
import real_encoder_trained as trained
import torch

from probes.files import write_whole

RUNS, ROWS = "real_encoder_trained.csv", "real_encoder_trained_rows.csv"
KEYS = ["trained", "strength", "seed"]
DRAWN_RETRIEVAL = "drawn retrieval"
OF = ["weights", "corpus", "train", "steps"]
WORDS = dict.fromkeys(["weights", "corpus", "train", "original", "torch"], str)  # hashes of digits alone are none


class Trained(NamedTuple):
    """A row a run, and a row a run and language."""

    runs: pd.DataFrame
    rows: pd.DataFrame

    def missing(self, settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of some settings of which there is no run."""
        there = set(self.runs[KEYS].itertuples(index=False, name=None))
        return [s for s in settings if tuple(s[k] for k in KEYS) not in there]

    def without_draws(self, settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of some settings whose run is there, but was made before draws of sentences were kept."""
        runs = trained.measured(self.runs)
        known = runs[DRAWN_RETRIEVAL].notna() if DRAWN_RETRIEVAL in runs else pd.Series(False, index=runs.index)
        lacking = set(runs.loc[~known, KEYS].itertuples(index=False, name=None))
        return [s for s in settings if tuple(s[k] for k in KEYS) in lacking]


def kept(folder: Path | None = None) -> Trained:
    """What the repository has, and what lies in runs/ beside it, in the order of the settings."""
    folder = common.HERE if folder is None else folder
    runs, rows = pd.DataFrame(columns=[*KEYS, *OF]), pd.DataFrame(columns=[*KEYS, "language"])
    if (folder / RUNS).exists():
        runs, rows = pd.read_csv(folder / RUNS, dtype=WORDS), pd.read_csv(folder / ROWS)
    held, every = Trained(runs, rows), trained.every_setting()
    new = held.missing(every) + held.without_draws(every)
    files = [f for s in new if (f := common.file_of(of.FOLDER / "trained", s)).exists()]
    found = [json.loads(f.read_text(encoding="utf-8")) for f in files]
    made = pd.MultiIndex.from_tuples([tuple(run[k] for k in KEYS) for run in found], names=KEYS)
    languages = [pd.DataFrame(run.pop("rows")).assign(**{k: run[k] for k in KEYS}) for run in found if "rows" in run]
    if found:
        runs = pd.concat([_others(runs, made), pd.DataFrame(found)], ignore_index=True)
        rows = pd.concat([_others(rows, made), *languages], ignore_index=True)
    order = {tuple(s[k] for k in KEYS): i for i, s in enumerate(every)}
    runs = _ordered(runs, order)
    return Trained(runs, _ordered(rows, order)[[*KEYS, *(c for c in rows if c not in KEYS)]])


def _others(table: pd.DataFrame, made: pd.MultiIndex) -> pd.DataFrame:
    """The rows of runs that were not made since; none of no rows, whose columns have no types."""
    kept = table[~pd.MultiIndex.from_frame(table[KEYS]).isin(made)]
    return kept if len(kept) else pd.DataFrame()


def _ordered(table: pd.DataFrame, order: dict[tuple[Any, ...], int]) -> pd.DataFrame:
    """The rows of known settings, in their order; a setting that is no more is left out."""
    place = pd.Series([order.get(k) for k in table[KEYS].itertuples(index=False, name=None)], index=table.index)
    known = table[place.notna()]
    return known.iloc[place[place.notna()].argsort(kind="stable").to_numpy()].reset_index(drop=True)


def keep(folder: Path | None = None) -> Trained:
    """Write what there is beside the script, and return it."""
    folder = common.HERE if folder is None else folder
    found = kept(folder)
    if len(found.runs):
        write_whole(folder / ROWS, found.rows.to_csv(index=False, float_format="%.4g"))
        write_whole(folder / RUNS, found.runs.to_csv(index=False, float_format="%.6g"))
    return found


def check(found: Trained, made_of: dict[str, Any]) -> None:
    """Refuse to add to runs of another encoder, corpus or number of steps."""
    for name in OF:
        if other := sorted({str(x) for x in found.runs[name]} - {str(made_of[name])}):
            raise SystemExit(
                f"{common.HERE / RUNS}: its runs are of {name} {', '.join(other)}, and these would be of "
                f"{made_of[name]}. Give what they are of, or move {RUNS}, {ROWS} and {of.FOLDER / 'trained'} away, "
                "and all are made again"
            )


def make(model: Path, data: Path, asked: list[dict[str, Any]], workers: int) -> list[str]:
    """Make the runs that are nowhere yet, what decides most first, and return what was said of those that failed."""
    made_of, folder = trained.made_of(model, data), of.FOLDER / "trained"
    check(found := keep(), made_of)
    if not (missing := [*found.missing(asked), *found.without_draws(asked)]):
        return []
    with_rates = trained.making(model, data, made_of)
    failed = of.made(with_rates, found.missing(trained.trials()), folder, "learning rates", workers, keep)
    if failed:
        return failed
    chosen = trained.Chosen.of((found := keep()).runs)
    rate, run = chosen.rate, trained.making(model, data, made_of, chosen)
    seeds = sorted({s["seed"] for s in missing})
    plain = [{"trained": trained.PLAIN, "strength": 0.0, "seed": seed} for seed in seeds]
    plain = found.missing(plain) + found.without_draws(plain)
    failed = of.made(run, plain, folder, "originals", workers, keep)
    # Those that another machine made are made again here, once each, for what starts from them.
    again = [s for s in seeds if not (trained.kept_at(s, rate, trained.STEPS) / "done").exists()]
    joblib.Parallel(n_jobs=workers)(joblib.delayed(_again)(model, data, s, rate) for s in again)
    rest = [s for s in missing if s["trained"] != trained.PLAIN]
    weighed = [i for i, s in enumerate(rest) if s["trained"] in trained.TRIALS_OF_WEIGHTS.values()]
    first = weighed[0] if weighed else len(rest)
    failed += of.made(run, rest[:first], folder, "fine-tuned", workers, keep)
    if not weighed:
        return failed
    weights = found.missing(trained.trials_of_weights(rest))
    if untried := of.made(run, weights, folder, "weights of objectives", workers, keep):
        return failed + untried
    run = trained.making(model, data, made_of, trained.Chosen.of(keep().runs))
    return failed + of.made(run, rest[first:], folder, "fine-tuned", workers, keep)


def _again(model: Path, data: Path, seed: int, rate: float) -> None:
    torch.set_num_threads(1)
    trained.original(model, data, seed, rate, trained.STEPS)
