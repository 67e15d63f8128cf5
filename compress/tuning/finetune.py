"""Fine-tuning: a copy of a model, trained further, with a head where it has none."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import check_plain
from compress.objectives.base import Objective
from compress.pruning.drop_layers import drop_layers
from compress.pruning.prune import KeepsZeros
from compress.rows import reading_of
from compress.saving import record
from compress.training.inside import Training
from compress.tuning.best import Best
from compress.tuning.chosen_layers import check_layers, least_variable, trained_layers
from compress.tuning.heads import missing_head, with_head
from probes.errors import InputError


def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    objective: Objective | Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    layers: str | Sequence[int] = "all",
    tuned: int = 2,
    best: str | None = None,
    dev: datasets.Dataset | None = None,
    languages: Sequence[str] | None = None,
    looks: int | None = None,
    keep_zeros: bool = False,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model that is trained further.

    What was done to the model before stays: factors are trained as factors, tensors that layers
    share as one. Not so weights that a pruning set to zero, but with `keep_zeros`, nor rounded ones:
    training changes them like any other (`compress.quantize` trains weights that are rounded).

    Args:
        model: a model of transformers; it is not changed. One without a head gets one for the
            labels of the corpus, drawn by the seed, and a warning says so; so does one that
            predicts masked tokens, where the corpus has labels and no objective is given.
        tokenizer: of the model.
        train: a corpus to train on.
        steps: updates of the weights, at least 1.
        objective: what is trained for, of `compress.objectives`; by default what the model's head
            is for: classes, or the tokens of the text (`compress.LanguageModel`).
        teacher: for the objectives that need one; by default the model as it is given.
        layers: which are trained beside the head: "all"; the `tuned` ones at the "top" or
            "bottom"; numbers, 0 the embeddings, i what makes hidden state i; or "by variability":
            the layer where classes vary least (`probes.best_layer`, of the model as it is given)
            and those below it, `tuned` in all. Then the head reads that layer, and those above are
            gone.
        tuned: how many layers those are.
        best: a measure of `compress.quality`, as "accuracy", or "nats" of a language model: what
            comes out are the weights of the step where it is best; by default of the last one.
        dev: what it is measured on; by default the rows of split "dev" of `train`.
        languages: of `dev`; by default those that are trained on, so that all others stay
            zero-shot.
        looks: how often it is measured, at even distances, the last time at the end; by default 10
            times, or in fewer steps at each.
        keep_zeros: weights of the matrices that `compress.prune` prunes stay zero where they are, so
            that a pruned model stays as sparse.
        seed: of a new head and of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on. The best weights so far lie beside each.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (gradients, replace_words, evaluate, evaluate_at, callbacks, save_every, progress).

    Returns:
        A new model. `model.config.compression` says how it was trained, which layers were, and
        which step was best; `model.history` is what was logged. Plain transformers loads it when
        it is saved, as `drop_layers` says.

    Raises:
        InputError: there are no steps; there is no head and no label to make one for; a label is no
            class of the model; a layer is not there; the head has no such measure, or there is no
            text to measure on; what `compress.training.train` raises.

    Notes:
        Layers by variability: Xie et al. 2022, arXiv 2210.10041; that the layers trained are those
        up to the chosen one, and 2, are choices made here. Of more than 4,096 texts so many choose.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> how = {"steps": 2, "batch_size": 4, "weight_decay": 0.01, "progress": False}
        >>> tuned = finetune(model, tokenizer, train, layers="top", **how)
        >>> tuned.config.compression["layers"], list(tuned.history)
        ([5, 6], ['step', 'cross_entropy', 'loss'])

    See also:
        `GradDrop`, `TrainingSettings`, `prune`, `distill`.
    """
    check_plain(model)
    given = list(objective) if isinstance(objective, Sequence) else [objective]
    if not (isinstance(layers, str) and layers == "all") and settings.get("gradients") is not None:
        raise InputError("layers=... and gradients=... both say which weights are trained: leave one of the two out")
    depth = check_layers(model, layers, tuned)
    if not isinstance(best, str) and (dev is not None or languages is not None):
        raise InputError("dev and languages are for the best step: give best=..., a measure, or leave them out")
    kind = missing_head(model, train, given)
    student = copy.deepcopy(model) if kind is None else with_head(model, tokenizer, train, kind, seed)
    training = Training(student, train, tokenizer, steps, given, teacher, folder=folder, seed=seed, **settings)
    reading = reading_of(settings)
    chosen: Best | None = None
    if best is not None and steps:
        chosen = Best(student, tokenizer, dev, best, languages, train=train, steps=steps, looks=looks, **reading)
        training.settings["callbacks"] = [*training.settings.get("callbacks", ()), chosen]
    how: dict[str, Any] = {"method": "finetune"}
    head, kept = depth, None
    if layers == "by variability":
        head, share = least_variable(model, tokenizer, train, seed, **reading)
        how |= {"head_layer": head, "share_of_draws": share}
        if head < depth:
            kept = list(range(head))
            done = getattr(student.config, "compression", None)
            student = drop_layers(student, range(head, depth))
            student.config.compression = done  # not the steps to it
    rule = trained_layers(layers, tuned, depth, head)
    if rule is not None:
        training.settings["gradients"] = rule
        how |= {"layers": list(rule.layers)}
    about: dict[str, Any] = {"keep_zeros": True} if keep_zeros else {}
    how |= about
    before = [KeepsZeros(student)] if keep_zeros and steps else []
    if chosen is None:
        training.run(student, callbacks=before, about=about)
    else:
        about |= {"best": best, "looks": len(chosen.at), "best_on": chosen.fingerprint}
        training.run(student, callbacks=before, about=about)
        chosen.give(student)
        how |= chosen.recorded()
    return record(student, how | training.recorded(), parent=model, history=training.history, layers=kept)
