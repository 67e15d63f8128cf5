"""How well a model does what its head is for, and how far it does what another one does, by language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.inputs import row_batches
from compress.kinds import COLUMNS, IGNORED
from compress.objectives.base import is_whole
from compress.rows import training_rows
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import head_of, name_of
from probes.results.correlations import correlations, weighted_ranks
from probes.results.draws import balanced_weights
from probes.results.intervals import interval
from probes.states.running import evaluating
from probes.states.tokens import reads_padding

_BATCH = 32


def quality(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    other: PreTrainedModel | None = None,
    draws: int = 1000,
    seed: int = 0,
    max_length: int | None = None,
    prompt: str | None = None,
) -> pd.DataFrame:
    """Measure how well a model does what its head is for, or how far it says what another one says.

    | head | measures |
    |---|---|
    | one class a text, or a word | `accuracy`, the share that is right |
    | several classes a text | `accuracy` over texts and classes, `exact`, of texts with all classes right, `f1` |
    | one number a text | `squared_error`, and the correlations `pearson` and `spearman` |

    Args:
        model: with such a head; it is not changed.
        tokenizer: the tokenizer that belongs to it.
        corpus: with labels of its kind; of one with splits give those that were held out. Of a word
            the first token counts, and words that are cut off are left out.
        other: a model of the same tokenizer and head, as the one before a compression: in place of
            the labels stands what it says, right or wrong, and labels are not needed.
        draws, seed: of the bootstrap by id, or by group where the corpus has groups.
        max_length, prompt: how texts are read, as of `probes.capture`; None for what the checkpoint
            declares.

    Returns:
        A row a measure and language, and for all of them "pooled": `measure`, `language`, `value`,
        `low` and `high`, the 95 % interval, and `n`, texts or words. All but `squared_error` are
        higher the better; all but it and the correlations (-1 to 1) are 0 to 1. NaN where a measure
        is not defined, as a correlation with what is the same everywhere.

    Raises:
        InputError: the head is of another kind; the corpus has no labels of it, or they are not the
            model's; the two heads differ; draws are fewer than 2.

    Notes:
        Percentiles of draws; ranks are taken anew in each of them, ties share theirs. `f1` is over
        all decisions ("micro"). `accuracy` is that of `probes.accuracy`, which has an exact
        interval, and numbers are measured as by `probes.number_quality`: these stand in a
        comparison beside the layers.

    See also:
        `probes.accuracy`, `probes.number_quality`, `probes.loyalty`, `held_out_loss`

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> found = quality(model, tokenizer, corpus, other=compress.prune(model, sparsity=0.3))
        >>> found.loc[1, ["measure", "language"]].tolist(), bool(found.loc[1, "value"] > 0.9)
        (['accuracy', 'pooled'], True)
    """
    head = head_of(model)
    if head not in COLUMNS:
        of = "tokens, whose loss held_out_loss tells" if head == "tokens" else "no labels"
        raise InputError(f"{name_of(model)}: {type(model).__name__} is for {of}: expected a head of classes or numbers")
    if other is not None and (head_of(other), other.config.num_labels) != (head, model.config.num_labels):
        raise InputError(
            f"the heads differ: {type(model).__name__} gives {model.config.num_labels} and {type(other).__name__} "
            f"{other.config.num_labels} classes or numbers, of {COLUMNS[head][1]}: give two models of one task"
        )
    if not is_whole(draws) or draws < 2:
        raise InputError(f"draws={draws!r}: expected a whole number of at least 2")
    corpus = check_corpus(corpus)
    whole = corpus.remove_columns("split") if "split" in corpus.column_names else corpus
    rows, labelled = training_rows(whole, model, tokenizer, max_length=max_length, prompt=prompt)
    if not labelled and (other is None or head == "words"):
        column, holds = COLUMNS[head]
        raise InputError(f"the corpus has no column {column!r}, {holds}: there is nothing to hold what is said against")
    said, wanted, of_row = _said(model, tokenizer, rows, head)
    if other is not None:
        wanted = _decided(_said(other, tokenizer, rows, head)[0], head)
    units = whole["group" if "group" in whole.column_names else "id"]
    unit, names = pd.factorize(np.asarray(units, object), sort=True)
    weights = balanced_weights(len(names), draws, seed)
    language = np.asarray(whole["language"], object)[of_row]
    rows_out: list[dict[str, Any]] = []
    for measure, statistic in MEASURES[head].items():
        for code in [*dict.fromkeys(language), "pooled"]:
            here = np.flatnonzero((language == code) | (code == "pooled"))
            drawn = weights[:, unit[of_row[here]]].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                values = statistic(_decided(said[here], head), wanted[here], drawn)
            low, high = interval(values[0], values[1:])
            row = {"measure": measure, "language": code, "value": float(values[0])}
            rows_out.append(row | {"low": float(low), "high": float(high), "n": len(here)})
    return pd.DataFrame(rows_out)


def _said(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], head: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a model says, the labels, and the number of the text, of each text or labelled word."""
    said, wanted, of_row = [], [], []
    size = 1 if reads_padding(model) else _BATCH
    with evaluating(model, model.device), torch.no_grad():
        for start in range(0, len(rows), size):
            (batch,) = row_batches(rows[start : start + size], tokenizer, model)
            labels = batch.pop("labels", None)
            logits = model(**batch).logits.float().cpu()
            number = torch.arange(start, start + len(logits))
            if head == "words":
                assert labels is not None  # quality has raised
                there = labels.cpu() != IGNORED
                logits, labels, number = logits[there], labels.cpu()[there], number[:, None].expand(there.shape)[there]
            said.append(logits.numpy())
            wanted.append(np.full(len(logits), np.nan) if labels is None else labels.cpu().numpy())
            of_row.append(number.numpy())
    return np.concatenate(said), np.concatenate(wanted), np.concatenate(of_row)


def _decided(said: np.ndarray, head: str) -> np.ndarray:
    if head == "numbers":
        return said[:, 0].astype(np.float64)
    return (said > 0).astype(float) if head == "several" else said.argmax(axis=1)


def _right(said: np.ndarray, wanted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    right = (said == wanted).astype(float).reshape(len(said), -1).mean(axis=1)
    return drawn @ right / drawn.sum(axis=1)


def _exact(said: np.ndarray, wanted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    return drawn @ (said == wanted).all(axis=1).astype(float) / drawn.sum(axis=1)


def _f1(said: np.ndarray, wanted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    both, either = (said * wanted).sum(axis=1), (said + wanted).sum(axis=1)
    return 2 * (drawn @ both) / (drawn @ either)


def _squared_error(said: np.ndarray, wanted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    return drawn @ np.square(said - wanted) / drawn.sum(axis=1)


def _pearson(said: np.ndarray, wanted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    return correlations(np.broadcast_to(said, drawn.shape), np.broadcast_to(wanted, drawn.shape), drawn)


def _spearman(said: np.ndarray, wanted: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    return correlations(weighted_ranks(said, drawn), weighted_ranks(wanted, drawn), drawn)


MEASURES: Mapping[str, Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]]] = {
    "classes": {"accuracy": _right},
    "words": {"accuracy": _right},
    "several": {"accuracy": _right, "exact": _exact, "f1": _f1},
    "numbers": {"squared_error": _squared_error, "pearson": _pearson, "spearman": _spearman},
}
