"""The weight matrices that are compressed: those of linear maps, of experts, of convolutions and of
LSTM layers, in a model's repeated blocks.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.pytorch_utils import Conv1D

from compress.experts import expert_matrices
from compress.kernels import kernel_matrices
from compress.views import MatrixView
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import name_of
from probes.models.formats.extensions import check_allowed
from probes.models.formats.format import Verb
from probes.models.formats.shared_layers import layer_parameters
from probes.models.weights import block_weights, repeated_modules

Matrix = torch.nn.Parameter | MatrixView
_Value = TypeVar("_Value")
_Weight = TypeVar("_Weight", bound=Matrix)
_LEAST = 0.95  # of the weights of blocks: where less is touched, it is said
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
    for name, module in repeated_modules(model):
        if isinstance(module, torch.nn.Linear | Conv1D):
            assert isinstance(module.weight, torch.nn.Parameter)
            found[f"{prefix}{name}.weight"] = module.weight
    return found


def block_of(name: str) -> str | None:
    """Return the name of the block that a parameter is in, up to its first number, or None."""
    found = _BLOCK.match(name)
    return None if found is None else found.group()


def matrices_of(model: PreTrainedModel, only: str | None = None, embeddings: bool = False) -> dict[str, Matrix]:
    """Return the matrices that are compressed, by name; one that several modules share comes once.

    After those of linear maps come those of convolutions and LSTM layers
    (`compress.kernels.kernel_matrices`), then those of experts, one by one.

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
    found: dict[str, Matrix] = {}
    if embeddings:
        table = getattr(model.get_input_embeddings(), "weight", None)
        named = {name: p for name, p in model.named_parameters() if p is table}
        if not named:
            raise InputError(
                f"{type(model).__name__}: its embeddings are no table of weights. Leave embeddings=True out"
            )
        found |= named
    found |= every_matrix(model)
    if not found:
        raise InputError(f"{type(model).__name__} has no weight matrices inside repeated blocks, so none to compress")
    return distinct(found_by(only, found))


def distinct(matrices: Mapping[str, _Weight]) -> dict[str, _Weight]:
    """Return some matrices without those that are the same parameter as one before them."""
    first = {_identity(w): name for name, w in reversed(list(matrices.items()))}
    return {name: w for name, w in matrices.items() if first[_identity(w)] == name}


def _identity(weight: Matrix) -> tuple[int, int]:
    return (id(weight.stack), weight.number) if isinstance(weight, MatrixView) else (id(weight), -1)


def every_matrix(model: PreTrainedModel) -> dict[str, Matrix]:
    """Return the weight matrices in the repeated blocks of a model, those of convolutions, LSTM
    layers and experts too.
    """
    return {**block_matrices(model), **kernel_matrices(model), **expert_matrices(model)}


def matrices_in(model: PreTrainedModel, names: Iterable[str]) -> dict[str, Matrix]:
    """Return the matrices that some modules have in them, or parameters of experts are, or layers
    of an LSTM have (as "lstm.0"), by the names of these in the model without its head.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> len(matrices_in(model, ["encoder.layer.0", "encoder.layer.1.output.dense"]))
        7
    """
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    known = dict(model.base_model.named_modules())
    listed = list(names)
    wanted = tuple(f"{prefix}{name}." for name in listed)
    layers = [name for name in listed if isinstance(known.get(name.rpartition(".")[0]), torch.nn.LSTM)]
    of_layers = {f"{prefix}{path}" for name in layers for path in layer_parameters(known, name).values()}
    return {
        name: weight for name, weight in every_matrix(model).items() if name.startswith(wanted) or name in of_layers
    }


def joined_in_files(model: PreTrainedModel) -> list[tuple[str, ...]]:
    """Return which matrices the files of a model keep as one tensor, by the ends of their names.

    Example:
        >>> import probes
        >>> joined_in_files(probes.load_checkpoint("bundled")[0])
        []
    """
    return [
        tuple(conversion.target_patterns)
        for conversion in get_model_conversion_mapping(model)
        if len(conversion.target_patterns) > 1
    ]


def coverage(model: PreTrainedModel, matrices: Mapping[str, Matrix]) -> float:
    """Return the share of the weights of a model's repeated blocks that some matrices are.

    Weights are parameters of two dimensions or more, but biases and tables of embeddings.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> round(coverage(model, matrices_of(model, only="attention")), 3)
        0.333
    """
    weights = block_weights(model)
    inside = {id(p) for p in weights.values()}
    touched = sum(m.numel() for m in distinct(matrices).values() if _identity(m)[0] in inside)
    return touched / sum(p.numel() for p in weights.values()) if weights else 0.0


def covered(
    model: PreTrainedModel, matrices: Mapping[str, Matrix], verb: str, asked: bool, otherwise: str = ""
) -> float:
    """Return the coverage of some matrices; warn where it is below 0.95, and name what is left out.

    Args:
        model: a model of transformers.
        matrices: what a verb touches.
        verb: what it is called.
        asked: whether less than all was asked for, as by only=.
        otherwise: what to do to reach the others.
    """
    share = coverage(model, matrices)
    if share >= _LEAST or asked:
        return share
    ours = {_identity(m)[0] for m in matrices.values()}
    left = [(-p.numel(), name) for name, p in block_weights(model).items() if id(p) not in ours]
    warnings.warn(
        f"{name_of(model)} ({model.config.model_type}): {verb} touches {share:.0%} of the weights of its blocks; "
        f"{min(left)[1]} and {len(left) - 1} more stay as they are" + (f". {otherwise}" if otherwise else ""),
        LayerscopeWarning,
        stacklevel=3,
    )
    return share


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


def transposed(model: PreTrainedModel, names: Iterable[str]) -> dict[str, bool]:
    """Return which matrices hold their inputs along the first dimension, as those of GPT-2 do."""
    experts, out = expert_matrices(model), {}
    for name in names:
        module = None if name in experts else model.get_submodule(name.rpartition(".")[0])
        out[name] = experts[name].inputs_first if name in experts else isinstance(module, Conv1D)
    return out
