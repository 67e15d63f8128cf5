"""The weights of a model: those of its repeated blocks, and the bytes that all take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from transformers import PreTrainedModel

from probes.models.fingerprint import plain_parts


def repeated_modules(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the modules of a model's repeated blocks, by their names in the model without its head:
    those inside lists of modules, or all of a model that has no such lists, as recurrent ones.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> next(repeated_modules(model))[0]
        'encoder.layer.0'
    """
    every = dict(model.base_model.named_modules())
    lists = tuple(f"{name}." for name, module in every.items() if isinstance(module, torch.nn.ModuleList))
    for name, module in every.items():
        if name.startswith(lists) if lists else name:
            yield name, module


def block_weights(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the weights of a model's repeated blocks, by name: parameters of two dimensions or
    more, but biases and tables of embeddings; one that modules share comes once.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> len(block_weights(model))  # 6 blocks of 6
        36
    """
    inside = {
        id(p)
        for _, module in repeated_modules(model)
        if not isinstance(module, torch.nn.Embedding)
        for name, p in module.named_parameters(recurse=False)
        if p.ndim > 1 and not name.startswith("bias") and not name.endswith("bias")
    }
    return {name: p for name, p in model.named_parameters() if id(p) in inside}


def hoyer_sparsity(weights: Iterable[torch.Tensor]) -> float:
    """Return the mean over matrices of Hoyer's sparsity: 0 where all weights are of one size, 1 where
    one alone is not zero. NaN without a matrix, or where one is all zero.

    With n weights w of a matrix: (sqrt(n) - ||w||_1 / ||w||_2) / (sqrt(n) - 1).

    Notes:
        Hoyer 2004, Journal of Machine Learning Research 5.

    Example:
        >>> hoyer_sparsity([torch.ones(2, 2)]), hoyer_sparsity([torch.eye(4)[:1]])
        (0.0, 1.0)
    """
    found = []
    for weight in weights:
        w = weight.detach().double()
        root = math.sqrt(w.numel())
        length = float(w.norm())
        found.append((root - float(w.abs().sum()) / length) / (root - 1) if length and root > 1 else math.nan)
    return sum(found) / len(found) if found else math.nan


def embedding_parameters(model: PreTrainedModel) -> int:
    """Return how many parameters of a model are in tables of embeddings: of tokens, positions, ...

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> embedding_parameters(model) == sum(p.numel() for p in model.bert.embeddings.parameters()) - 2 * 128
        True
    """
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    found = {id(p): p.numel() for table in [*tables, model.get_input_embeddings()] for p in table.parameters()}
    return sum(found.values())


def stored_bytes(model: torch.nn.Module) -> int:
    """Return how many bytes the weights of a model take on disk; shared ones are stored once.

    Example:
        >>> import probes
        >>> stored_bytes(probes.load_checkpoint("bundled")[0]) // 10**6
        6
    """
    sizes: dict[int, int] = {}
    for tensor in model.state_dict().values():
        for plain in plain_parts(tensor):
            storage = plain.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())
