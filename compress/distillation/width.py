"""Narrower students: the features or directions of what all layers share that are kept."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.matrices import check_plain
from compress.objectives.base import is_whole
from compress.pruning.structure import prune_channels, prune_heads
from probes.errors import InputError
from probes.models.blocks import family_of, head_size_of, sites_of
from probes.models.facts import name_of
from probes.models.parts import FAMILIES, Parts

INITIALISE = ("truncate", "svd")


def check_narrows(model: PreTrainedModel) -> Parts:
    """Return the parts of a model that narrower students are made of; raise `InputError` where none
    are.
    """
    family = family_of(model)
    if not family.narrows:
        known = ", ".join(kind for kind, row in FAMILIES.items() if row.narrows)
        raise InputError(
            f"hidden_size: narrower students are made of {known}, and not of {name_of(model)} "
            f"({model.config.model_type}): which of its weights are as wide as the model is not known here. Give one "
            "as student=..., or leave hidden_size out"
        )
    check_plain(model, "narrow")
    return family


def check_width(model: PreTrainedModel, hidden_size: int) -> None:
    """Raise `InputError` where a narrower student of this width cannot be made of a model."""
    family = check_narrows(model)
    whole, size = model.config.hidden_size, head_size_of(sites_of(model, family, "heads")[0])
    fits = is_whole(hidden_size) and 0 < hidden_size <= whole and hidden_size % size == 0
    if not fits:
        raise InputError(
            f"hidden_size={hidden_size!r}: expected a multiple of {size}, the size of an attention head, and at most "
            f"{whole}, the model's, so that whole heads are kept"
        )
    _rules(model)
    for name, weight in model.named_parameters():
        bad = int((~torch.isfinite(weight)).sum())
        if bad:
            raise InputError(
                f"{name}: {bad} of its {weight.numel()} values are NaN or infinite, so what it weighs is not known. "
                "Look at how it was trained or saved"
            )


def _rules(model: PreTrainedModel) -> tuple[dict[str, tuple[str | None, ...]], list[str]]:
    """Return which dimensions of parameters are the model's width, and what makes the pooled.

    "stream": what all layers read from and write to; "pooled": what the last linear map reads.
    """
    family = FAMILIES[model.config.model_type]
    feed_forward = family.feed_forwards[0]
    reads = [*family.attention.projections, *feed_forward.inner]
    writes = [family.attention.joined, feed_forward.outer]
    norms = "|".join({"LayerNorm", *(name.rpartition(".")[2] for name in family.norms)})  # the first of embeddings
    pooled = r"(pooler\.dense|pre_classifier|classifier\.dense)"
    layer = re.escape(family.blocks) + r"\.\d+\."
    known: list[tuple[str, tuple[str | None, ...]]] = [
        (r"embeddings\.\w+_embeddings\.weight", (None, "stream")),
        (rf"(.*\.)?({norms})\.(weight|bias)", ("stream",)),
        *((rf"{layer}{re.escape(name)}\.weight", (None, "stream")) for name in reads),
        *((rf"{layer}{re.escape(name)}\.bias", (None,)) for name in reads),
        *((rf"{layer}{re.escape(name)}\.weight", ("stream", None)) for name in writes),
        *((rf"{layer}{re.escape(name)}\.bias", ("stream",)) for name in writes),
        (rf"{pooled}\.weight", ("pooled", "stream")),
        (rf"{pooled}\.bias", ("pooled",)),
    ]
    prefix = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    makers = [n for n in names if re.fullmatch(rf"{pooled}\.weight", n.removeprefix(prefix))]
    known.append((r"(classifier|classifier\.out_proj|qa_outputs)\.weight", (None, "pooled" if makers else "stream")))
    known.append((r"(classifier|classifier\.out_proj|qa_outputs)\.bias", (None,)))
    rules = {}
    for name in names:
        found = [kinds for pattern, kinds in known if re.fullmatch(pattern, name.removeprefix(prefix))]
        if not found:
            raise InputError(
                f"hidden_size: how {name} of {type(model).__name__} is made narrower is not known. Give a student=..., "
                "or a model whose head gives classes"
            )
        rules[name] = found[0]
    return rules, makers


def narrow(model: PreTrainedModel, hidden_size: int, initialise: str) -> PreTrainedModel:
    """Return a narrower copy of a model, whose inputs are not rounded."""
    share = 1 - hidden_size / model.config.hidden_size
    small = prune_channels(prune_heads(model, share), share)
    config = copy.deepcopy(small.config)
    config.num_attention_heads = small.config.heads_kept[0]
    config.hidden_size = hidden_size
    del config.heads_kept, config.compression
    if hasattr(config, "quantized_inputs"):
        del config.quantized_inputs  # ranges of other features
    rules, makers = _rules(small)
    state = {name: p.detach().double() for name, p in small.named_parameters()}
    directions = _directions(state, rules, hidden_size, initialise)
    for name, kinds in rules.items():
        # The gain of a norm is no vector of the stream, but a scale of each feature.
        gain = initialise == "svd" and kinds == ("stream",) and re.search(r"(?i)norm\.weight$", name)
        for dimension, kind in enumerate(kinds):
            if kind == "stream":
                along = state[name].movedim(dimension, -1)
                along = (along.square() @ directions.square()).sqrt() if gain else along @ directions
                state[name] = along.movedim(-1, dimension)
    for maker in makers:
        _keep_pooled(state, rules, maker, hidden_size)
    with torch.random.fork_rng(devices=[]):
        narrow: Any = type(model)(config)
    narrow.to(device=model.device, dtype=model.dtype).train(model.training)
    own = dict(narrow.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
    return narrow


def _directions(
    state: Mapping[str, torch.Tensor], rules: Mapping[str, tuple[str | None, ...]], count: int, initialise: str
) -> torch.Tensor:
    """Return what is kept of the stream, as columns of unit length: (feature, count)."""
    width = next(state[n].shape[-1] for n, kinds in rules.items() if kinds == (None, "stream"))
    products = torch.zeros(width, width, dtype=torch.float64, device=next(iter(state.values())).device)
    for name, kinds in rules.items():
        if len(kinds) == 2 and "stream" in kinds:
            rows = state[name].movedim(kinds.index("stream"), -1)
            products += rows.T @ rows / rows.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    if initialise == "truncate":
        largest = torch.argsort(products.diagonal(), descending=True, stable=True)[:count].sort().values
        return torch.eye(width, dtype=torch.float64, device=products.device)[:, largest]
    directions = torch.linalg.eigh(products).eigenvectors.flip(1)[:, :count]
    # A direction has no sign of its own: its largest part is positive.
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    return directions * signs


def _keep_pooled(
    state: dict[str, torch.Tensor], rules: Mapping[str, tuple[str | None, ...]], maker: str, count: int
) -> None:
    """Keep the features of the largest weights of what a pooler gives, in place."""
    readers = [name for name, kinds in rules.items() if kinds == (None, "pooled")]
    bias = state[maker.removesuffix("weight") + "bias"]
    weight = state[maker].square().sum(1) + bias.square()
    for reader in readers:
        weight = weight * state[reader].square().sum(0)
    kept = torch.argsort(weight, descending=True, stable=True)[:count].sort().values
    for name, kinds in rules.items():
        if "pooled" in kinds:
            state[name] = state[name].index_select(kinds.index("pooled"), kept)
