"""Where the parts of a layer are: one table of architectures, and what is read from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from probes.errors import InputError

# Where the parts of a layer are, from the layer: query, key, value, what they are joined by, and the feed-forward pair.
BERT = {
    "layers": "encoder.layer",
    "attention": "attention.self",
    "projections": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "joined": "attention.output.dense",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "channels": "intermediate_size",
}
DISTILBERT = {
    "layers": "transformer.layer",
    "attention": "attention",
    "projections": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "joined": "attention.out_lin",
    "inner": "ffn.lin1",
    "outer": "ffn.lin2",
    "channels": "hidden_dim",
}
FAMILIES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT),
    "distilbert": DISTILBERT,
}


def family_of(model: PreTrainedModel) -> dict[str, Any]:
    """Return where the parts of a model are; raise `InputError` where that is not known."""
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        raise InputError(
            f"{type(model).__name__}: structured pruning knows the architectures {', '.join(FAMILIES)}, and not "
            f"{model.config.model_type!r}. Use compress.prune, which removes single weights, in its place"
        )
    parts = (*family["projections"], family["joined"], family["inner"], family["outer"])
    for number, layer in enumerate(layers_of(model, family)):
        for part in parts:
            if type(layer.get_submodule(part)) is not nn.Linear:
                raise InputError(
                    f"layer {number}, {part}: expected a plain torch.nn.Linear, found "
                    f"{type(layer.get_submodule(part)).__name__}. Prune the structure first, then quantise or wrap it"
                )
    return family


def layers_of(model: PreTrainedModel, family: dict[str, Any]) -> nn.ModuleList:
    """Return the layers of a model."""
    layers = model.base_model.get_submodule(family["layers"])
    assert isinstance(layers, nn.ModuleList)
    return layers


def linear_of(layer: nn.Module, name: str) -> nn.Linear:
    """Return a linear map of a layer by its name."""
    linear = layer.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def head_size_of(layer: nn.Module, family: dict[str, Any]) -> int:
    """Return how many features a head of a layer has."""
    size = layer.get_submodule(family["attention"]).attention_head_size
    assert isinstance(size, int)
    return size


def ends_of(layer: nn.Module, family: dict[str, Any], what: str) -> tuple[nn.Linear, nn.Linear, int]:
    """Return the map that heads or channels are read with, the one that writes them, and the features of each."""
    if what == "heads":
        return (
            linear_of(layer, family["projections"][2]),
            linear_of(layer, family["joined"]),
            head_size_of(layer, family),
        )
    return linear_of(layer, family["inner"]), linear_of(layer, family["outer"]), 1


def count_of(layer: nn.Module, family: dict[str, Any], what: str) -> int:
    """Return how many heads or channels a layer has."""
    _, write, size = ends_of(layer, family, what)
    return write.in_features // size


def keep_parts(layer: nn.Module, family: dict[str, Any], what: str, numbers: list[int]) -> None:
    """Keep the heads or channels of these numbers in a layer, in place."""
    read, write, size = ends_of(layer, family, what)
    features = (torch.tensor(numbers)[:, None] * size + torch.arange(size)).flatten()
    for linear in [linear_of(layer, name) for name in family["projections"]] if what == "heads" else [read]:
        _slice(linear, 0, features)
    _slice(write, 1, features)
    if what == "heads":
        attention = layer.get_submodule(family["attention"])
        for name, value in {
            "num_attention_heads": len(numbers),
            "n_heads": len(numbers),
            "all_head_size": len(features),
        }.items():
            if hasattr(attention, name):
                setattr(attention, name, value)


def _slice(linear: nn.Linear, dimension: int, features: torch.Tensor) -> None:
    """Keep some outputs (dimension 0) or inputs (dimension 1) of a linear map, in place."""
    for parameter in (linear.weight, linear.bias) if dimension == 0 else (linear.weight,):
        if parameter is not None:
            parameter.data = parameter.data.index_select(dimension, features.to(parameter.device)).contiguous()
    linear.out_features, linear.in_features = linear.weight.shape
