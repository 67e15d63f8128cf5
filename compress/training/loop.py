"""The one training loop on texts: a student, objectives and, if needed, a teacher.

Pruning, quantisation and distillation are callbacks of this loop: they change the student at some
steps, or put it right after each. `compress.training.trainer` runs it, on rows of anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import datasets
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from compress.objectives.base import Objective, check
from compress.rows import padding_for, training_rows
from compress.training.gradients import Gradients
from compress.training.replaced_words import NearestWords, Replaced
from compress.training.settings import settings_by
from compress.training.trainer import train_rows
from probes.corpus import check_corpus, corpus_fingerprint
from probes.states.batches import collate


def train(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    objective: Sequence[Objective],
    steps: int,
    teacher: PreTrainedModel | None = None,
    gradients: Gradients | None = None,
    replace_words: NearestWords | None = None,
    evaluate: Callable[[PreTrainedModel], Mapping[str, float]] | None = None,
    evaluate_at: Collection[int] = (),
    callbacks: Sequence[TrainerCallback] = (),
    folder: str | Path | None = None,
    save_every: int = 100,
    seed: int = 0,
    progress: bool = True,
    wait: bool = True,
    about: Mapping[str, Any] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Train a model in place by some objectives, and return what was logged.

    Args:
        student: the model that is trained; it is changed.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it; where it has a split, the rows of "train" are trained on.
            Its labels are classes of the student where an objective needs them, and any others
            where none does.
        objective: objects of `compress.objectives`; their sum is minimised, each is logged under
            its name.
        steps: updates of the weights.
        teacher: a model of the same tokenizer for the objectives that need one; it is not changed.
        gradients: which of them reach the student's weights: `compress.GradDrop`,
            `GradualUnfreezing`, `TrainedLayers`; None for all.
        replace_words: which words are read as others: `compress.NearestWords`; None for none.
        evaluate: what to measure of the student, name -> number.
        evaluate_at: the steps at which it is measured, once before the callbacks of that step and
            once after.
        callbacks: of transformers' Trainer; they change the student.
        folder: where checkpoints go, every `save_every` steps. A training that was interrupted or
            killed goes on from the newest one that is whole and ends as it would have; newer ones
            are passed over with a warning. One that was finished is not trained further.
        seed: of the order of the rows and of dropout.
        progress: show a progress bar.
        wait: where another process trains in the folder, wait until it is done, and say so; False
            to be refused.
        about: what else decides what comes out, as settings of callbacks. It is kept in the folder,
            as what is given here is and the settings of the objectives that are numbers, words or
            maps of them, and a training goes on only where all is the same.
        settings: how it goes, of `TrainingSettings`: batch_size, learning_rate, scheduler, warmup,
            weight_decay, max_length, ...

    Returns:
        One row an update: `step`, a column an objective and their sum as `loss`; where the student
        was measured, rows with `when` "before" or "after" and a column a number.

    Raises:
        InputError: before the first step, where student, teacher, tokenizer, corpus and objectives
            do not fit together, the disk has not room for the checkpoints, the folder holds those
            of another training, or one from which this training does not go on as it was, by the
            name of the file that it has not;
            at a step whose loss is not finite, by the name of the objective.

    Notes:
        What objectives learn or remember (`prepare` of `compress.objectives.Objective`) is trained
        beside the student by the same AdamW, kept beside every checkpoint as
        `objectives.safetensors`, and gone after the training. Under `torchrun`, weights and what is
        logged are, up to rounding, those of one process, but for dropout.

    See also:
        `TrainingSettings`, `finetune`, `distill`, `prune`, `objectives.Objective`

    Example:
        >>> import probes
        >>> from compress import CrossEntropy, SoftLabels
        >>> student, tokenizer = probes.load_checkpoint("bundled")
        >>> teacher, _ = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> history = train(student, tokenizer, corpus.select(range(8)), teacher=teacher, steps=2,
        ...     objective=[CrossEntropy(), SoftLabels()], batch_size=4, progress=False)
        >>> list(history), history["step"].tolist()
        (['step', 'cross_entropy', 'soft_labels', 'loss'], [1, 2])
    """
    needed = any("teacher" in o.needs for o in objective)
    teaches = teacher if needed else None
    numbered_by = _numbered_by(objective, student, teaches)
    words = any(getattr(o, "words", False) for o in objective)
    how = settings_by(settings)
    packed = any(getattr(o, "packed", False) for o in objective)
    columns = list(dict.fromkeys(c for o in objective for c in getattr(o, "columns", ())))
    there = [c for c in columns if c in corpus.column_names]
    apart = any(getattr(o, "apart", False) for o in objective)
    read = [*columns, how.balanced] if how.balanced else columns
    given = {"words": words, "packed": packed, "columns": read, "apart": apart, **how.reading}
    rows, labelled = training_rows(corpus, student, tokenizer, teaches, numbered_by, **given)
    # Labels of other kinds than one class a text count also where no objective reads them.
    labelled = labelled or (numbered_by is None and bool({"labels", "tags"} & set(corpus.column_names)))
    check(objective, student, teacher, labelled, tokenizer, rows)
    padding = padding_for(rows, tokenizer, student, teaches)
    replaced = Replaced(replace_words, student, tokenizer, corpus, rows, objective, seed, steps, how.prompt)
    of: dict[str, Any] = {}
    if folder is not None:
        of = {"corpus": corpus_fingerprint(check_corpus(corpus))}
        of |= {"columns": corpus_fingerprint(corpus.select_columns(there))} if there else {}
    return train_rows(
        student,
        rows,
        lambda batch: collate(padding, batch, indexed=True),
        objective=objective,
        steps=steps,
        of=of,
        tokenizer=tokenizer,
        teacher=teacher,
        gradients=gradients,
        replaced=replaced,
        evaluate=evaluate,
        evaluate_at=evaluate_at,
        callbacks=callbacks,
        folder=folder,
        save_every=save_every,
        seed=seed,
        progress=progress,
        wait=wait,
        about=about,
        settings=how,
    )


def _numbered_by(
    objective: Sequence[Objective], student: PreTrainedModel, teacher: PreTrainedModel | None
) -> Literal["student", "teacher"] | None:
    """Say whose classes the labels are: nobody's where they only tell texts apart."""
    if any("labels" in o.needs for o in objective):
        return "student" if teacher is None or student.base_model is not student else "teacher"
    taken = any(getattr(o, "labels_of", None) == "teacher" for o in objective)
    return "teacher" if taken and teacher is not None else None
