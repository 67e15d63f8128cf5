"""The weight matrices that compressions work on: those of the linear maps inside a model's repeated blocks."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


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
