"""A comparison with one model more, or with another baseline: what is there is not measured again."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedTokenizerBase

from probes.comparing import ASKED, Measured, Model, measure_models
from probes.corpus import SEVERAL, check_corpus, corpus_fingerprint
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.measures.catalogue import by_name
from probes.measures.choice import in_order
from probes.models.checkpoint import load_checkpoint, loading_of
from probes.models.fingerprint import weights_fingerprint
from probes.results.cells import BESIDE, COLUMNS, COUNTS, FURTHER, NO_LAYER, plain_layers
from probes.results.kept import as_kept
from probes.results.table import Table
from probes.states.depth import baseline_layers
from probes.states.pooling import OWN, POOLINGS
from probes.states.representations import LEFT_OUT

_COLUMNS = ("id", "language", "text", "label", "text_pair", "split", "group", *SEVERAL)


def with_model(
    found: Table,
    states: Mapping[str, xr.Dataset],
    name: str,
    model: Model | Sequence[Model],
    *,
    base: Model | None,
    corpus: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None,
    probes: Sequence[str] | None,
    store: str | Path | None,
    allow_pickle: bool,
    timing: bool,
    settings: dict[str, Any],
) -> Measured:
    """Return what a comparison is made of with one model more; the arguments are those of
    `Comparison.add`.

    Args:
        found: the comparison.
        states: its Representations, as far as they are at hand.

    Raises:
        InputError: as `Comparison.add`.
    """
    about = found.provenance
    asked = _asked(about)
    if name in about["models"]:
        raise InputError(f"there is a model {name!r} already. Give this one another name")
    first = about["models"][found.baseline]
    if "replicates" in first:
        raise InputError(
            f"the baseline {found.baseline!r} has {first['replicates']} replicates, and the states of one alone are "
            "kept: compare all models again"
        )
    before = asked["settings"].get("pooling")  # of an opened comparison by its name alone
    if "pooling" not in settings and isinstance(before, str) and before not in POOLINGS:
        known = {one.name: one for one in OWN.values()}
        if before not in known:
            raise InputError(
                f"this comparison was made with pooling={before}, which its name alone does not make: give it as "
                "pooling=..."
            )
        settings = settings | {"pooling": known[before]}
    original: Any = base
    tokenizers = dict(tokenizer) if isinstance(tokenizer, Mapping) else {name: tokenizer} if tokenizer else {}
    if base is None:
        if found.baseline not in states:
            raise InputError(
                f"the states of the baseline {found.baseline!r} are not at hand, as after opening a comparison: open "
                "it with store=..., or give base=..., the baseline itself"
            )
        original = states[found.baseline].drop_vars(LEFT_OUT, errors="ignore")
    elif isinstance(base, str | Path):
        original, tokenizers[found.baseline] = load_checkpoint(
            base, allow_pickle=allow_pickle, **loading_of(asked["settings"] | settings)[0]
        )
    elif tokenizer is not None and not isinstance(tokenizer, Mapping):
        tokenizers[found.baseline] = tokenizer
    if isinstance(original, torch.nn.Module) and weights_fingerprint(original) != first.get("weights"):
        raise InputError(f"base=...: its weights are not those of the baseline {found.baseline!r} of this comparison")
    if corpus is None and any(isinstance(m, torch.nn.Module | str | Path) for m in (model, original, *_several(model))):
        corpus = _remade(states.get(found.baseline), first)
    elif corpus is not None:
        corpus = check_corpus(corpus)
        if first.get("corpus") not in (None, corpus_fingerprint(corpus)):
            raise InputError("corpus=...: it is not the one of this comparison, which all its models were measured on")
    chosen = _chosen(found, asked, probes, running=not isinstance(original, xr.Dataset))
    one = measure_models(
        {found.baseline: original, name: model},
        corpus,
        tokenizer=tokenizers,
        baseline=found.baseline,
        probes=chosen,
        store=store,
        allow_pickle=allow_pickle,
        timing=timing,
        **_as_before(about),
        only=[name],
        settings=asked["settings"] | settings,
    )
    models = {**about["models"], name: one.provenance["models"][name]}
    tokens = {**about.get("tokens", {}), **one.provenance.get("tokens", {})}
    together = about | {"models": models, "probes": _in_order(about["probes"] | one.provenance["probes"])}
    order = in_order(asked["probes"])
    table, draws = joined([(found.table, found.draws), (one.table, one.draws)], [*_models(found), name], order)
    costs = pd.concat([found.models, one.models[one.models["model"] == name]], ignore_index=True)
    kept = {**states, name: one.representations[name]}
    return Measured(table, together | ({"tokens": tokens} if tokens else {}), draws, costs, kept)


def with_baseline(found: Table, states: Mapping[str, xr.Dataset], name: str) -> Measured:
    """Return what a comparison is made of with another baseline; see `Comparison.against`.

    Raises:
        InputError: as `Comparison.against`.
    """
    about = found.provenance
    check_choice("baseline", name, about["models"])
    asked = _asked(about)
    comparing = [probe for probe, of in about["probes"].items() if of["compares"]]
    lacking = [m for m in about["models"] if m not in states or "replicates" in about["models"][m]]
    running = [p for p in comparing if lacking or "models to run" in by_name()[p].needs]
    if BESIDE in found.table and any(m not in states for m in about["models"]):
        raise InputError(
            "the models are not equally deep, so that their states are needed to say which layers stand beside each "
            "other: open the comparison with store=..."
        )
    if running:
        warnings.warn(
            f"against {name!r}: {', '.join(running)} compare with {found.baseline!r} and cannot be measured from "
            f"{'what is kept' if lacking else 'states alone'}: left out",
            LayerscopeWarning,
            stacklevel=3,
        )
    parts = [(found.table[~found.table["probe"].isin(comparing)], found.draws)]
    probes = {probe: of for probe, of in about["probes"].items() if probe not in running}
    if again := [p for p in comparing if p not in running]:
        measured = measure_models(
            {model: states[model].drop_vars(LEFT_OUT, errors="ignore") for model in about["models"]},
            tokenizer=None,
            baseline=name,
            probes=again,
            store=None,
            allow_pickle=False,
            timing=False,
            **_as_before(about),
            settings={"progress": False},
        )
        parts.append((measured.table, measured.draws))
        probes |= measured.provenance["probes"]
    if not probes:
        raise InputError(f"no probe is left: all of them compare with {found.baseline!r}. Compare again")
    table, draws = joined(parts, _models(found), in_order(asked["probes"]))
    if BESIDE in table:
        table = _beside(table, states, name)
    kept = {k: v for k, v in about.items() if k not in ("causes", "tokens")}
    # Speeds were measured beside the other baseline, in turns.
    costs = found.models.assign(**{c: np.nan for c in found.models if c.startswith("speed_")})
    first = [name, *(m for m in _models(found) if m != name)]  # the baseline before all others
    models = {m: about["models"][m] for m in first}
    kept |= {"baseline": name, "models": models, "probes": _in_order(probes)}
    return Measured(table, kept, draws, costs, {m: states[m] for m in first if m in states})


def joined(
    parts: Sequence[tuple[pd.DataFrame, xr.Dataset]], models: Sequence[str], probes: Sequence[str]
) -> tuple[pd.DataFrame, xr.Dataset]:
    """Return tables and their draws as one, without differences, in the order of models and probes.

    Args:
        parts: each a table and its draws (`probes.results.kept`); rows of the draws that the table
            has not are left out.
        models, probes: their order.
    """
    frames, rows, arrays, start = [], [], [], 0
    deep = any(BESIDE in table for table, _ in parts)
    for table, draws in parts:
        new = pd.Series(np.arange(len(table)) + start, index=table.index)
        there = np.isin(draws["row"].values, table.index)
        rows.append(new.loc[draws["row"].values[there]].to_numpy())
        arrays.append(draws.isel(row=np.flatnonzero(there)))
        beside = {} if BESIDE in table or not deep else {BESIDE: table["layer"]}
        frames.append(table.assign(**beside))
        start += len(table)
    whole = pd.concat(frames, ignore_index=True)
    further, counts = ([c for c in names if c in whole] for names in (FURTHER, COUNTS))
    columns = [*COLUMNS[:2], *([BESIDE] if deep else []), *COLUMNS[2:4], *further, *COLUMNS[4:8], *counts]
    places = [whole[c].map({k: i for i, k in enumerate(order)}) for c, order in (("model", models), ("probe", probes))]
    order = np.lexsort((np.arange(len(whole)), places[1], places[0]))
    place = np.argsort(order)
    row = place[np.concatenate(rows)]
    by_row = np.argsort(row)
    whole_numbers = {c: "Int64" for c in ("groups", "replicates") if c in whole}
    table = plain_layers(whole[columns].iloc[order].reset_index(drop=True).astype(whole_numbers))
    kept = (
        np.concatenate([a[k].values for a in arrays if a.sizes["row"]])[by_row] for k in ("unseen", "draws", "units")
    )
    return table, as_kept(row[by_row], *kept)


def _asked(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a comparison was asked for; raise where it was made by another version."""
    own = importlib.metadata.version("layerscope")
    made = about["versions"].get("layerscope", own)
    if ASKED not in about or made != own:
        raise InputError(
            f"this comparison was made by version {made if made != own else 'before this one'} of layerscope and this "
            f"is {own}, whose probes may differ: compare all models again"
        )
    return about[ASKED]


