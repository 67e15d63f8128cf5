"""The weight matrices that compressions work on: those of the linear maps inside a model's repeated blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from probes.errors import InputError

_Value = TypeVar("_Value")


def block_matrices(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the weight matrices of the linear maps inside a model's repeated blocks, by name."""
    found: dict[str, torch.nn.Parameter] = {}
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    lists = [name for name, module in model.base_model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    for name, module in model.base_model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and any(name.startswith(f"{block}.") for block in lists):
            assert isinstance(module.weight, torch.nn.Parameter)
            found[f"{prefix}{name}.weight"] = module.weight
    return found


def matrices_of(
    model: PreTrainedModel, only: str | None = None, embeddings: bool = False
) -> dict[str, torch.nn.Parameter]:
    """Return the weight matrices that a compression works on, by name.

    Args:
        model: a model of transformers.
        only: a regular expression; of the matrices only those whose name it finds.
        embeddings: also the table of token embeddings, first.

    Raises:
        InputError: there are none, or none whose name is found.
    """
    found: dict[str, torch.nn.Parameter] = {}
    if embeddings:
        table = model.get_input_embeddings().weight
        found |= {name: p for name, p in model.named_parameters() if p is table}
    found |= block_matrices(model)
    if not found:
        raise InputError(f"{type(model).__name__} has no weight matrices inside repeated blocks, so none to compress")
    return found_by(only, found)


def found_by(only: str | None, matrices: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return those of some matrices whose name a regular expression finds, or all; raise `InputError` for none."""
    found = {name: value for name, value in matrices.items() if only is None or re.search(only, name)}
    if not found:
        raise InputError(f"only={only!r} finds none of the matrices; they are {', '.join(list(matrices)[:6])}, ...")
    return found
