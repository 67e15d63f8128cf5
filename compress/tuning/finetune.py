"""Plain fine-tuning: a copy of a model, trained further."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import check_plain
from compress.objectives.base import Objective
from compress.saving import record
from compress.training.inside import Training


def finetune(
    model: PreTrainedModel,
    *,
    train: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    objective: Objective | Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model that is trained further, with nothing taken from it.

    What was done to the model before stays: factors are trained as factors, tensors that layers
    share as one. Not so weights that a pruning set to zero, or rounded ones: training changes them
    like any other (`compress.prune` and `compress.quantize` train with them as they are).

    Args:
        model: a model of transformers; it is not changed.
        train: a corpus to train on.
        tokenizer: of the model.
        steps: updates of the weights, at least 1.
        objective: what is trained for, of `compress.objectives`; by default what the model's head
            is for: classes, or the tokens of the text (`compress.LanguageModel`).
        teacher: for the objectives that need one; by default the model as it is given.
        seed: of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (evaluate, evaluate_at, callbacks, save_every, progress).

    Returns:
        A new model of the same class. `model.config.compression` says how it was trained,
        `model.history` is what was logged.

    Raises:
        InputError: there are no steps; what `compress.training.train` raises.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> given = {"train": train, "tokenizer": tokenizer, "progress": False}
        >>> tuned = finetune(model, steps=2, batch_size=4, weight_decay=0.01, **given)
        >>> tuned.config.compression["method"], list(tuned.history)
        ('finetune', ['step', 'cross_entropy', 'loss'])

    See also:
        `TrainingSettings`, `prune`, `distill`.
    """
    check_plain(model)
    training = Training(model, train, tokenizer, steps, objective, teacher, folder=folder, seed=seed, **settings)
    tuned = copy.deepcopy(model)
    training.run(tuned)
    return record(tuned, {"method": "finetune", **training.recorded()}, parent=model, history=training.history)
