"""A head for the labels of a corpus, on a model that has none."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import datasets
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from compress.kinds import COLUMNS
from compress.objectives.base import Objective
from compress.objectives.numbers import SquaredError
from probes.corpus import check_corpus
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import head_of, name_of, predicted_tokens
from probes.states.predictions import are_numbers

_PROBLEMS = {
    "classes": "single_label_classification",
    "several": "multi_label_classification",
    "numbers": "regression",
    "words": None,
}


def missing_head(model: PreTrainedModel, corpus: datasets.Dataset, objective: Sequence[Objective]) -> str | None:
    """Return the kind of head, of `compress.kinds`, that a model lacks to be trained on a corpus;
    None where it has one, or none is asked for.

    A head that predicts masked tokens is none for labels, where nothing else is trained for. Labels
    that are numbers, not all of them whole, are for one of numbers.
    """
    if head_of(model) is not None and not (predicted_tokens(model) == "masked" and _read(objective)):
        return None
    if not _read(objective):
        return None
    allowed = {"numbers", *COLUMNS}
    for o in objective:
        of_numbers = isinstance(getattr(o, "objective", o), SquaredError)  # also as one of a mixture
        allowed &= {"numbers"} if of_numbers else set(getattr(o, "kinds", None) or allowed)
    corpus = check_corpus(corpus)
    if "label" in corpus.column_names:
        labels = set(corpus["label"])
        parts = are_numbers(labels) and any(not float(label).is_integer() for label in labels)
        kinds = ["numbers", "classes"] if parts else ["classes", "numbers"]
    else:
        # Candidates of which one is right are of a head of classes.
        kinds = {"labels": ["several", "classes"], "tags": ["words"]}.get(
            next((c for c in ("labels", "tags") if c in corpus.column_names), ""), []
        )
    found = next((kind for kind in kinds if kind in allowed), None)
    if found is None and head_of(model) is None:
        raise InputError(
            f"{name_of(model)}: {type(model).__name__} has no head, and the corpus no labels to make one for: add a "
            "column 'label' (one class or number a text), 'labels' (several) or 'tags' (one a word), or give "
            "objective=..., one that needs no labels"
        )
    return found


def _read(objective: Sequence[Objective]) -> bool:
    """Whether what is trained for reads the labels of a head."""
    return not objective or any(
        "labels" in o.needs or "tokens" not in (getattr(o, "kinds", None) or ("tokens",)) for o in objective
    )


def with_head(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, kind: str, seed: int = 0
) -> PreTrainedModel:
    """Return a copy of a model with a new head for the labels of a corpus, drawn by a seed.

    Args:
        model: without a head of labels; it is not changed.
        tokenizer: of the model.
        corpus: whose labels become the classes, in the order of their names (of numbers, of their
            size), with their names in the configuration.
        kind: of the head, as `compress.kinds` names them.
        seed: of its weights; a pooler that the head reads and the model lacks is drawn too.

    Raises:
        InputError: transformers has no such head for the architecture; there are fewer than 2
            classes.

    Example:
        >>> import probes, warnings
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     made = with_head(model.base_model, tokenizer, corpus, "classes")
        >>> type(made).__name__, made.config.id2label[0]
        ('BertForSequenceClassification', 'food')
    """
    auto: Any = AutoModelForTokenClassification if kind == "words" else AutoModelForSequenceClassification
    try:
        made_by: Any = auto._model_mapping[type(model.config)]
    except KeyError:
        made_by = None
    if made_by is None:
        raise InputError(
            f"{name_of(model)}: transformers has no model of {model.config.model_type!r} with a head for "
            f"{COLUMNS[kind][1]}. Give a model with a head"
        )
    names = _names(check_corpus(corpus), kind)
    if len(names) < 2 and kind != "numbers":
        raise InputError(
            f"a head needs two classes at least, and the corpus has {', '.join(map(repr, names)) or 'none'}"
        )
    body: Any = copy.deepcopy(model.base_model)
    config = body.config
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type, config.architectures = _PROBLEMS[kind], [made_by.__name__]
    if config.get_text_config().pad_token_id is None:
        config.get_text_config().pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        made = made_by(config)
    own = made.base_model
    if type(own) is not type(body):
        raise InputError(
            f"{name_of(model)}: a head for {COLUMNS[kind][1]} stands on a {type(own).__name__}, and this is a "
            f"{type(body).__name__}. Give a {type(own).__name__}, or a model with a head"
        )
    if hasattr(own, "pooler"):  # some heads read it, some stand without
        body.pooler = own.pooler if own.pooler is None or body.pooler is None else body.pooler
    dtype = next(model.parameters()).dtype
    setattr(made, made.base_model_prefix, body)
    of = "numbers" if kind == "numbers" else f"{COLUMNS[kind][1]}, of {', '.join(map(repr, names[:10]))}"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    warnings.warn(
        f"{name_of(model)}: it has no head for labels, so one for {of}{more}, was made, by seed {seed}",
        LayerscopeWarning,
        stacklevel=3,
    )
    return made.to(device=model.device, dtype=dtype).train(model.training)


def _names(corpus: datasets.Dataset, kind: str) -> list[str]:
    """The classes that a column of labels has, in order."""
    if kind == "numbers":
        return ["number"]
    column = next(c for c in (COLUMNS[kind][0], "labels") if c in corpus.column_names)
    cells = [str(cell) for cell in corpus[column]]
    found = set(cells) if column == "label" else {name for cell in cells for name in cell.split()}
    numbered = all(name.isdecimal() for name in found)
    return sorted(found, key=lambda name: (int(name) if numbered else 0, name))
