"""Measures probes on every replicate of a model, and what groups do to their intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from probes.errors import LayerscopeWarning
from probes.measures.probe import Probe, Run
from probes.measures.workers import Work, measured
from probes.models.facts import predicted_tokens
from probes.results.draws import Sample
from probes.results.replicates import over_replicates
from probes.states.predictions import DECIDES, predicts


def measured_on(
    chosen: Sequence[Probe],
    runs: Sequence[Run],
    name: str,
    *,
    head: str | None = None,
    by_id: Sample | None = None,
    n_jobs: int | None = None,
) -> dict[str, xr.Dataset]:
    """Return the results of probes on a model, or on all replicates of one, by name.

    Args:
        chosen: the probes; those of predictions are left out where there are none of the head.
        runs: one, or one a replicate.
        name: of the model.
        head: the kind of the head whose predictions are measured (`predicts`), None for none.
        by_id: of a corpus with groups, the sample with ids drawn one by one: the width of an
            interval over what it would be with these is `design_effect` in the results, and how
            many groups count is `groups`.
        n_jobs: how many probes at once, in joblib's workers.
    """
    runs = [replace(run) for run in runs]  # with nothing computed
    # A model without a head, or with another, among others: `choose` has said so.
    same = {predicts(run.reps) for run in runs} == {head}
    there = {"logits": same and head in DECIDES, "predicted numbers": same and head == "numbers"}
    chosen = [p for p in chosen if all(there.get(need, True) for need in p.needs)]
    # One whose head was not in its weights: that was said as it was loaded.
    silent = any(run.models is not None and not predicted_tokens(run.models[1]) for run in runs)
    chosen = [p for p in chosen if not (silent and "predicted tokens" in p.needs)]
    found = _over_all(chosen, runs, name, n_jobs)
    if by_id is None:
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)  # said the first time
        alone = _over_all(chosen, [_without_groups(run, by_id) for run in runs], name, n_jobs)
    return {
        k: result.assign(groups=result["units"], design_effect=_ratio(result, alone[k])) for k, result in found.items()
    }


def _over_all(chosen: Sequence[Probe], runs: Sequence[Run], name: str, n_jobs: int | None) -> dict[str, xr.Dataset]:
    by_run = [_of_run(chosen, run, name, n_jobs) for run in runs]
    if len(runs) == 1:
        return by_run[0]
    return {
        p.name: over_replicates([found[p.name] for found in by_run], name, seed=runs[0].seed, bounds=p.bounds)
        for p in chosen
    }


def _of_run(chosen: Sequence[Probe], run: Run, name: str, n_jobs: int | None) -> dict[str, xr.Dataset]:
    """The results of all chosen probes, by name; what gives several is called once."""
    found: dict[str, xr.Dataset] = {}
    works: dict[Any, Work] = {}
    for p in chosen:
        works.setdefault(p.measure, Work(p.measure, [], "models to run" in p.needs)).names.append(p.name)
    with tqdm(total=len(chosen), desc=f"measure {name}", unit="probe", disable=not run.progress or not chosen) as bar:
        for names, results in measured(list(works.values()), run, name, n_jobs):
            found |= results
            bar.set_postfix_str(names[0])
            bar.update(len(names))
        bar.set_postfix_str("")
    return {p.name: found[p.name] for p in chosen}


def _without_groups(run: Run, by_id: Sample) -> Run:
    base = None if run.base is None else run.base.drop_vars("group")
    alone = replace(run, reps=run.reps.drop_vars("group"), base=base, sample=by_id, progress=False)
    alone.kept.update(run.kept)  # of the same states: what is dear is not computed again
    return alone


def _ratio(result: xr.Dataset, alone: xr.Dataset) -> xr.DataArray:
    wide, narrow = (r["high"] - r["low"] for r in (result, alone))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (wide / narrow).where((narrow > 0) & np.isfinite(narrow))
