"""The weight matrices that are compressed: those of linear maps in a model's repeated blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from probes.errors import InputError
from probes.models.formats.extensions import check_allowed
from probes.models.formats.format import Verb

_Value = TypeVar("_Value")
_BLOCK = re.compile(r"(?:.*?\.)?\d+(?=\.)")


def block_matrices(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the weight matrices of the linear maps inside a model's repeated blocks, by name.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> len(block_matrices(model))  # 6 blocks of 6
        36
    """
    found: dict[str, torch.nn.Parameter] = {}
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    lists = [name for name, module in model.base_model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    for name, module in model.base_model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and any(name.startswith(f"{block}.") for block in lists):
            assert isinstance(module.weight, torch.nn.Parameter)
            found[f"{prefix}{name}.weight"] = module.weight
    return found


def block_of(name: str) -> str | None:
    """Return the name of the block that a parameter is in, up to its first number, or None."""
    found = _BLOCK.match(name)
    return None if found is None else found.group()


def matrices_of(
    model: PreTrainedModel, only: str | None = None, embeddings: bool = False
) -> dict[str, torch.nn.Parameter]:
    """Return the matrices that are compressed, by name; one that several modules share comes once.

    Args:
        model: a model of transformers.
        only: a regular expression; of the matrices only those whose name it finds.
        embeddings: also the table of token embeddings, first.

    Raises:
        InputError: there are none, or none whose name is found; `only` is no regular expression;
            the model is none of transformers, or its weights are stored by codes of another
            package.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> list(matrices_of(model, only=r"layer\\.0\\.output"))
        ['bert.encoder.layer.0.output.dense.weight']
    """
    check_plain(model)
    found: dict[str, torch.nn.Parameter] = {}
    if embeddings:
        table = getattr(model.get_input_embeddings(), "weight", None)
        named = {name: p for name, p in model.named_parameters() if p is table}
        if not named:
            raise InputError(
                f"{type(model).__name__}: its embeddings are no table of weights. Leave embeddings=True out"
            )
        found |= named
    found |= block_matrices(model)
    if not found:
        raise InputError(f"{type(model).__name__} has no weight matrices inside repeated blocks, so none to compress")
    return distinct(found_by(only, found))


def distinct(matrices: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    """Return some matrices without those that are the same parameter as one before them."""
    first = {id(w): name for name, w in reversed(list(matrices.items()))}
    return {name: w for name, w in matrices.items() if first[id(w)] == name}


def check_plain(model: PreTrainedModel, verb: Verb = "compress") -> None:
    """Raise `InputError` where a verb cannot work on a model: codes for weights, or a format."""
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    check_allowed(model, verb)


def check_finite(weight: torch.Tensor, name: str) -> None:
    """Raise `InputError` where a matrix holds a value that is NaN or infinite, and say where."""
    bad = ~torch.isfinite(weight)
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise InputError(
            f"{name}: row {row} holds {weight[row, column].item()}; {int(bad.sum())} of its {weight.numel()} values "
            "are NaN or infinite. Look at how it was trained or saved"
        )


def found_by(only: str | None, matrices: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return those of some matrices whose name an expression finds; raise `InputError` for none."""
    try:
        found = {name: value for name, value in matrices.items() if only is None or re.search(only, name)}
    except re.error as error:
        raise InputError(f"only={only!r} is no regular expression: {error}") from error
    if not found:
        raise InputError(f"only={only!r} finds none of the matrices; they are {', '.join(list(matrices)[:6])}, ...")
    return found


def is_transposed(model: PreTrainedModel, name: str) -> bool:
    """Whether a matrix holds its inputs along the first dimension, as GPT-2's do."""
    return isinstance(model.get_submodule(name.removesuffix(".weight")), Conv1D)


def transposed(model: PreTrainedModel, names: Mapping[str, Any]) -> dict[str, bool]:
    """Return for each matrix whether it holds its inputs along the first dimension."""
    return {name: is_transposed(model, name) for name in names}
