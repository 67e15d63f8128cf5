"""The texts trained on, as rows of token ids and labels, and batches of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import datasets
import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.kinds import labels_for
from compress.packing import packed_rows
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import check_fit, embedding_rows, name_of
from probes.states.tokens import Padding, padding_of, pads_left, reads_padding
from probes.states.vectors import length_of, prompted, settle


def trained_on(corpus: datasets.Dataset) -> list[int]:
    """Return the numbers of the rows that a training takes: of split "train", or all."""
    if "split" not in corpus.column_names:
        return list(range(len(corpus)))
    chosen = [i for i, split in enumerate(corpus["split"]) if split == "train"]
    if not chosen:
        found = ", ".join(map(repr, sorted(set(corpus["split"]))))
        raise InputError(
            f"the corpus has no row of split 'train', only of {found}. Give one that has some, or one without a column "
            "'split'"
        )
    return chosen


def training_rows(
    corpus: datasets.Dataset,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel | None = None,
    numbered_by: Literal["student", "teacher"] | None = "student",
    *,
    max_length: int | None = None,
    prompt: str | None = None,
    words: bool = False,
    packed: bool = False,
    columns: Collection[str] = (),
    apart: bool = False,
) -> tuple[list[dict[str, Any]], bool]:
    """Return token ids, labels and `index` of the texts trained on, and whether there are labels.

    Texts are read as `probes.capture` reads them: after the prompt and in the small letters that
    the student's checkpoint declares (`config.text_embedding`), and cut at the length that it
    declares, or where student or teacher cannot read on. Labels are what the head of one of them
    says (`probes.models.facts.head_of`): the number of a class, which it must have; a number; for
    each class of `labels` 1, for the others 0; or for each word of `tags` the number of its class
    at its first token, -100 at all others. Of nobody they are numbers of the labels in the order of
    their names.

    Args:
        corpus: of split "train", where it has splits.
        student, tokenizer, teacher: what reads the texts.
        numbered_by: whose classes the labels are; None for the order of their names.
        max_length, prompt: in place of what the checkpoint declares; "" for no prompt.
        words: also give `words`, the number of each token's word in its text, -1 for none.
        packed: several texts a row, as `compress.packing.packed_rows` makes them, without labels.
        columns: also give `beside`, what these columns of the corpus hold, by their names; of those
            that no corpus needs, as "label", what is there.
        apart: the two texts of a pair are read apart: rows are of `text`, and `beside` has the
            token ids of `text_pair` as "pair".

    Raises:
        InputError: a model and the tokenizer do not fit; a label is no class, or no number; there
            is no row of split "train"; `max_length` is more than a model takes; a column is missing.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> rows, labelled = training_rows(corpus.select(range(2)), model, tokenizer)
        >>> [row["index"] for row in rows], labelled
        ([0, 1], True)
    """
    given, corpus = corpus, check_corpus(corpus)
    beside = _beside(given, corpus, columns)
    models = [student] if teacher is None else [student, teacher]
    names = [name_of(m) for m in models]
    for model, called in zip(models, names, strict=True):
        check_fit(embedding_rows(model), tokenizer, called)
    taken = trained_on(corpus)
    corpus = corpus.select(taken)
    beside = {name: [values[i] for i in taken] for name, values in beside.items()}
    how, said = settle(student, names[0], pooling="mean", max_length=max_length, prompt=prompt)
    limits = [length_of(how, m, tokenizer, said) for m in models]
    limit = min((n for n in limits if n is not None), default=None)
    texts = prompted(corpus, how)["text"][:]
    pairs = list(corpus["text_pair"]) if "text_pair" in corpus.column_names else None
    cut: dict[str, Any] = {"truncation": limit is not None, "max_length": limit, "verbose": False}
    encoded = tokenizer(texts, None if apart else pairs, **cut)
    rows = [{k: v[i] for k, v in encoded.items() if k != "attention_mask"} | {"index": i} for i in range(len(corpus))]
    if apart and pairs is not None:
        beside["pair"] = tokenizer([(how.prompt or "") + pair for pair in pairs], **cut)["input_ids"]
    if beside:
        for i, row in enumerate(rows):
            row["beside"] = {name: values[i] for name, values in beside.items()}
    if words:
        if not tokenizer.is_fast:
            raise InputError(
                f"{type(tokenizer).__name__} does not say which tokens are of one word: load a tokenizer with a "
                "tokenizer.json, or leave whole_words out"
            )
        for i, row in enumerate(rows):
            row["words"] = [-1 if word is None else word for word in encoded.word_ids(i)]
    if packed:
        return list(packed_rows(rows, limit)), False
    if numbered_by is None:
        named = np.asarray(corpus["label"], object) if "label" in corpus.column_names else None
        labels = None if named is None else [{"labels": int(code)} for code in np.unique(named, return_inverse=True)[1]]
    else:
        at = 0 if numbered_by == "student" else -1
        labels = labels_for(models[at], corpus, names[at], (texts, len(how.prompt or ""), encoded))
    if labels is not None:
        rows = [row | label for row, label in zip(rows, labels, strict=True)]
    return rows, labels is not None


# Columns that a corpus may be without, so that what asks for them says what it needs them for.
_OPTIONAL = ("label", "text_pair", "group", "labels", "tags", "split")


def _beside(given: datasets.Dataset, checked: datasets.Dataset, columns: Collection[str]) -> dict[str, list[Any]]:
    """Return what columns of a corpus hold; of those it keeps what was checked, others may be there."""
    out = {}
    for name in columns:
        source = checked if name in checked.column_names else given
        if name in source.column_names:
            out[name] = list(source.with_format(None)[name])
        elif name not in _OPTIONAL:
            raise InputError(
                f"the corpus has no column {name!r}, which this training reads; it has "
                f"{', '.join(map(repr, given.column_names))}"
            )
    return out


def every_row(
    corpus: datasets.Dataset, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Return the token ids of all texts of a corpus, as `training_rows` gives them, whatever their
    split, and without their labels.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", languages=["en"])
        >>> len(every_row(corpus, model, tokenizer)) == len(corpus)
        True
    """
    corpus = corpus.remove_columns([c for c in ("split", "label") if c in corpus.column_names])
    return training_rows(corpus, model, tokenizer, numbered_by=None)[0]


def reading_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a training that say how its text is read, as `training_rows` takes them.

    Example:
        >>> reading_of({"prompt": "query: ", "learning_rate": 1e-4})
        {'prompt': 'query: '}
    """
    return {name: settings[name] for name in ("max_length", "prompt") if name in settings}


def padding_for(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None = None,
) -> Padding:
    """Return how rows are padded for a student and its teacher; raise `InputError` where they
    cannot be.
    """
    padding = padding_of(tokenizer, student)
    for model in (student, *([] if teacher is None else [teacher])):
        if reads_padding(model) and len({len(row["input_ids"]) for row in rows}) > 1:
            raise InputError(
                f"{name_of(model)}: {type(model).__name__} reads padding as text, so that texts of one batch change "
                "each other. Train on texts of one length in tokens, or take a model with an attention mask"
            )
        if pads_left(model) != padding.left:
            raise InputError(
                f"{name_of(student)} and its teacher {name_of(model)} read texts with padding on different sides. "
                "Take a teacher of the student's architecture"
            )
    return padding
