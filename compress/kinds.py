"""Kinds of labels: one class of a text, several, a number, one class of each word; what a head is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
from transformers import BatchEncoding, PreTrainedModel

from probes.models.facts import classes_of, head_of
from probes.states.predictions import label_codes, numbers_of, several_codes
from probes.states.words import first_tokens

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
    return [{"labels": number} for number in numbers_of(list(corpus["label"]), name)]


def _several(model: PreTrainedModel, corpus: datasets.Dataset, name: str, read: Read) -> Told:
    classes = classes_of(model, model.config.num_labels or 0)
    return [{"labels": row} for row in several_codes(list(corpus["labels"]), classes, name).tolist()]


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


_TOLD: dict[str, Callable[..., Told]] = {
    "classes": _classes,
    "numbers": _numbers,
    "several": _several,
    "words": _words,
}
