"""Which layers and modules cause what compressed models lost: named where intervals that hold at once leave out
zero.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError, LayerscopeWarning
from probes.measures.attribution.added_bytes import added_bytes
from probes.measures.attribution.output_damage import kind_of
from probes.measures.attribution.patching import check_patching, patched_together
from probes.measures.attribution.places import parts_of
from probes.models.checkpoint import load_checkpoint
from probes.models.facts import predicted_tokens
from probes.models.parts import FAMILIES
from probes.models.spread import check_one_place, places_for
from probes.results.calibration import calibrated
from probes.states.resumed import blocks_of

SHARES = ("label_loyalty", "accuracy", "retrieval")  # measures that are shares of texts

_SENSITIVE = ("kl", "cosine")  # which no verdict judges by
_OF_TOKENS = {"label_loyalty": "same_top_token", "loss": "nats_per_token"}  # as a comparison names them


class Pair(NamedTuple):
    """An original and what was made of it, ready to be run."""

    base: PreTrainedModel
    other: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    names: tuple[str, str]


def pairs_of(
    models: Mapping[str, Any],
    corpus: datasets.Dataset | None,
    *,
    tokenizer: Any,
    pivot: str | None,
    baseline: str | None,
    allow_pickle: bool = False,
    loading: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[list[Pair], dict[str, tuple[Any, Any]]]:
    """Load the baseline and the models that are held against it, and check that their blocks can
    stand for each other.

    Args:
        models, corpus, tokenizer, pivot, baseline, allow_pickle: as `compare` takes them.
        loading: further settings of `load_checkpoint`.
        settings: of `capture`.

    Returns:
        The pairs, and by name each model with its tokenizer as it was loaded or given.

    Raises:
        InputError: before the first forward pass, where a model is not at hand or is several, or
            where `patching` of weights would raise; before a checkpoint is loaded that a
            `device_map` spreads over several places.
    """
    first = next(iter(models)) if baseline is None else baseline
    if corpus is None or first not in models:
        raise InputError(
            "patching=True runs the models: give a corpus, and models or checkpoints in place of Representations"
        )
    loaded: dict[str, tuple[Any, Any]] = {}
    for name, model in models.items():
        if isinstance(model, str | Path):
            check_one_place(places_for((loading or {}).get("device_map")), "patching")
            loaded[name] = load_checkpoint(model, allow_pickle=allow_pickle, **(loading or {}))
        elif isinstance(model, PreTrainedModel):
            loaded[name] = model, tokenizer.get(name) if isinstance(tokenizer, Mapping) else tokenizer
        else:
            what = "several" if isinstance(model, list | tuple) else type(model).__name__
            raise InputError(
                f"{name}: patching=True runs each model, and this is {what}. Give one model of transformers, or a "
                "checkpoint"
            )
    # A comparison judges models of masked tokens by their states: their head is left out here too.
    judged = {k: m.base_model if _of_masked_tokens(m) else m for k, (m, _) in loaded.items()}
    own = loaded[first][1]
    out = [Pair(judged[first], other, own, (first, name)) for name, other in judged.items() if name != first]
    for pair in out:
        how = {k: v for k, v in (settings or {}).items() if k != "progress"}
        check_patching(*pair[:3], corpus, at="weights", pivot=pivot, names=pair.names, **how)
    return out, loaded


def _of_masked_tokens(model: PreTrainedModel) -> bool:
    return kind_of(model) == "tokens" and predicted_tokens(model) != "next"


def causes_of(pair: Pair, corpus: datasets.Dataset, **settings: Any) -> list[dict[str, Any]]:
    """Return, of a compressed model, what each layer is the cause of, as `causes` says it.

    Args:
        pair: of `pairs_of`.
        corpus: as `load_corpus` gives it.
        settings: of `patching`: pivot, draws, seed, progress and those of `capture`.

    Returns:
        The rows of `causes`, as JSON keeps them, of layers that a measure of what is judged names
        also by their two modules, with the `bytes` that the original's weights take more as the
        model is stored; measures of the next token are named as the probes that judge it, each the
        mean over texts of what their tokens lose.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)  # a verdict says where nothing was lost
        weights, states = patched_together(*pair[:3], corpus, names=pair.names, at=("weights", "layers"), **settings)
        rows = causes(weights, states)
        layers = set(rows.loc[rows["named"] & ~rows["measure"].isin(_SENSITIVE), "layer"])
        if layers and pair.base.config.model_type in FAMILIES:
            (modules,) = patched_together(
                *pair[:3], corpus, names=pair.names, at=["module_weights"], only=layers, **settings
            )
            rows = causes(weights, states, modules)
    if kind_of(pair.base) == "tokens":
        rows["measure"] = rows["measure"].replace(_OF_TOKENS)
    sizes = _sizes(pair, rows)
    rows["bytes"] = [sizes[row.layer, row.module] for row in rows.itertuples()]
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in rows.to_dict("records")
    ]


