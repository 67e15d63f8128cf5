"""Which layers are trained, and which the head reads: by variability, the first or last ones, or those named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import is_whole
from compress.rows import trained_on
from compress.training.gradients import TrainedLayers
from compress.training.masks import layer_numbers
from probes.corpus import check_corpus
from probes.errors import InputError, check_choice
from probes.measures.classes.best_layer import best_layer
from probes.models.blocks import depth_of, family_of
from probes.models.facts import name_of
from probes.states.capture import capture

CHOICES = ("all", "by variability", "top", "bottom")
_TEXTS = 4096  # that layers are chosen by, at most


def check_layers(model: PreTrainedModel, layers: str | Sequence[int], tuned: int) -> int:
    """Return the number of the last layer, 0 where all are trained; raise `InputError` where layers
    cannot be chosen so.
    """
    if isinstance(layers, str):
        check_choice("layers", layers, CHOICES, "or give their numbers")
        if layers == "all":
            return 0
    _, depth = layer_numbers(model)
    if layers == "by variability" and depth_of(model, family_of(model)) != depth:
        raise InputError(
            f"{name_of(model)} ({model.config.model_type}): its layers share one block, or are of an encoder and a "
            "decoder, and none of them can be chosen by itself. Leave layers=... out"
        )
    if isinstance(layers, str) and (not is_whole(tuned) or not 1 <= tuned <= depth):
        raise InputError(f"tuned={tuned!r}: expected a whole number from 1 to {depth}, the layers that are trained")
    if not isinstance(layers, str):
        TrainedLayers(layers).never(depth)
    return depth


def least_variable(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, seed: int, **reading: Any
) -> tuple[int, float]:
    """Return the layer, embeddings aside, where the classes of what is trained on vary least, and in
    which share of the draws of the bootstrap it does.

    Args:
        model: as it is before the training.
        tokenizer: of the model.
        corpus: with labels; of more than 4,096 texts so many are drawn.
        seed: of the draws.
        reading: max_length and prompt, as of `probes.capture`.

    Raises:
        InputError: there are no labels, or classes do not differ in any layer.
    """
    corpus = check_corpus(corpus)
    if "label" not in corpus.column_names:
        raise InputError("layers='by variability' is told by classes: the corpus has no column 'label'")
    rows = np.array(trained_on(corpus))
    if len(rows) > _TEXTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _TEXTS, replace=False))
    chosen = corpus.select(rows.tolist())
    if len(set(chosen["label"])) < 2:
        raise InputError(f"layers='by variability' is told by classes, and there is one: {chosen[0]['label']!r}")
    reps = capture(model, tokenizer, chosen, pooling="mean", progress=False, **reading)
    found = best_layer(reps.isel(layer=slice(1, None)), seed=seed).sel(language="pooled")
    if np.isnan(float(found["best"])):
        raise InputError(
            f"{name_of(model)}: its classes have no variability in any layer, as where all texts are alike. Look at "
            "the corpus, or give layers=[...]"
        )
    layer = int(found["best"])
    return layer, float(found["value"].sel(layer=layer))


def trained_layers(layers: str | Sequence[int], tuned: int, depth: int, head: int) -> TrainedLayers | None:
    """Return the rule by which layers are trained: those that end at a head, the first or last ones,
    or those named; None for all.

    Example:
        >>> [trained_layers(how, 2, 6, 4).layers for how in ("by variability", "top", "bottom")]
        [[3, 4], [5, 6], [1, 2]]
    """
    if isinstance(layers, str):
        last = {"all": None, "by variability": head, "top": depth, "bottom": tuned}[layers]
        return None if last is None else TrainedLayers(range(max(1, last - tuned + 1), last + 1))
    return TrainedLayers(layers)
