"""Is the head of a model in its weights, or would it be drawn at random?"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping

from transformers import PreTrainedModel

from probes.errors import LayerscopeWarning


def head_of(model: PreTrainedModel) -> list[str]:
    """Return the names of the parameters that a model has beside its body and that are its own.

    Args:
        model: a model of transformers, also one without numbers.

    Example:
        >>> import probes
        >>> head_of(probes.load_checkpoint("bundled")[0])
        ['classifier.weight', 'classifier.bias']
    """
    if model.base_model is model:
        return []
    body = {id(p) for p in model.base_model.parameters()}
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    ignored = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    return [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) not in body
        and name not in tied
        and not name.startswith("sparse_head.")  # which only a configuration of ours asks for
        and not any(re.search(pattern, name) for pattern in ignored)
    ]


def missing_of_head(model: PreTrainedModel, missing: Collection[str]) -> list[str]:
    """Return which of the weights that a file lacks the outputs of a model's head depend on.

    Args:
        model: a model of transformers with or without a head.
        missing: names of parameters that were in no file; those of a pooler among them count where
            a head reads it.
    """
    head = head_of(model)
    if not head:
        return []
    return sorted({*missing} & {*head} | {name for name in missing if "pooler" in name})


def missing_in_files(model: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return which weights of a model's head are in no file, from the headers of the files alone.

    Where a tensor that is called otherwise has the shape, it may be the one: transformers renames
    some while it loads them.

    Args:
        model: the model, made without numbers.
        shapes: of every tensor in the files, by name.
    """
    prefix = f"{model.base_model_prefix}."
    stored = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items()}
    own = {name.removeprefix(prefix): (name, tuple(p.shape)) for name, p in model.named_parameters()}
    spare = {name: shape for name, shape in stored.items() if name not in own}
    coded = {name.rpartition(".")[0] for name in spare}  # modules that have parts of other names, as codes
    missing = [
        name
        for bare, (name, shape) in own.items()
        if bare not in stored and shape not in spare.values() and bare.rpartition(".")[0] not in coded
    ]
    return missing_of_head(model, missing)


def warn_of_head(missing: Collection[str], name: str, stacklevel: int) -> None:
    """Warn that a checkpoint is loaded without its head, whose weights are missing.

    Args:
        missing: the weights that it has not got.
        name: what the checkpoint is called.
        stacklevel: of the caller's caller, as `warnings.warn` counts.

    Example:
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     warn_of_head(["classifier.weight"], "tiny", 1)
        >>> str(said[0].message)[:58]
        'tiny: its head is not in its weights (classifier.weight), '
    """
    listed = ", ".join(sorted(missing)[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
    warnings.warn(
        f"{name}: its head is not in its weights ({listed}), and would be drawn at random: the model is loaded without "
        "it, and nothing is measured of its outputs. Give the checkpoint that the head was trained in",
        LayerscopeWarning,
        stacklevel=stacklevel + 1,
    )
