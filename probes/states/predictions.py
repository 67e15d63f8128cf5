"""What a model predicts, as Representations keep it: logits, the names of its classes, and labels
by their numbers.

A head of one class a text is kept as `logits (example, class)`; of several classes as `several
(example, choice)`, above 0 where a class is predicted; of a class a word as `words (word, example,
tag)`, -inf where a text has no such word or it was cut off; of a number as `numbers (example,
number)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError

# What a head is kept as: by its kind, the variable, the dimension of its classes, and the column of its labels.
KEPT = {
    "classes": ("logits", "class", "label"),
    "several": ("several", "choice", "labels"),
    "words": ("words", "tag", "tags"),
    "numbers": ("numbers", "number", "label"),
}
DECIDES = ("classes", "several", "words")  # the kinds that choose among classes


class Decisions(NamedTuple):
    """What a model decides, one class among some each time: a class of a text, or of a word, or
    whether a text has a class.
    """

    scores: np.ndarray  # (decision, class) logits
    example: np.ndarray  # (decision,) the number of the text that each is of
    there: np.ndarray  # where each stands among all that could be


def predicts(reps: xr.Dataset) -> str | None:
    """Return the kind of the head whose predictions Representations hold, None without any.

    Example:
        >>> predicts(xr.Dataset({"numbers": (("example", "number"), np.ones((2, 1)))}))
        'numbers'
    """
    return next((kind for kind, (name, *_) in KEPT.items() if name in reps.data_vars), None)


def label_codes(labels: np.ndarray, classes: list[str], model: str) -> np.ndarray:
    """Return the number of the class that each label names, by the name of the class or by its
    number.
    """
    if len(set(classes)) < len(classes):
        raise InputError(
            f"accuracy: two classes of model {model!r} have one name, among {', '.join(map(repr, classes[:10]))}. "
            "Give each its own, in model.config.id2label"
        )
    numbers = [str(i) for i in range(len(classes))]
    known = set(pd.unique(pd.Series(labels)))
    names = classes if known <= set(classes) else numbers
    unknown = sorted(known.difference(classes)) if not known <= set(names) else []
    if unknown:
        raise InputError(
            f"label {unknown[0]!r} is no class of model {model!r}; it has "
            f"{', '.join(map(repr, classes[:10]))}. Name its classes as the labels are, in model.config.id2label"
        )
    return pd.Categorical(labels, categories=names).codes


def several_codes(cells: Sequence[str], classes: list[str], model: str) -> np.ndarray:
    """Return (text, class) 1 for each of the labels in the cell of a text, which spaces separate, 0
    for the others.

    Example:
        >>> several_codes(["a b", "", "b"], ["a", "b"], "model").tolist()
        [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    """
    named = [cell.split() for cell in cells]
    flat = np.asarray([label for cell in named for label in cell], object)
    codes = label_codes(flat, classes, model) if len(flat) else np.zeros(0, int)
    out = np.zeros((len(named), len(classes)))
    out[np.repeat(np.arange(len(named)), [len(cell) for cell in named]), codes] = 1
    return out


def decisions(reps: xr.Dataset, probe: str) -> Decisions:
    """Return what a model decides in Representations; raise `InputError` where it does not choose
    among classes.

    Example:
        >>> reps = xr.Dataset({"several": (("example", "choice"), np.array([[2.0, -1.0]]))})
        >>> decisions(reps, "accuracy").scores.argmax(axis=1).tolist()
        [1, 0]
    """
    kind = predicts(reps)
    if kind not in DECIDES:
        lacking = "no logits" if kind is None else "numbers, which number_quality and number_loyalty are for"
        raise InputError(
            f"{probe} needs predictions, and the Representations of model {reps.attrs.get('model', '?')!r} hold "
            f"{lacking}. Capture a model for sequence classification, with its head"
        )
    name, classes, _ = KEPT[kind]
    if kind == "words":
        values = reps[name].variable.transpose("example", "word", classes).values
        there = np.flatnonzero(~np.isneginf(values).all(axis=2))  # broken ones are NaN, or not all of one kind
        return Decisions(values.reshape(-1, values.shape[2])[there], there // values.shape[1], there)
    values = reps[name].variable.transpose("example", classes).values
    if kind == "classes":
        return Decisions(values, np.arange(len(values)), np.arange(len(values)))
    flat = values.ravel()
    return Decisions(
        np.stack([np.zeros_like(flat), flat], axis=1),
        np.repeat(np.arange(len(values)), values.shape[1]),
        np.arange(len(flat)),
    )


def right_classes(reps: xr.Dataset, made: Decisions, probe: str) -> np.ndarray:
    """Return the number of the class that is right of each decision (decision,); raise `InputError`
    where there are no labels, or they are not of the model.
    """
    kind = predicts(reps)
    assert kind is not None  # there are decisions
    column = KEPT[kind][2]
    if column not in reps.coords:
        of = "labels" if kind == "classes" else f"the {column} of its head"
        raise InputError(
            f"{probe} needs {of}, and the Representations have none. Capture a corpus with "
            f"{'a label' if kind == 'classes' else f'a column {column!r}'}"
        )
    cells, classes, model = reps[column].values, class_names(reps), str(reps.attrs.get("model", "?"))
    if kind == "classes":
        return label_codes(cells, classes, model)
    if kind == "several":
        return several_codes(cells.tolist(), classes, model).ravel()
    named = [cell.split() for cell in cells]
    codes = label_codes(np.asarray([tag for cell in named for tag in cell], object), classes, model)
    most = reps.sizes["word"]
    places = np.concatenate([example * most + np.arange(len(cell)) for example, cell in enumerate(named)])
    wanted = np.full(len(named) * most, -1)
    wanted[places] = codes
    return wanted[made.there]


def predicted_numbers(reps: xr.Dataset, probe: str) -> np.ndarray:
    """Return the number that a model predicts for each text (example,); raise `InputError` where it
    predicts none.
    """
    if predicts(reps) != "numbers":
        raise InputError(
            f"{probe} needs predicted numbers, and the Representations of model {reps.attrs.get('model', '?')!r} hold "
            "none. Capture a model whose head gives one number a text (num_labels=1)"
        )
    return reps["numbers"].variable.transpose("example", "number").values[:, 0].astype(np.float64)


def numbers_of(labels: Sequence[str], model: str) -> list[float]:
    """Return labels as numbers; raise `InputError` for one that is none.

    Example:
        >>> numbers_of(["1", "2.5"], "model")
        [1.0, 2.5]
    """
    out = [_number(label) for label in labels]
    for row, number in enumerate(out):
        if not np.isfinite(number):
            raise InputError(
                f"row {row}: label {labels[row]!r} is no number, and the head of {model} gives one number a text: give "
                "numbers, or a model whose head tells classes apart"
            )
    return out


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether there are labels, and all are finite numbers.

    Example:
        >>> are_numbers(["1", "2.5"]), are_numbers(["1", "nan"]), are_numbers([])
        (True, False, False)
    """
    found = [_number(label) for label in labels]
    return bool(found) and bool(np.isfinite(found).all())


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return float("nan")


def class_names(reps: xr.Dataset) -> list[str]:
    """Return the names of the classes of a head, their numbers where they have none."""
    classes = KEPT[predicts(reps) or "classes"][1]
    return (
        [str(c) for c in reps[classes].values] if classes in reps.coords else list(map(str, range(reps.sizes[classes])))
    )


def classes_in_words(reps: xr.Dataset) -> str:
    """Return the first ten classes of a model for a message."""
    return ", ".join(map(repr, class_names(reps)[:10]))
