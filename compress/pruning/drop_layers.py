"""Whole layers really removed: those named, or those that are missed least."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import coverage, matrices_in
from compress.pruning.importance import check_measurable, given_scores
from compress.pruning.structure import check_remade, record_removal
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.measures.attribution.output_damage import OutputDamage
from probes.measures.fidelity.similarity import similarity
from probes.models.blocks import Site, depth_of, family_of, sites_of
from probes.models.facts import name_of
from probes.models.formats.channels_kept import CHANNELS_KEPT
from probes.models.formats.extensions import unlike
from probes.models.formats.hashed_weights import HASHED_WEIGHTS, hashed_of
from probes.models.formats.heads_kept import HEADS_KEPT
from probes.models.formats.layers_kept import LAYERS_KEPT, keep_layers
from probes.models.formats.quantized_inputs import QUANTIZED_INPUTS, quantized_inputs_of
from probes.models.formats.shared_layers import renumber_sharing
from probes.models.parts import Parts
from probes.models.spread import check_whole
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
        model: a model of an architecture that `probes.models.parts` lists; it is not changed. Of an
            encoder-decoder the layers of the encoder go; of ALBERT, whose layers are one block,
            any.
        layers: the numbers of the layers that go, from 0, as in the model's list of layers (layer i
            makes hidden state i + 1); or how many go.
        importance: where `layers` is a count. "removal": the layer goes without which the pooled
            last states are most like those of the whole model (1 - linear CKA is least), one after
            another, measured anew each time. "effect": likewise the layer without which the output
            lacks least, as `probes.patching` and `compress.restore` measure it (divergence of the
            probabilities of classes or tokens, or without a head 1 - cosine of pooled vectors).
            "similarity": those go whose pooled output is most like their input, measured once. Or
            scores of your own, one a layer, higher is more important.
        corpus, tokenizer: for these measures: some hundred texts are enough, and labels are not
            needed.

    Returns:
        A new model of the same class, which plain transformers loads when it is saved and `capture`
        captures. What kind a layer is, as one that sees a window, it stays. Where no configuration
        can say so (ModernBERT without its first layer, GPT-2 scaled by layer), it is
        `model.config.layers_kept`, which `probes.load_checkpoint` reads; a warning says so.

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
    check_whole(model, "drop_layers")
    family = family_of(model)
    count = depth_of(model, family)
    scores: list[float] = []
    if isinstance(layers, int | np.integer) and not isinstance(layers, bool):
        if not 0 <= layers < count:
            raise InputError(f"layers={layers}: expected a count from 0 to {count - 1}, so that one layer is left")
        if isinstance(importance, str):
            ranks = {"removal": _by_removal, "effect": _by_effect, "similarity": _by_similarity}
            check_choice("importance", importance, tuple(ranks), "or give scores")
            rank = ranks[importance]
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
    if LAYERS_KEPT.promised(pruned.config) and not LAYERS_KEPT.promised(model.config):
        warnings.warn(
            f"{name_of(model)} ({model.config.model_type}): what its layers {kept} are, no configuration of "
            "transformers can say without the others. Load what is saved with probes.load_checkpoint: from_pretrained "
            "would make them otherwise, without an error",
            LayerscopeWarning,
            stacklevel=2,
        )
    blocks = [family.blocks] if family.shared else [f"{family.blocks}.{number}" for number in gone]
    settings = {"kept": kept, "dropped": list(gone), "scores": scores}
    settings |= {"coverage": coverage(model, matrices_in(model, blocks))}
    return record_removal(model, pruned, "drop_layers", importance, settings, kept)


def _drop(model: PreTrainedModel, gone: Sequence[int]) -> None:
    """Take layers out of a model, in place."""
    if not gone:
        return
    family, config = family_of(model), model.config
    depth = depth_of(model, family)
    kept = [i for i in range(depth) if i not in set(gone)]
    blocks = sites_of(model, family, "heads"), sites_of(model, family, "channels")
    left = [[not _is_gone(site, family, kept) for site in sites] for sites in blocks]
    before = keep_layers(model, kept)
    if family.shared:
        return
    renumber_sharing(model, family.blocks, kept)
    for found, stays in zip((HEADS_KEPT, CHANNELS_KEPT), left, strict=True):
        if found.promised(config):
            setattr(config, found.key, [k for k, s in zip(found.said(config), stays, strict=True) if s])
    if HASHED_WEIGHTS.promised(config):
        config.hashed_weights = hashed_of(model)
    if QUANTIZED_INPUTS.promised(config):
        config.quantized_inputs = quantized_inputs_of(model)
    said = LAYERS_KEPT.said(config)
    if said is not None:
        config.layers_kept = {"numbers": [said["numbers"][i] for i in kept], "of": said["of"]}
    elif unlike(model) is not None:
        config.layers_kept = {"numbers": kept, "of": before}
    check_remade(model)


def _is_gone(site: Site, family: Parts, kept: Sequence[int]) -> bool:
    blocks, _, number = site.name.rpartition(".")
    return blocks == family.blocks and int(number) not in kept


def _shell(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model, but not its parameters, so that layers can be taken out."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def _by_removal(
    model: PreTrainedModel, count: int, corpus: datasets.Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[float]]:
    """The layers that go, in order, and 1 - CKA of the last states without and with them."""
    whole = capture(model, tokenizer, corpus, progress=False)["hidden"].values[-1]

    def lost(smaller: PreTrainedModel) -> float:
        return 1 - _cka(whole, capture(smaller, tokenizer, corpus, progress=False)["hidden"].values[-1])

    return _one_after_another(model, count, lost)


def _by_effect(
    model: PreTrainedModel, count: int, corpus: datasets.Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[float]]:
    """The layers that go, in order, and what the output lacks without them."""
    output = OutputDamage(model, tokenizer, corpus, pivot=corpus[0]["language"])

    def lost(smaller: PreTrainedModel) -> float:
        found = float(output.of(smaller)[0].mean())
        return found if np.isfinite(found) else np.inf

    return _one_after_another(model, count, lost)


def _one_after_another(
    model: PreTrainedModel, count: int, lost: Callable[[PreTrainedModel], float]
) -> tuple[list[int], list[float]]:
    """The layers without which least is lost, each measured without those that went before it."""
    depth = depth_of(model, family_of(model))
    gone: list[int] = []
    losses: list[float] = []
    for _ in range(count):
        found: dict[int, float] = {}
        for number in (i for i in range(depth) if i not in gone):
            smaller = _shell(model)
            keep_layers(smaller, [i for i in range(depth) if i not in (*gone, number)])
            found[number] = lost(smaller)
        gone.append(min(found, key=lambda number: found[number]))
        losses.append(found[gone[-1]])
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