def _as_before(about: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same for all models of a comparison, as `measure_models` takes it."""
    return {k: about[k] for k in ("pivot", "draws", "seed")} | {"without": about[ASKED]["without_outliers"]}


def _chosen(found: Table, asked: dict[str, Any], probes: Sequence[str] | None, *, running: bool) -> list[str] | None:
    """The probes that the added model is measured by."""
    there = [p for p in in_order(asked["probes"]) if p in found.provenance["probes"]]
    if len(found.provenance["models"]) == 1 and probes is None:  # which was not compared with any
        return asked["probes"]
    if probes is not None:
        if isinstance(probes, str) or not probes:
            raise InputError(f"probes={probes!r}: expected a list of names, out of {', '.join(there)}")
        for probe in probes:
            check_choice("probes", probe, there)
        return list(probes)
    left_out = [] if running else [p for p in there if "models to run" in by_name()[p].needs]
    if left_out:
        warnings.warn(
            f"{', '.join(left_out)} run the baseline too: left out of the model that is added. Give base=..., the "
            "baseline itself, to measure them",
            LayerscopeWarning,
            stacklevel=4,
        )
    if len(left_out) == len(there):
        raise InputError("no probe is left to measure: give base=..., the baseline itself")
    return [p for p in there if p not in left_out]


def _several(model: Any) -> Sequence[Any]:
    return model if isinstance(model, list | tuple) else ()


def _remade(reps: xr.Dataset | None, about: Mapping[str, Any]) -> datasets.Dataset:
    """The corpus, of what the states of the baseline say of their texts."""
    if reps is not None:
        columns = {c: [str(v) for v in reps[c].values] for c in _COLUMNS if c in reps.coords}
        corpus = check_corpus(datasets.Dataset.from_dict(columns))
        if corpus_fingerprint(corpus) == about.get("corpus"):
            return corpus
    raise InputError(
        "the texts of this comparison cannot be had from its states: give corpus=..., the one that it was made on"
    )


def _beside(table: pd.DataFrame, states: Mapping[str, xr.Dataset], baseline: str) -> pd.DataFrame:
    """The table with the layers of the baseline beside those of each model."""
    depth = {name: baseline_layers(states[baseline], reps) for name, reps in states.items()}
    beside = [depth[m].get(layer, NO_LAYER) for m, layer in zip(table["model"], table["layer"], strict=True)]
    if any(own != there for pairs in depth.values() for own, there in pairs.items()):
        return table.assign(**{BESIDE: beside})
    return table.drop(columns=BESIDE)


def _models(found: Table) -> list[str]:
    """The models in the order in which they were given, wherever the baseline stands."""
    return found.table["model"].drop_duplicates().tolist()


def _in_order(probes: Mapping[str, Any]) -> dict[str, Any]:
    """Probes in the order of the catalogue."""
    return {name: probes[name] for name in by_name() if name in probes}
