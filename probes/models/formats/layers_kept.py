"""Models that lost layers: what their configuration says then, and how one is made whose layers are
not as their places say.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from probes.errors import InputError
from probes.models.blocks import depth_of, family_of, has_part, layers_of, stacks_of
from probes.models.facts import name_of
from probes.models.formats.format import Format
from probes.models.parts import FAMILIES

# Keys that say something of each layer.
_LISTS = ("layer_types", "attention_window", "no_rope_layers", "attention_layers", "mlp_layer_types")
_OTHERS = ("attention_types", "mlp_only_layers", "decoder_sparse_step", "first_k_dense_replace", "max_window_layers")
_MOST = 1024  # layers: a file that says more is none of ours
_PLACES = ("layer_idx", "layer_id")


def keep_layers(model: PreTrainedModel, numbers: Sequence[int]) -> dict[str, Any]:
    """Keep the layers of these numbers, ascending, of an encoder-decoder those of the encoder, in
    place.

    Kinds of layers go with them: those of sliding windows, of mixtures of experts, of positions.

    Returns:
        What the configuration said before, by its keys, of what it says otherwise now.
    """
    family = family_of(model)
    row, layers = stacks_of(model, family)[0]
    config: Any = model.config
    depth, kept = depth_of(model, family), list(numbers)
    gone_first = kept[0] != 0
    if row.shared and len(layers) > 1:
        raise InputError(
            f"{name_of(model)} ({config.model_type}): its {depth} layers share {len(layers)} blocks by their places, "
            "and would take others without some. Use prune_heads or prune_channels"
        )
    if gone_first and row.after_first and has_part(model.base_model, row.after_first):
        raise InputError(
            f"{name_of(model)} ({config.model_type}): {row.after_first} follows its first layer, so layer 0 cannot go. "
            "Leave it in: name others"
        )
    before = {row.layers: depth} | {key: getattr(config, key) for key in _LISTS if _by_layer(config, key, depth)}
    for key in list(before)[1:]:
        setattr(config, key, [before[key][i] for i in kept])
    if hasattr(config, "attention_types"):  # of GPT-Neo: what its list is made of
        before["attention_types"] = config.attention_types
        config.attention_types = [[list(config.attention_layers), 1]]
    _say_experts(config, before, kept, depth)
    if isinstance(getattr(config, "max_window_layers", None), int):
        before["max_window_layers"] = config.max_window_layers
        config.max_window_layers = sum(i < config.max_window_layers for i in kept)
    setattr(config, row.layers, len(kept))
    own: Any = getattr(model.base_model.get_submodule(row.blocks.rpartition(".")[0]), "config", config)
    for key in before if own is not config else ():  # an encoder that has a copy, as that of T5
        setattr(own, key, getattr(config, key))
    if row.shared:
        return before
    module, part, flag = row.first
    if module and gone_first:
        old, new = layers[0].get_submodule(module), layers[kept[0]].get_submodule(module)
        setattr(new, part, getattr(old, part))
        setattr(new, flag, True)
    for number in sorted(set(range(depth)) - set(kept), reverse=True):
        del layers[number]
    _renumber(layers)
    return before


def _by_layer(config: Any, key: str, depth: int) -> bool:
    value = getattr(config, key, None)
    return isinstance(value, list | tuple) and len(value) == depth


def _say_experts(config: Any, before: dict[str, Any], kept: Sequence[int], depth: int) -> None:
    """Say which of the layers have experts."""
    if isinstance(getattr(config, "mlp_only_layers", None), list | tuple):
        dense, step = set(config.mlp_only_layers), getattr(config, "decoder_sparse_step", 1)
        before |= {"mlp_only_layers": config.mlp_only_layers, "decoder_sparse_step": step}
        dense |= {i for i in range(depth) if (i + 1) % step}
        config.mlp_only_layers = [place for place, i in enumerate(kept) if i in dense]
        config.decoder_sparse_step = 1
    if isinstance(getattr(config, "first_k_dense_replace", None), int):
        before["first_k_dense_replace"] = config.first_k_dense_replace
        config.first_k_dense_replace = sum(i < config.first_k_dense_replace for i in kept)


def _renumber(layers: nn.ModuleList) -> None:
    """Make places in a decoder's cache fit the layers that are there."""
    for number, layer in enumerate(layers):
        for module in layer.modules():
            for name in _PLACES:
                if getattr(module, name, None) is not None:
                    setattr(module, name, number)


def apply_layers(model: PreTrainedModel) -> None:
    """Give a freshly made model, in place, the layers that its configuration says were kept of
    another.

    `config.layers_kept` has their `numbers` and what its configuration said, where layers are not
    as their places make them: without the norm that a first layer lacks, or of another scale.
    """
    said = LAYERS_KEPT.said(model.config)
    if said is None:
        return
    base: Any = model.base_model
    config = copy.deepcopy(model.config)
    del config.layers_kept
    for key, value in said["of"].items():
        setattr(config, key, value)
    # Not the class that this is called by, which would do so again.
    kind = next(c for c in type(base).__mro__ if getattr(sys.modules[c.__module__], c.__name__, None) is c)
    whole = kind(config)
    family = family_of(model)
    mine, theirs = layers_of(model, family), layers_of(whole, family)
    for place, number in enumerate(said["numbers"]):
        for module in theirs[number].modules():
            if hasattr(module, "config"):
                module.config = model.config
        mine[place] = theirs[number]
    _renumber(mine)


def _check(config: PreTrainedConfig, name: str) -> None:
    numbers, of = LAYERS_KEPT.said(config)["numbers"], LAYERS_KEPT.said(config)["of"]
    family = FAMILIES.get(config.model_type)
    strange = set(of) - {*_LISTS, *_OTHERS, *([family.layers] if family is not None else [])}
    if strange:
        raise InputError(
            f"{name}: config.layers_kept says {', '.join(sorted(strange))} of the model that the layers are from: "
            "expected what counts or names its layers. The configuration was changed, or is not this model's"
        )
    depth = of.get(family.layers) if family is not None else None
    lists = [key for key in _LISTS if _by_layer(config, key, len(numbers))]
    if (
        sorted(set(numbers)) != list(numbers)
        or not isinstance(depth, int)
        or depth > _MOST
        or not numbers
        or numbers[-1] >= depth
        or (family is not None and getattr(config, family.layers) != len(numbers))
        or not all(_by_layer(SimpleNamespace(**of), key, depth) for key in {*lists, *(k for k in of if k in _LISTS)})
    ):
        raise InputError(
            f"{name}: config.layers_kept names the layers {numbers} of a model of {depth}, and the configuration does "
            "not say the same of them. Load a folder as compress.save wrote it"
        )


LAYERS_KEPT = Format(
    "layers_kept", "layers of another model", {"numbers": [range(_MOST)], "of": dict}, check=_check, make=apply_layers
)
