"""Distillation: a student with fewer or narrower layers, made of its teacher and trained by it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.distillation.kept_layers import kept_layers
from compress.distillation.width import INITIALISE, check_width, narrow
from compress.kinds import COLUMNS
from compress.matrices import check_plain
from compress.objectives.base import Objective, is_whole
from compress.objectives.kinds import supervised, taught
from compress.objectives.layers import HiddenStates
from compress.pruning.drop_layers import drop_layers
from compress.rows import trained_on
from compress.saving import record
from compress.training.inside import Training
from probes.corpus import check_corpus
from probes.errors import InputError, check_choice
from probes.models.blocks import depth_of, family_of
from probes.models.facts import embedding_rows, head_of, name_of
from probes.models.fingerprint import weights_fingerprint

_EPOCHS = 3


def distill(
    model: PreTrainedModel,
    *,
    layers: int | None = None,
    keep: str | Sequence[int] | npt.NDArray[np.integer] = "uniform",
    hidden_size: int | None = None,
    initialise: str = "truncate",
    student: PreTrainedModel | None = None,
    train: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    steps: int | None = None,
    objective: Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a smaller model that is made of a model's weights and trained to do as the model does.

    Fewer layers: those that are kept are copied. Narrower ones: of what all layers read from and
    write to, and so of the embeddings and norms, `hidden_size` features or directions are kept; of
    the heads and channels of every layer the same share, those of the largest norm as in
    `compress.prune_heads` and `compress.prune_channels`.

    Args:
        model: a model of an architecture that `probes.models.parts` lists (narrower: BERT,
            RoBERTa, XLM-RoBERTa, CamemBERT or DistilBERT), or any where `student` is given; it is
            not changed. Of an encoder-decoder it is the encoder that loses layers.
        layers: how many layers the student has, 1 to as many as the model; by default as many.
        keep: which of the model's layers they are. "uniform": every k-th, with the last; "top" or
            "bottom": the last or first ones; "matched": the layers, measured on `train`, that the
            others are most like; or their numbers, from 0, ascending.
        hidden_size: of the student, a multiple of the size of a head; by default as the model's.
        initialise: what of its features is kept. "truncate": those with the largest weights; "svd":
            the directions with the largest weights, by singular value decomposition.
        student: any other model of the same tokenizer, in place of the four above; it is not
            changed.
        train: a corpus to train on; by soft labels and hidden states it needs no labels, and may be
            of any language.
        tokenizer: of the model, where there is text.
        steps: updates of the weights; by default three times through the rows of `train`, none
            without it.
        objective: what is trained for, of `compress.objectives`. By default the sum of what the
            head is for (of labels, where there are some; of tokens, of the text); of soft labels of
            temperature 2, or of numbers the squared error; and of the squared difference of the
            hidden states, each of the student's layers from the model's that it was copied from (of
            a `student`: uniformly).
        teacher: what the student learns from; by default the model.
        seed: of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (gradients, replace_words, evaluate, evaluate_at, callbacks, save_every, progress).

    Returns:
        A new model. `model.config.compression` says how it was made and is saved with it; after
        training `model.history` is what was logged.

    Raises:
        InputError: nothing is to be made smaller; layers or hidden size that the model has not; a
            setting is not known; there is no text to train or choose layers on; student and teacher
            do not share a tokenizer; the architecture is not known; layers that are in factors are
            to go, or a model with a sparse head or weights that are NaN or infinite to become
            narrower; what `compress.training.train` raises.

    Notes:
        Hinton, Vinyals and Dean 2015, arXiv 1503.02531. Choices made here: layer i of s (from 1) is
        the model's i t / s of t, rounded; the three default objectives count 1 each. Weights that
        are zero stay zero without training, but for narrower layers by "svd". Inputs that were
        rounded (`compress.quantize`) still are in fewer layers, not in narrower ones. The reference
        page says how layers and features are chosen.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> student = distill(model, layers=2, hidden_size=96)
        >>> student.config.compression["kept"], student.config.num_attention_heads
        ([2, 5], 3)
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> given = {"train": corpus, "tokenizer": tokenizer}
        >>> student = distill(model, layers=2, steps=3, progress=False, **given)
        >>> list(student.history)
        ['step', 'cross_entropy', 'soft_labels', 'hidden_states', 'loss']

    See also:
        `match_layers`, `drop_layers`, `compress.recipes.codir`.
    """
    check_plain(model)
    teacher = model if teacher is None else teacher
    if steps is None:
        steps = _steps(train, settings.get("batch_size", 32))
    matching = isinstance(keep, str) and keep == "matched"
    training = Training(
        model, train, tokenizer, steps, objective, teacher, folder=folder, seed=seed, used=matching, **settings
    )
    if matching and (train is None or tokenizer is None):
        raise InputError("keep='matched' needs text: give train=..., a corpus, and tokenizer=...")
    how: dict[str, Any] = {"method": "distill"}
    kept: list[int] | None = None
    matched: dict[int, int] | None = None
    if student is not None:
        if layers is not None or hidden_size is not None or not isinstance(keep, str) or keep != "uniform":
            raise InputError("student=... has its layers and width already: leave layers, keep and hidden_size out")
        check_plain(student)
        check_tokens(teacher, student)
        small = copy.deepcopy(student)
        how |= {"student": weights_fingerprint(student)}
    else:
        check_tokens(teacher, model)
        if layers is None and hidden_size is None and isinstance(keep, str):
            raise InputError("nothing to make smaller: give layers=..., hidden_size=... or student=...")
        check_choice("initialise", initialise, INITIALISE)
        check_plain(model, "distill")
        if hidden_size is not None:
            check_width(model, hidden_size)
            hidden_size = int(hidden_size)  # what is saved as JSON
        kept = kept_layers(model, layers, keep, train, tokenizer, seed)
        small = drop_layers(model, [i for i in range(depth_of(model, family_of(model))) if i not in kept])
        if hidden_size is not None:
            small = narrow(small, hidden_size, initialise)
        how |= {"layers": len(kept), "keep": keep if isinstance(keep, str) else "given", "kept": kept}
        how |= {"hidden_size": small.config.hidden_size}
        if hidden_size is not None:
            how |= {"initialise": initialise}
        # Of what was done only what was done to the model before, not the steps to its student.
        small.config.compression = getattr(model.config, "compression", None)
        if teacher.config.get_text_config().num_hidden_layers == model.config.num_hidden_layers:
            matched = {0: 0} | {i + 1: k + 1 for i, k in enumerate(kept)}
    if steps:
        if not objective:
            training.objective = _objectives(small, train, matched)
        given = {o.name: getattr(o, "layers", None) for o in training.objective}
        maps = {name: {str(int(i)): int(j) for i, j in pairs.items()} for name, pairs in given.items() if pairs}
        training.run(small, about={"map": maps})
        how |= {"map": maps}
    how |= {
        "parameters": sum(p.numel() for p in small.parameters()),
        "parameters_of_parent": sum(p.numel() for p in model.parameters()),
    }
    return record(small, how | training.recorded(), parent=model, history=training.history, layers=kept)


