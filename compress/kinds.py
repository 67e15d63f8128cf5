"""Kinds of labels: one class of a text, several, a number, one class of each word; what a head is trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
from transformers import BatchEncoding, PreTrainedModel

from probes.errors import InputError
from probes.models.facts import classes_of, head_of
from probes.states.predictions import label_codes

# The column that a head is trained on, and what it holds.
COLUMNS = {
    "classes": ("label", "one class a text"),
    "numbers": ("label", "one number a text"),
    "several": ("labels", "none or several classes a text"),
    "words": ("tags", "one class a word"),
}
IGNORED = -100  # the label of a token that has none
Told = list[dict[str, Any]]
Read = tuple[Sequence[str], int, BatchEncoding]


def labels_for(model: PreTrainedModel, corpus: datasets.Dataset, name: str, read: Read) -> Told | None:
    """Return for each text what the head of a model is trained on, as an entry of its row; None
    where the corpus has no column for it.

    Args:
        model: says what its labels are; one without a head of labels takes classes.
        corpus: its texts, as they are without a prompt.
        name: of the model, for messages.
        read: the texts as they are read, how many characters of them are the prompt, and their
            tokens.

    Raises:
        InputError: a label is no class of the model, or no number.
    """
    head = head_of(model)
    head = head if head in COLUMNS else "classes"
    if COLUMNS[head][0] not in corpus.column_names:
        return None
    return _TOLD[head](model, corpus, name, read)


def _classes(model: PreTrainedModel, corpus: datasets.Dataset, name: str, read: Read) -> Told:
    known = [str(c) for c in (model.config.id2label or {}).values()]
    return [{"labels": int(code)} for code in label_codes(np.asarray(corpus["label"], object), known, name)]


def _numbers(model: PreTrainedModel, corpus: datasets.Dataset, name: str, read: Read) -> Told:
    return [{"labels": number} for number in numbers_of(corpus, name)]


def numbers_of(corpus: datasets.Dataset, name: str) -> list[float]:
    """Return the labels of a corpus as numbers; raise `InputError` for one that is none.

    Example:
        >>> corpus = datasets.Dataset.from_dict({"label": ["1", "2.5"]})
        >>> numbers_of(corpus, "model")
        [1.0, 2.5]
    """
    out = []
    for row, label in enumerate(corpus["label"]):
        try:
            number = float(label)
        except ValueError:
            number = float("nan")
        if not np.isfinite(number):
            raise InputError(
                f"row {row}: label {label!r} is no number, and the head of {name} gives one number a text: give "
                "numbers, or a model whose head tells classes apart"
            )
        out.append(number)
    return out


def _several(model: PreTrainedModel, corpus: datasets.Dataset, name: str, read: Read) -> Told:
    return [{"labels": row} for row in several_of(model, corpus, name).tolist()]


def several_of(model: PreTrainedModel, corpus: datasets.Dataset, name: str) -> np.ndarray:
    """Return (text, class) 1 for each of the `labels` of a text, 0 for the others."""
    classes = classes_of(model, model.config.num_labels or 0)
    cells = [cell.split() for cell in corpus["labels"]]
    flat = np.asarray([label for cell in cells for label in cell], object)
    codes = label_codes(flat, classes, name) if len(flat) else np.zeros(0, int)
    out = np.zeros((len(cells), len(classes)))
    out[np.repeat(np.arange(len(cells)), [len(cell) for cell in cells]), codes] = 1
    return out


def _words(model: PreTrainedModel, corpus: datasets.Dataset, name: str, read: Read) -> Told:
    classes = classes_of(model, model.config.num_labels or 0)
    cells = [cell.split() for cell in corpus["tags"]]
    codes = iter(label_codes(np.asarray([tag for cell in cells for tag in cell], object), classes, name))
    firsts = first_tokens(*read)
    out: Told = []
    for i, cell in enumerate(cells):
        row = [IGNORED] * len(read[2]["input_ids"][i])
        for token, code in zip(firsts[i], [int(next(codes)) for _ in cell], strict=True):
            if token is not None:
                row[token] = code
        out.append({"tags": row})
    return out


def first_tokens(texts: Sequence[str], start: int, encoded: BatchEncoding) -> list[list[int | None]]:
    """Return the number of the first token of each word of each text; None for a word that was cut
    off, or is no token.

    Args:
        texts: as they are read, after a prompt; words are what spaces separate.
        start: how many characters the prompt has.
        encoded: the texts as tokens of a tokenizer that says where in the text each token lies.

    Raises:
        InputError: the tokenizer does not say where tokens lie.
    """
    if not encoded.is_fast:
        raise InputError(
            "the tokenizer does not say where in the text its tokens lie, and tags are of words: load one with a "
            "tokenizer.json"
        )
    out: list[list[int | None]] = []
    for text, encoding in zip(texts, encoded.encodings or [], strict=True):
        spans = [found.span() for found in re.finditer(r"\S+", text[start:])]
        word_at = {start + i: number for number, span in enumerate(spans) for i in range(*span)}
        first: list[int | None] = [None] * len(spans)
        for token, ((low, high), sequence) in enumerate(zip(encoding.offsets, encoding.sequence_ids, strict=True)):
            if sequence != 0:  # of no text, or of the second of a pair
                continue
            word = next((word_at[i] for i in range(low, high) if i in word_at), None)  # some begin with the space
            if word is not None and first[word] is None:
                first[word] = token
        out.append(first)
    return out


_TOLD: dict[str, Callable[..., Told]] = {
    "classes": _classes,
    "numbers": _numbers,
    "several": _several,
    "words": _words,
}
