"""Which layers cause what compressed models lost: named where intervals that hold at once leave out
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
from probes.measures.attribution.output_damage import kind_of
from probes.measures.attribution.patching import check_patching, patching
from probes.models.checkpoint import load_checkpoint
from probes.models.facts import predicted_tokens
from probes.results.calibration import calibrated
from probes.states.resumed import blocks_of

SHARES = ("label_loyalty", "accuracy", "retrieval")  # measures that are shares of texts

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
    settings: Mapping[str, Any] | None = None,
) -> list[Pair]:
    """Load the baseline and the models that are held against it, and check that their blocks can
    stand for each other.

    Args:
        models, corpus, tokenizer, pivot, baseline, allow_pickle: as `compare` takes them.
        settings: of `capture`.

    Raises:
        InputError: before the first forward pass, where a model is not at hand or is several, or
            where `patching` of weights would raise.
    """
    first = next(iter(models)) if baseline is None else baseline
    if corpus is None or first not in models:
        raise InputError(
            "patching=True runs the models: give a corpus, and models or checkpoints in place of Representations"
        )
    loaded: dict[str, tuple[Any, Any]] = {}
    for name, model in models.items():
        if isinstance(model, str | Path):
            loaded[name] = load_checkpoint(model, allow_pickle=allow_pickle)
        elif isinstance(model, PreTrainedModel):
            loaded[name] = model, tokenizer.get(name) if isinstance(tokenizer, Mapping) else tokenizer
        else:
            what = "several" if isinstance(model, list | tuple) else type(model).__name__
            raise InputError(
                f"{name}: patching=True runs each model, and this is {what}. Give one model of transformers, or a "
                "checkpoint"
            )
    # A comparison judges models of masked tokens by their states: their head is left out here too.
    loaded = {k: (m.base_model if _of_masked_tokens(m) else m, own) for k, (m, own) in loaded.items()}
    base, own = loaded[first]
    out = [Pair(base, other, own, (first, name)) for name, (other, _) in loaded.items() if name != first]
    for pair in out:
        how = {k: v for k, v in (settings or {}).items() if k != "progress"}
        check_patching(*pair[:3], corpus, at="weights", pivot=pivot, names=pair.names, **how)
    return out


def _of_masked_tokens(model: PreTrainedModel) -> bool:
    return kind_of(model) == "tokens" and predicted_tokens(model) != "next"


def causes_of(pair: Pair, corpus: datasets.Dataset, **settings: Any) -> list[dict[str, Any]]:
    """Return, of a compressed model, what each layer is the cause of, as `causes` says it.

    Args:
        pair: of `pairs_of`.
        corpus: as `load_corpus` gives it.
        settings: of `patching`: pivot, draws, seed, progress and those of `capture`.

    Returns:
        The rows of `causes`, as JSON keeps them, with `bytes` of the original's block; measures of
        the next token are named as the probes that judge it, each the mean over texts of what their
        tokens lose.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)  # a verdict says where nothing was lost
        weights, states = (
            patching(*pair[:3], corpus, names=pair.names, at=at, **settings) for at in ("weights", "layers")
        )
    rows = causes(weights, states)
    if kind_of(pair.base) == "tokens":
        rows["measure"] = rows["measure"].replace(_OF_TOKENS)
    sizes = [sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks_of(pair.base)]
    rows["bytes"] = [sizes[layer - 1] for layer in rows["layer"]]
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in rows.to_dict("records")
    ]


def causes(weights: xr.Dataset, states: xr.Dataset | None = None) -> pd.DataFrame:
    """Return which layers cause what was lost.

    A layer is named where its original weights alone give something back: where the interval of
    what they give back, which holds for all layers and languages of a measure at once, leaves out
    zero and lies above it.

    Args:
        weights: of `patching(..., at="weights")`.
        states: of `patching(..., at="layers")`, for the share that goes away with the states.

    Returns:
        A row a measure, layer and language: `gain, low, high` in units of the measure, `damage`,
        `named`, and `restored` with its ends where states were given.

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
        one = weights.sel(measure=measure)
        cells = one["gain"].stack(cell=("layer", "language"))
        gap = cells.values
        draws = one["gain_draws"].stack(cell=("layer", "language")).transpose("cell", "draw").values
        damage = one["damage"].sel(language=cells["language"].values).values
        units = one["units"].sel(language=cells["language"].values).values
        low, high = np.full((2, len(gap)), np.nan)
        at = np.flatnonzero(np.isfinite(gap) & np.isfinite(draws).any(axis=1) & (units > 1))
        if len(at):
            unseen = 2.0 / units[at] ** 2 if measure in SHARES else np.zeros(len(at))
            scale = np.abs(damage[at]) + np.abs(gap[at])
            found = calibrated(gap[at], draws[at], scale, unseen, np.zeros(len(at), int), units[at])
            low[at], high[at] = found.adjusted_low, found.adjusted_high
        table = {
            "measure": str(measure),
            "layer": cells["layer"].values.astype(int),
            "language": cells["language"].values.astype(str),
            "gain": gap,
            "low": low,
            "high": high,
            "damage": damage,
            "named": low > 0,
        }
        if states is not None:
            at_cells: dict[Any, Any] = {k: xr.DataArray(cells[k].values, dims="cell") for k in ("layer", "language")}
            beside = states.sel({"measure": measure} | at_cells)
            table |= {
                "restored": beside["value"].values,
                "restored_low": beside["low"].values,
                "restored_high": beside["high"].values,
            }
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)
