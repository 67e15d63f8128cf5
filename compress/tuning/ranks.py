"""More of the rank of a matrix in factors: what of the difference from the original is largest."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from probes.models.formats.factorized import LowRankLinear

_STEPS = 16  # from nothing to the full rank


def more_ranks(module: nn.Module, whole: nn.Module) -> LowRankLinear | None:
    """Return a map in factors with more ranks: those of the difference from the original that are
    largest, a sixteenth of all at a time. None where the whole matrix would take no more bytes, or
    where it is in no two factors.

    Args:
        module: in the compressed model.
        whole: what it was in the original.

    Notes:
        By Eckart and Young 1936 no other factors of this rank, added to those that are there, come
        closer to the original's matrix. Those that are there stay as they are.

    Example:
        >>> whole, low = torch.nn.Linear(32, 32), LowRankLinear(32, 32, rank=4)
        >>> more_ranks(low, whole).first.out_features
        6
    """
    count = ranks_then(module)
    if count is None or not isinstance(module, LowRankLinear):
        return None
    first, second = module.first.weight.detach(), module.second.weight.detach()
    wanted = matrix_of(whole).to(first)
    left, size, right = torch.linalg.svd((wanted - second @ first).double(), full_matrices=False)
    new = count - first.shape[0]
    root = size[:new].sqrt()
    bias = module.second.bias
    sizes = module.in_features, module.out_features, count
    out = LowRankLinear(*sizes, bias=bias is not None, device=first.device, dtype=first.dtype)
    with torch.no_grad():
        out.first.weight.copy_(torch.cat([first, (root[:, None] * right[:new]).to(first)]))
        out.second.weight.copy_(torch.cat([second, (left[:, :new] * root).to(first)], dim=1))
        if bias is not None:
            out.second.bias.copy_(bias)
    return out.train(module.training)


def ranks_then(module: nn.Module) -> int | None:
    """Return the rank that `more_ranks` gives.

    Example:
        >>> ranks_then(LowRankLinear(32, 32, rank=4)), ranks_then(LowRankLinear(32, 32, rank=14))
        (6, None)
    """
    if not isinstance(module, LowRankLinear):
        return None
    rows, columns = module.out_features, module.in_features
    count = module.first.out_features + math.ceil(min(rows, columns) / _STEPS)
    return count if count * (rows + columns) < rows * columns else None


def matrix_of(module: nn.Module) -> torch.Tensor:
    """Return the matrix (output, input) of a linear map."""
    weight = module.get_parameter("weight").detach()
    return weight.T if isinstance(module, Conv1D) else weight
