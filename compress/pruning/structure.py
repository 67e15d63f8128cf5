"""Structured pruning: heads and channels really removed, so that models are smaller and faster."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import check_plain
from compress.pruning.importance import given_scores, magnitude_scores, taylor_scores
from compress.saving import record
from probes.errors import InputError, check_choice
from probes.models.parts import count_of, family_of, keep_parts, layers_of

IMPORTANCE = ("magnitude", "taylor", "random")
_KINDS = {"heads": "head", "channels": "channel"}


def prune_heads(
    model: PreTrainedModel,
    share: float,
    *,
    importance: str | npt.ArrayLike = "magnitude",
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Return a copy of a model without the least important attention heads of every layer.

    The same share in every layer: of n heads round(share * n) go, and at least one stays. The rows
    of query, key and value and the columns of the attention output are really removed; the rest of
    the model stays as it is.

    Args:
        model: a model of the BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA or DistilBERT family;
            it is not changed.
        share: share of each layer's heads that goes, at least 0 and below 1.
        importance: what says which heads matter. "magnitude": the Frobenius norm of the map that a
            head writes with, output times value (with its bias). "taylor": the mean over the texts
            of |dL/dm|, where m = 1 scales what the head gives and L is the cross-entropy of the
            text's label: to first order, how much L changes without it. "random": a control. Or
            scores of your own (layer, head), higher is more important.
        corpus, tokenizer: for "taylor", a corpus with labels and the model's tokenizer.
        seed: for "random".

    Returns:
        A new model of the same class. `model.config.compression` says which heads were kept, by
        their number in the model given.

    Raises:
        InputError: the share is out of range, the architecture is not known, scores of another
            shape, or, for "taylor", no corpus with labels that the model's head knows.

    Notes:
        The configuration of these architectures cannot say that heads are missing, so
        `probes.load_checkpoint` (not plain `from_pretrained`) loads what `compress.save` wrote.
        Michel, Levy and Neubig 2019, arXiv 1905.10650.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> pruned = prune_heads(model, 0.5)
        >>> pruned.config.compression["kept"][0]
        [0, 2]

    See also:
        `prune_channels`, `drop_layers`.
    """
    return _prune(model, "heads", share, importance, corpus, tokenizer, seed)


def prune_channels(
    model: PreTrainedModel,
    share: float,
    *,
    importance: str | npt.ArrayLike = "magnitude",
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Return a copy of a model without the least important feed-forward channels of every layer.

    The same share in every layer: of n channels round(share * n) go, and at least one stays. A
    channel is a row of the first feed-forward matrix, its bias, and a column of the second; all are
    really removed.

    Args:
        model: a model of a family that `prune_heads` knows; it is not changed.
        share: share of each layer's channels that goes, at least 0 and below 1.
        importance: as for `prune_heads`. The magnitude of a channel is the norm of what it reads
            with (its bias too) times the norm of what it writes with.
        corpus, tokenizer, seed: as for `prune_heads`.

    Returns:
        A new model of the same class, which plain transformers loads when it is saved.
        `model.config.compression` says which channels were kept, by their number in the model given
        ("0-3,7" are 0, 1, 2, 3 and 7).

    Raises:
        InputError: as `prune_heads`.

    Notes:
        Molchanov et al. 2019, arXiv 1906.10771, for the Taylor importance.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> prune_channels(model, 0.75).config.intermediate_size
        128

    See also:
        `prune_heads`, `drop_layers`.
    """
    return _prune(model, "channels", share, importance, corpus, tokenizer, seed)


def _prune(
    model: PreTrainedModel,
    what: str,
    share: float,
    importance: str | npt.ArrayLike,
    corpus: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    seed: int,
) -> PreTrainedModel:
    if not 0 <= share < 1:
        raise InputError(f"share={share}: expected at least 0 and below 1, the share of each layer's {what} that goes")
    check_plain(model, "prune_heads" if what == "heads" else "prune_channels")
    family = family_of(model)
    layers = layers_of(model, family)
    counts = [count_of(layer, family, what) for layer in layers]
    scores: Sequence[np.ndarray]
    if isinstance(importance, str):
        check_choice("importance", importance, IMPORTANCE, f"or give scores (layer, {_KINDS[what]})")
    if not isinstance(importance, str):
        if len(set(counts)) > 1:
            raise InputError(
                f"the layers differ in their {what} ({counts}), so scores (layer, {_KINDS[what]}) cannot be given"
            )
        scores = list(given_scores(importance, (len(layers), counts[0]), f"layer, {_KINDS[what]}"))
        importance = "given scores"
    elif importance == "magnitude":
        scores = [magnitude_scores(layer, family, what) for layer in layers]
    elif importance == "random":
        draw = np.random.default_rng(seed)
        scores = [draw.random(n) for n in counts]
    else:
        scores = taylor_scores(model, family, what, counts, corpus, tokenizer)
    kept = []
    for values in scores:
        order = np.argsort(-values, kind="stable")
        kept.append(sorted(order[: max(1, len(values) - round(share * len(values)))].tolist()))
    pruned = copy.deepcopy(model)
    for layer, numbers in zip(layers_of(pruned, family), kept, strict=True):
        keep_parts(layer, family, what, numbers)
    sizes = [len(numbers) for numbers in kept]
    if what == "heads":
        pruned.config.heads_kept = sizes
    else:
        setattr(pruned.config, family.channels, sizes[0])
    settings: dict[str, Any] = {"share": share, "kept": kept if what == "heads" else [_ranges(k) for k in kept]}
    if importance == "random":
        settings["seed"] = seed
    return record_removal(model, pruned, f"prune_{what}", importance, settings)


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers short: "0-3,7,9-10"."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    stops = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or numbers[i + 1] != n + 1]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, stops, strict=True))


def record_removal(
    model: PreTrainedModel, pruned: PreTrainedModel, method: str, importance: Any, settings: dict[str, Any]
) -> PreTrainedModel:
    """Note in a pruned model what was removed from which."""
    return record(
        pruned,
        {
            "method": method,
            "importance": importance,
            **settings,
            "parameters": sum(p.numel() for p in pruned.parameters()),
            "parameters_of_parent": sum(p.numel() for p in model.parameters()),
        },
        parent=model,
    )
