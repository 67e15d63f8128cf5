"""Weights shared by a hash: each matrix is few numbers, dealt out to its places."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import block_matrices, check_finite, check_plain, covered, found_by, transposed
from compress.objectives.base import Objective
from compress.saving import record
from compress.training.inside import Training
from probes.errors import InputError
from probes.models.formats.hashed_weights import HASHED_WEIGHTS, HashedLinear, apply_hashing, can_be_hashed
from probes.models.formats.quantized_inputs import apply_quantized_inputs


def hash_weights(
    model: PreTrainedModel,
    *,
    share: float = 0.25,
    only: str | None = None,
    train: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    steps: int = 0,
    objective: Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model in which the weights of each matrix share few numbers by a hash.

    Which number a place has, and with which sign, is told by a hash of the place, so that nothing
    but the numbers is stored: they are what is saved, and what is trained. Each is the mean of the
    weights that share it, signs taken off, which is as near as they come to the matrix.

    Args:
        model: a model of transformers; it is not changed.
        share: numbers of a matrix over its weights, above 0 and at most 1.
        only: a regular expression; of the matrices only those whose name it finds are hashed.
        train: a corpus to train on afterwards.
        tokenizer: of the model, where there is text.
        steps: updates of the numbers, and of what else the model has; 0 for no training.
        objective: what is trained for, of `compress.objectives`; by default what the model's
            head is for: its labels, or the tokens of the text.
        teacher: for the objectives that need one; by default the model itself, as it is given.
        seed: of the hash and of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (evaluate, evaluate_at, callbacks, save_every, progress).

    Returns:
        A new model of the same class, its linear maps in the blocks
        `probes.models.formats.hashed_weights.HashedLinear`. `model.config.compression` says what was
        done to it, with the parameters before and after and for each matrix the `relative_error`
        ||W - W~|| / ||W||, before any training; after training `model.history` is what was logged.

    Raises:
        InputError: the share is out of range; no matrix is found, or one that several modules share;
            weights are not finite; what `compress.training.train` raises.

    Notes:
        Chen, Wilson, Tyree, Weinberger and Chen 2015, arXiv 1504.04788, there trained from scratch.
        Weights that share a number are no more alike than any: of a trained matrix about 1 - share
        of the squares is lost at once, and it takes a training to make something of it. Fewer bytes
        on disk and in a training; operations and time are as before, or more. Plain transformers
        does not load it: `probes.load_checkpoint` does. Matrices of experts, convolutions and LSTM
        layers stay as they are.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> small = hash_weights(model, share=0.125)
        >>> done = small.config.compression
        >>> done["parameters_of_parent"] - done["parameters"]  # 7/8 of 1,179,648 weights
        1032192

    See also:
        `fuse`, `product_quantize`, `save`.
    """
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
        raise InputError(f"share={share!r}: expected above 0 and at most 1, the numbers of a matrix over its weights")
    check_plain(model)
    training = Training(model, train, tokenizer, steps, objective, teacher, folder=folder, seed=seed, **settings)
    hashed = copy.deepcopy(model)
    modules = hashable(hashed, only)
    weights = {name: block_matrices(hashed)[name] for name in modules}
    touched = covered(hashed, weights, "hash_weights", asked=only is not None)
    for name, weight in weights.items():
        check_finite(weight.detach(), name)
    across = transposed(hashed, weights)
    values = {name: w.detach().T if across[name] else w.detach() for name, w in weights.items()}
    errors = _hash(hashed, modules, values, share, seed)
    training.run(hashed, about={"share": share, "only": only})
    what = {
        "method": "hash_weights",
        "share": share,
        "hashed": sorted(modules),
        "coverage": touched,
        "relative_error": errors,
        "parameters": sum(p.numel() for p in hashed.parameters()),
        "parameters_of_parent": sum(p.numel() for p in model.parameters()),
        "seed": seed,
    }
    return record(hashed, what | training.recorded(), parent=model, history=training.history)


def hashable(model: PreTrainedModel, only: str | None = None) -> dict[str, str]:
    """Return the modules whose weights a hash can deal out, by the names of their matrices: their
    names in the model without its head.

    Args:
        model: a model of transformers.
        only: a regular expression; of the matrices only those whose name it finds.

    Raises:
        InputError: there are none, or none whose name is found; modules share one.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> hashable(model, r"layer\\.0\\.output")
        {'bert.encoder.layer.0.output.dense.weight': 'encoder.layer.0.output.dense'}
    """
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    found = {}
    for name in block_matrices(model):
        path = name.removesuffix(".weight")
        if can_be_hashed(model.get_submodule(path)):
            found[name] = path.removeprefix(prefix)
    if not found:
        raise InputError(
            f"{type(model).__name__} has no plain linear maps inside repeated blocks, so none whose weights a hash "
            "could deal out"
        )
    named = found_by(only, found)
    places: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(key)
    for name in named:
        others = [other for other in places[id(model.get_parameter(name))] if other != name]
        if others:
            raise InputError(
                f"{name} is one with {others[0]}, which a hash would part. Hash before layers are shared, or choose "
                "the others with only="
            )
    return named


def _hash(
    model: PreTrainedModel, modules: Mapping[str, str], weights: Mapping[str, torch.Tensor], share: float, seed: int
) -> dict[str, float]:
    """Put hashed maps in place of some modules, in place; return how far each matrix moved."""
    every = list(block_matrices(model))
    said = dict(HASHED_WEIGHTS.said(model.config) or {})
    old: dict[str, Any] = {name: model.base_model.get_submodule(path) for name, path in modules.items()}
    for name, path in modules.items():
        drawn = np.random.SeedSequence([seed, every.index(name)]).generate_state(1, np.uint64)[0]
        said[path] = {"buckets": max(1, round(share * weights[name].numel())), "seed": int(drawn >> np.uint64(1))}
    model.config.hashed_weights = said
    apply_hashing(model)
    errors = {}
    for name, path in modules.items():
        module: nn.Module = model.base_model.get_submodule(path)
        assert isinstance(module, HashedLinear)
        numbers, signs = (t.flatten() for t in module.places())
        given = weights[name].double()
        sums = torch.zeros(module.buckets, dtype=torch.float64, device=given.device)
        sums.index_add_(0, numbers, given.flatten() * signs)
        with torch.no_grad():
            module.values[:, 0] = sums / numbers.bincount(minlength=module.buckets).clamp_min(1)
            if module.bias is not None:
                module.bias.copy_(old[name].bias)
        for parameter in module.parameters():
            parameter.requires_grad_(old[name].weight.requires_grad)
        length = float(given.norm())
        errors[name] = float((module.weight.detach().double() - given).norm()) / length if length else 0.0
    apply_quantized_inputs(model)
    return errors