def _steps(train: datasets.Dataset | None, batch_size: int) -> int:
    if train is None:
        return 0
    # What is no size of a batch is refused where the training begins.
    size = batch_size if is_whole(batch_size) and batch_size > 0 else 1
    return _EPOCHS * -(-len(trained_on(check_corpus(train))) // size)


def _objectives(
    student: PreTrainedModel, train: datasets.Dataset, matched: Mapping[int, int] | None
) -> list[Objective]:
    """Return what a student is trained for where nothing is said."""
    out: list[Objective] = []
    if (head := head_of(student)) is not None:
        out += [supervised(student)] if head == "tokens" or COLUMNS[head][0] in train.column_names else []
        out.append(taught(student, temperature=2))
    return [*out, HiddenStates(layers=matched)]


def check_tokens(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Raise `InputError` where two models cannot be of one tokenizer."""
    rows, padding = (
        [of(model) for model in (student, teacher)]
        for of in (embedding_rows, lambda model: model.config.get_text_config().pad_token_id)
    )
    for what, (mine, theirs), but in (
        (
            "{:,} token embeddings",
            rows,
            # Which rows are no tokens a model does not say.
            f"; where one has the other's tokens and only more rows, make both {max(rows)} by resize_token_embeddings",
        ),
        ("the padding token {}", padding, ""),
    ):
        if mine != theirs and None not in (mine, theirs):
            raise InputError(
                f"student and teacher are not known to share a tokenizer: the student {name_of(student)} has "
                f"{what.format(mine)}, the teacher {name_of(teacher)} {what.format(theirs)}. Give two models of one "
                f"tokenizer{but}"
            )
