"""What models are called: a name for each; replicates, that of their model and a number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from transformers import PreTrainedTokenizerBase

from probes.errors import InputError


def by_name(models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the models of every name, each by a name of its own.

    Args:
        models: name -> a model, or a list of at least two: one model trained with several seeds.

    Raises:
        InputError: there is none; a name is no text, or would stand for two; a list holds fewer
            than two, or one twice.

    Example:
        >>> by_name({"base": "a", "pruned": ["b", "c"]})
        {'base': {'base': 'a'}, 'pruned': {'pruned (1)': 'b', 'pruned (2)': 'c'}}
    """
    if not models:
        raise InputError("expected at least one model, name -> model; found none")
    out: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        if not isinstance(name, str) or not name.strip() or "\0" in name or re.search("[\ud800-\udfff]", name):
            raise InputError(f"a model is called {name!r}: expected a text of at least one letter, in Unicode")
        if not isinstance(model, list | tuple):
            out[name] = {name: model}
            continue
        if len(model) < 2:
            raise InputError(
                f"model {name!r}: expected at least two replicates in a list, found {len(model)}. "
                "Give one model without a list"
            )
        keys = [Path(one) if isinstance(one, str | Path) else id(one) for one in model]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise InputError(
                    f"model {name!r}: replicates {keys.index(key) + 1} and {i + 1} are the same. Replicates are one "
                    "model trained with several seeds: give each once"
                )
        out[name] = {f"{name} ({number})": one for number, one in enumerate(model, start=1)}
    for name in out:
        for other, replicates in out.items():
            if other != name and name in replicates:
                raise InputError(f"a model is called {name!r}, as is a replicate of {other!r}. Give it another name")
    return out


def check_pairs(replicates: Mapping[str, Mapping[str, Any]], baseline: str) -> None:
    """Raise `InputError` where replicates of a model and of the baseline cannot be paired."""
    count = len(replicates[baseline])
    for name, own in replicates.items():
        if len(own) != count and 1 not in (count, len(own)):
            raise InputError(
                f"model {name!r} has {len(own)} replicates and the baseline {baseline!r} has {count}: expected as many "
                "of both, which are compared in pairs, or one of either"
            )


def check_depths(replicates: Mapping[str, Mapping[str, Any]], known: Mapping[str, Any]) -> None:
    """Raise `InputError` where replicates of a model have other layers than its first.

    Args:
        replicates: as `by_name` gives them.
        known: of each its configuration, itself, or its Representations, as far as they are known.
    """
    for name, own in replicates.items():
        (_, first), *others = ((number, _layers(known.get(one))) for number, one in enumerate(own, start=1))
        for number, layers in others:
            if None not in (first, layers) and layers != first:
                raise InputError(
                    f"model {name!r}: replicate 1 has {first} and replicate {number} has {layers}. Replicates are one "
                    "model trained with several seeds: give models of another depth names of their own"
                )


def _layers(model: Any) -> str | None:
    """The layers of a model in words, where they are known."""
    if isinstance(model, xr.Dataset):
        layers = model["layer"].values.tolist()
        whole = layers == list(range(len(layers)))
        return f"layers 0 to {len(layers) - 1}" if whole else f"layers {', '.join(map(str, layers))}"
    depth = getattr(getattr(model, "config", model), "num_hidden_layers", None)
    return f"layers 0 to {depth}" if isinstance(depth, int) else None


def tokenizers_of(
    models: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None
) -> dict[str, PreTrainedTokenizerBase]:
    """Return the tokenizers of models that are given as such; raise `InputError` where one has none."""
    found = {}
    for name, model in models.items():
        if isinstance(model, torch.nn.Module):
            own = tokenizer.get(name) if isinstance(tokenizer, Mapping) else tokenizer
            if own is None:
                raise InputError(f"model {name!r} comes without a tokenizer: expected tokenizer=..., or its name in it")
            found[name] = own
        elif not isinstance(model, str | Path | xr.Dataset):
            raise InputError(
                f"model {name!r}: expected a torch model, the path or name of a checkpoint, or Representations; "
                f"found {type(model).__name__}"
            )
    return found