def _sizes(pair: Pair, rows: pd.DataFrame) -> dict[tuple[int, str], int]:
    """The bytes that a layer, or a module of it, takes more with its original weights."""
    more = added_bytes(pair.base, pair.other)
    blocks = blocks_of(pair.base), blocks_of(pair.other)
    out = {}
    for layer, module in {(row.layer, row.module) for row in rows.itertuples()}:
        if module:
            one, two = (parts_of(m, layer - 1, pair.names[0])[module] for m in (pair.base, pair.other))
            out[layer, module] = more([(one[name], two[name]) for name in one])
        else:
            out[layer, module] = more([(blocks[0][layer - 1], blocks[1][layer - 1])])
    return out


def causes(weights: xr.Dataset, states: xr.Dataset | None = None, modules: xr.Dataset | None = None) -> pd.DataFrame:
    """Return which layers cause what was lost.

    A layer is named where its original weights alone give something back: where the interval of
    what they give back, which holds for all layers and languages of a measure at once, leaves out
    zero and lies above it. A module of a layer is named likewise, by intervals that hold for all
    layers and modules at once.

    Args:
        weights: of `patching(..., at="weights")`.
        states: of `patching(..., at="layers")`, for the share that goes away with the states.
        modules: of `patching(..., at="module_weights")`, of some layers, with the same draws.

    Returns:
        A row a measure, layer, module ("attention", "feed-forward", or "" for the whole layer) and
        language: `gain, low, high` in units of the measure, `damage`, `named`, and of whole layers
        `restored` with its ends where states were given.

    Notes:
        Max-T of Westfall and Young on the draws that all layers share. Of shares of texts each
        difference has at least the variance of two texts in all, which no draw may show.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> pruned = compress.prune(model, sparsity=0.6)
        >>> options = {"at": "weights", "draws": 50, "progress": False}
        >>> found = causes(probes.patching(model, pruned, tokenizer, corpus, **options))
        >>> found.query("measure == 'kl' and language == 'pooled' and named").layer.tolist()
        [4]
    """
    tables = []
    for measure in weights["measure"].values:
        layers = _cells(weights, measure)
        table, ends = _table(layers), _ends(measure, layers)
        if modules is not None:
            inside = _cells(modules, measure)
            every = {name: np.concatenate([layers[name], inside[name]]) for name in layers}
            wider = [end[len(ends[0]) :] for end in _ends(measure, every)]
            table = pd.concat([table, _table(inside)], ignore_index=True)
            ends = [np.concatenate(both) for both in zip(ends, wider, strict=True)]
        table.insert(0, "measure", str(measure))
        table = table.assign(low=ends[0], high=ends[1], named=ends[0] > 0)
        if states is not None:
            whole = table[table["module"] == ""]
            at: dict[Any, Any] = {k: xr.DataArray(whole[k].values, dims="cell") for k in ("layer", "language")}
            beside = states.sel({"measure": measure} | at)
            for name, of in {"restored": "value", "restored_low": "low", "restored_high": "high"}.items():
                table.loc[whole.index, name] = beside[of].values
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _cells(found: xr.Dataset, measure: str) -> dict[str, np.ndarray]:
    """What was found of a measure, a place and language after the other; draws (cell, draw)."""
    one = found.sel(measure=measure)
    along = "module" if "module" in one.dims else "layer"
    cells = one["gain"].stack(cell=(along, "language"))
    languages = cells["language"].values
    places = one[along].values.repeat(one.sizes["language"])
    return {
        "gain": cells.values,
        "draws": one["gain_draws"].stack(cell=(along, "language")).transpose("cell", "draw").values,
        "damage": one["damage"].sel(language=languages).values,
        "units": one["units"].sel(language=languages).values,
        "layer": one["layer"].sel({along: places}).values.astype(int),
        "module": one["kind"].sel(module=places).values.astype(str) if along == "module" else np.full(len(cells), ""),
        "language": languages.astype(str),
    }


def _table(cells: dict[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame({name: cells[name] for name in ("layer", "module", "language", "gain", "damage")})


def _ends(measure: str, cells: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The ends of intervals that hold for all cells at once."""
    gap, draws, units = (cells[name] for name in ("gain", "draws", "units"))
    low, high = np.full((2, len(gap)), np.nan)
    at = np.flatnonzero(np.isfinite(gap) & np.isfinite(draws).any(axis=1) & (units > 1))
    if len(at):
        unseen = 2.0 / units[at] ** 2 if measure in SHARES else np.zeros(len(at))
        scale = np.abs(cells["damage"][at]) + np.abs(gap[at])
        found = calibrated(gap[at], draws[at], scale, unseen, np.zeros(len(at), int), units[at])
        low[at], high[at] = found.adjusted_low, found.adjusted_high
    return [low, high]
