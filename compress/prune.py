"""Pruning: set weights to zero, by magnitude and in one shot."""

from __future__ import annotations

import copy

import torch
import transformers
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from compress.saving import record
from probes.checkpoint import weights_fingerprint
from probes.errors import InputError


def prune(model: PreTrainedModel, *, sparsity: float) -> PreTrainedModel:
    """Return a copy of a model with the smallest weights of every matrix set to zero.

    One-shot magnitude pruning, layer-wise: in each weight matrix of the transformer blocks (query, key, value,
    attention output, feed-forward) the share `sparsity` of the entries that are smallest in absolute value becomes
    exactly zero. Embeddings, norms, biases, pooler and head stay as they are.

    Args:
        model: a model of transformers; it is not changed.
        sparsity: share of each pruned matrix that becomes zero, at least 0 and below 1.

    Returns:
        A new model of the same class. `model.config.compression` says what was done to it, over the pruned matrices
        and over the whole model, and is saved with it.

    Raises:
        InputError: the sparsity is out of range, or the model has no matrices in blocks.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> pruned = prune(model, sparsity=0.6)
        >>> round(pruned.config.compression["sparsity_of_pruned"], 2)
        0.6
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity={sparsity}: expected at least 0 and below 1, the share of weights that become zero")
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    pruned = copy.deepcopy(model)
    matrices = block_matrices(pruned)
    if not matrices:
        raise InputError(f"{type(model).__name__} has no weight matrices inside repeated blocks, so none to prune")
    with torch.no_grad():
        for weight in matrices.values():
            weight[_smallest(weight, sparsity)] = 0
    zeros = sum(int((w == 0).sum()) for w in matrices.values())
    total = sum(w.numel() for w in matrices.values())
    every = list(pruned.parameters())
    return record(
        pruned,
        {
            "method": "prune",
            "criterion": "magnitude, layer-wise, one shot",
            "sparsity": sparsity,
            "sparsity_of_pruned": zeros / total,
            "sparsity_of_model": sum(int((p == 0).sum()) for p in every) / sum(p.numel() for p in every),
            "pruned": sorted(matrices),
            "parent": weights_fingerprint(model),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )


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


def _smallest(weight: torch.Tensor, share: float) -> torch.Tensor:
    """Mark the given share of the entries, smallest first; of equal ones the last, so that the count is exact."""
    keep = weight.numel() - round(share * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[keep:]] = True
    return mask.view_as(weight)
