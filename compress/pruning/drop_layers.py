"""Whole layers really removed: those named, or those that are missed least."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.pruning.importance import check_measurable, given_scores
from compress.pruning.structure import record_removal
from probes.errors import InputError, check_choice
from probes.measures.fidelity.similarity import similarity
from probes.models.formats.heads_kept import HEADS_KEPT
from probes.models.formats.quantized_inputs import QUANTIZED_INPUTS, quantized_inputs_of
from probes.models.formats.shared_layers import renumber_sharing
from probes.models.parts import family_of, layers_of
from probes.states.capture import capture


def drop_layers(
    model: PreTrainedModel,
    layers: int | Sequence[int],
    *,
    importance: str | npt.ArrayLike = "removal",
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """Return a copy of a model without some layers: those named, or those it misses least.

    Args:
        model: a model of a family that `prune_heads` knows; it is not changed.
        layers: the numbers of the layers that go, from 0, as in the model's list of layers (layer i
            makes hidden state i + 1); or how many go.
        importance: where `layers` is a count. "removal": the layer goes without which the pooled
            last states are most like those of the whole model (1 - linear CKA is least), one after
            another, measured anew each time. "similarity": those go whose pooled output is most
            like their input, measured once. Or scores of your own, one a layer, higher is more
            important.
        corpus, tokenizer: for both measures: some hundred texts are enough, and labels are not
            needed.

    Returns:
        A new model of the same class, which plain transformers loads when it is saved and `capture`
        captures.

    Raises:
        InputError: a layer that is not there, all layers, a count without a corpus, scores of
            another shape, or an architecture that is not known.

    Notes:
        Sajjad et al. 2020, arXiv 2004.03844, dropped layers by name and by similarity of input and
        output; Kornblith et al. 2019, arXiv 1905.00414, for CKA.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> drop_layers(model, [4, 5]).config.num_hidden_layers
        4

    See also:
        `prune_heads`, `distill`.
    """
    family = family_of(model)
    count = len(layers_of(model, family))
    scores: list[float] = []
    if isinstance(layers, int | np.integer) and not isinstance(layers, bool):
        if not 0 <= layers < count:
            raise InputError(f"layers={layers}: expected a count from 0 to {count - 1}, so that one layer is left")
        if isinstance(importance, str):
            check_choice("importance", importance, ("removal", "similarity"), "or give scores")
            rank = _by_removal if importance == "removal" else _by_similarity
            gone, scores = rank(model, int(layers), *check_measurable(model, corpus, tokenizer, importance))
        else:
            values = given_scores(importance, (count,), "layer")
            gone = np.argsort(values, kind="stable")[:layers].tolist()
            scores, importance = values[gone].tolist(), "given scores"
    else:
        gone, importance = _layer_numbers(layers, count), "named"
    pruned = copy.deepcopy(model)
    _drop(pruned, gone)
    kept = [i for i in range(count) if i not in set(gone)]
    return record_removal(
        model, pruned, "drop_layers", importance, {"kept": kept, "dropped": list(gone), "scores": scores}
    )


def _drop(model: PreTrainedModel, gone: Sequence[int]) -> None:
    """Take layers out of a model, in place."""
    family = family_of(model)
    layers = layers_of(model, family)
    kept = [i for i in range(len(layers)) if i not in set(gone)]
    for number in sorted(gone, reverse=True):
        del layers[number]
    _renumber(model, layers)
    renumber_sharing(model, family.blocks, kept)
    heads = HEADS_KEPT.said(model.config)
    if heads is not None:
        model.config.heads_kept = [heads[i] for i in kept]
    if QUANTIZED_INPUTS.promised(model.config):
        model.config.quantized_inputs = quantized_inputs_of(model)


def _renumber(model: PreTrainedModel, layers: nn.ModuleList) -> None:
    """Make configuration, and places in a decoder's cache, fit the layers that are there."""
    model.config.num_hidden_layers = len(layers)
    for number, layer in enumerate(layers):
        for module in layer.modules():
            if getattr(module, "layer_idx", None) is not None:
                module.layer_idx = number  # type: ignore[assignment]


def _by_removal(
    model: PreTrainedModel, count: int, corpus: datasets.Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[float]]:
    """The layers that go, in order, and 1 - CKA of the last states without and with them."""
    whole = capture(model, tokenizer, corpus, progress=False)["hidden"].values[-1]
    smaller = copy.deepcopy(model)
    layers = layers_of(smaller, family_of(smaller))
    left = list(range(len(layers)))
    gone: list[int] = []
    losses: list[float] = []
    for _ in range(count):
        found = []
        for place in range(len(layers)):
            layer = layers[place]
            del layers[place]
            _renumber(smaller, layers)
            found.append(1 - _cka(whole, capture(smaller, tokenizer, corpus, progress=False)["hidden"].values[-1]))
            layers.insert(place, layer)
        best = int(np.argmin(found))
        del layers[best]
        gone.append(left.pop(best))
        losses.append(found[best])
    return gone, losses


def _by_similarity(
    model: PreTrainedModel, count: int, corpus: datasets.Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[float]]:
    """The layers whose output is most like their input, in order, and 1 - CKA of the two."""
    states = capture(model, tokenizer, corpus, progress=False)["hidden"].values
    changes = np.array([1 - _cka(before, after) for before, after in pairwise(states)])
    gone = np.argsort(changes, kind="stable")[:count].tolist()
    return gone, changes[gone].tolist()


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    value = similarity(x, y, measure="cka")
    return -1.0 if np.isnan(value) else value  # no value where all states are equal: nothing is left of them


def _layer_numbers(layers: Any, count: int) -> list[int]:
    if isinstance(layers, str | bool) or not isinstance(layers, Sequence | np.ndarray):
        raise InputError(f"layers={layers!r}: expected how many layers go, or their numbers, as in [4, 5]")
    for number in layers:
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number < count:
            raise InputError(f"layer {number!r} is not there: the model has the layers 0 to {count - 1}")
    gone = sorted({int(n) for n in layers})
    if len(gone) == count:
        raise InputError(f"layers={layers!r} are all {count} layers of the model. Leave at least one")
    return gone
