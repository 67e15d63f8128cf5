"""The matrices that can be in factors, what stands in their place, and what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from compress.matrices import block_matrices, check_finite, found_by
from probes.errors import InputError
from probes.models.formats.factorized import (
    FACTORIZED,
    FACTORS,
    LowRankEmbedding,
    LowRankLinear,
    TensorTrainEmbedding,
    TensorTrainLinear,
    apply_factors,
)
from probes.models.formats.quantized_inputs import apply_quantized_inputs


@dataclass
class Matrix:
    """A matrix of a model: module, name, and values (output or token, input or feature)."""

    module: nn.Module
    name: str
    values: torch.Tensor

    @property
    def embedding(self) -> bool:
        """Whether it is a table of rows that are looked up, not a linear map."""
        return isinstance(self.module, nn.Embedding)


def free_matrices(model: PreTrainedModel, only: str | None, embeddings: bool) -> dict[str, Matrix]:
    """The matrices that are factorised, by the names of their parameters."""
    out = {}
    for key, module in free_modules(model, only, embeddings).items():
        found: Any = model.base_model.get_submodule(module)
        values = found.weight.detach().cpu()
        check_finite(values, key)
        out[key] = Matrix(found, module, values.T if isinstance(found, Conv1D) else values)
    return out


def free_modules(model: PreTrainedModel, only: str | None, embeddings: bool) -> dict[str, str]:
    """The names of the modules that are factorised, by those of their parameters."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    modules = dict(model.base_model.named_modules())
    in_factors = {id(part) for m in modules.values() if isinstance(m, FACTORS) for part in m.modules()}
    names = [name.removeprefix(prefix).removesuffix(".weight") for name in block_matrices(model)]
    free = [name for name in names if id(modules[name]) not in in_factors]
    if not free and not embeddings:
        raise InputError(
            f"{type(model).__name__}: all matrices inside its blocks are in factors already. Factorise the model as it "
            "was before"
            if names
            else f"{type(model).__name__} has no weight matrices inside repeated blocks, so none to factorise"
        )
    if embeddings:
        table = model.get_input_embeddings()
        if type(table) is not nn.Embedding:
            raise InputError(
                f"embeddings=True: expected one plain torch.nn.Embedding of tokens, found {type(table).__name__}"
            )
        free.append(next(name for name, module in modules.items() if module is table))
    named = found_by(only, {f"{prefix}{name}.weight": name for name in free})
    uses: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        uses.setdefault(id(parameter), []).append(key)
    for key, name in named.items():
        others = [other for other in uses[id(modules[name].weight)] if other != key]
        if others:
            raise InputError(
                f"{key} is one with {others[0]}, which factors would part. "
                + (
                    "Leave out embeddings=True, or give each its own weights first"
                    if isinstance(modules[name], nn.Embedding)
                    else "Factorise before layers are shared, or choose the others with only="
                )
            )
    return named


@dataclass
class Factors:
    """What comes in place of a matrix: its configuration, its values, what is recorded."""

    settings: dict[str, Any]
    values: list[torch.Tensor]
    about: dict[str, Any]


def put_factors(model: PreTrainedModel, matrices: Mapping[str, Matrix], chosen: Mapping[str, Factors]) -> None:
    """Put factors in place of some matrices of a model, in place."""
    if not chosen:
        return
    known = FACTORIZED.said(model.config) or {}
    model.config.factorized = known | {matrices[key].name: factors.settings for key, factors in chosen.items()}
    apply_factors(model)
    for key, factors in chosen.items():
        module = model.base_model.get_submodule(matrices[key].name)
        old: Any = matrices[key].module
        with torch.no_grad():
            if isinstance(module, LowRankLinear):
                module.first.weight.copy_(factors.values[0])
                module.second.weight.copy_(factors.values[1])
            elif isinstance(module, LowRankEmbedding):
                module.weight.copy_(factors.values[0].T)
                module.second.weight.copy_(factors.values[1])
            elif isinstance(module, TensorTrainLinear | TensorTrainEmbedding):
                module.set_cores(factors.values)
            bias = module.second.bias if isinstance(module, LowRankLinear) else getattr(module, "bias", None)
            if bias is not None:
                bias.copy_(old.bias)
        for parameter in module.parameters():
            parameter.requires_grad_(old.weight.requires_grad)
    apply_quantized_inputs(model)


def tails_of(squares: torch.Tensor) -> torch.Tensor:
    """Sums of what is left of squares, in descending order, from each place on; 0 at the end."""
    return torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])


def least_rank(tails: torch.Tensor, allowed: float) -> int:
    """The lowest rank, at least 1, that loses no more than is allowed."""
    return max(1, int((tails <= allowed).nonzero()[0]))


def ratio(part: float, whole: float) -> float:
    """Return a part of a whole, 0 where there is nothing."""
    return part / whole if whole > 0 else 0.0


def relative_error(matrix: torch.Tensor, made: torch.Tensor) -> float:
    """Return ||W - W'|| / ||W||, Frobenius."""
    return ratio(float((matrix - made).norm()), float(matrix.norm()))
