"""How well a language model predicts text that it was not trained on: in all, text by text, by language."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import IGNORED, is_whole
from compress.objectives.language_model import LanguageModel, masked_tokens
from compress.rows import padding_for, training_rows
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.results.draws import balanced_weights
from probes.results.intervals import interval
from probes.states.batches import collate
from probes.states.by_token import next_tokens, predicts_next
from probes.states.running import evaluating

_MOST = 700.0  # nats whose exponential is a number


def language_model_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    batch_size: int = 32,
    masked: float = 0.15,
    seed: int = 0,
    max_length: int | None = None,
    prompt: str | None = None,
) -> dict[str, float]:
    """Return how well a model predicts the tokens of a text that it was not trained on.

    Args:
        model, tokenizer, corpus, batch_size, masked, seed, max_length, prompt: as in `text_losses`.

    Returns:
        `nats` a predicted token, lower is better, `perplexity`, its exponential, and `tokens`, how
        many were predicted; of a model of the next token also `bits_per_byte`, all bits over the
        bytes of the texts in UTF-8, which may be compared between tokenizers and languages.

    Raises:
        InputError: what `text_losses` raises.

    Notes:
        A mean over all tokens, not over texts. The first token of a text is never predicted, unless
        the tokenizer sets one before it, and its bytes count all the same.

    See also:
        `text_losses`, `held_out_loss`, which has intervals and languages.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> language_model_loss(model, tokenizer, corpus)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        probes.errors.InputError: objective language_model: BertForSequenceClassification predicts no tokens: ...
    """
    losses = text_losses(
        model,
        tokenizer,
        corpus,
        batch_size=batch_size,
        masked=masked,
        seed=seed,
        max_length=max_length,
        prompt=prompt,
    )
    nats, tokens = float(losses["nats"].sum()), int(losses["tokens"].sum())
    found = {"nats": nats / tokens if tokens else math.nan, "tokens": tokens}
    found["perplexity"] = math.exp(min(found["nats"], _MOST))
    if predicts_next(model, f"objective {LanguageModel.name}"):
        found["bits_per_byte"] = nats / math.log(2) / int(losses["bytes"].sum())
    return found


def text_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    batch_size: int = 32,
    masked: float = 0.15,
    seed: int = 0,
    max_length: int | None = None,
    prompt: str | None = None,
) -> pd.DataFrame:
    """Return how well a model predicts the tokens of each text of a corpus.

    Args:
        model: one that predicts the next token or masked ones; it is not changed.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it; of one with splits give those that were held out.
        batch_size: texts of a batch; the result does not depend on it.
        masked: the share of tokens that is masked and predicted, of a model of masked tokens. The
            same are drawn for every model of one tokenizer.
        seed: of what is masked.
        max_length, prompt: how texts are read, as of `probes.capture`; None for what the checkpoint
            declares. Tokens of the prompt are predicted too.

    Returns:
        A row a text, in the order of the corpus: `id`, `language`, `nats`, the sum over `tokens`,
        those that are predicted, and `bytes`, of the whole text in UTF-8; `group` where there are
        groups.

    Raises:
        InputError: what `LanguageModel` raises; the corpus or the batch size is not as expected.

    See also:
        `held_out_loss`

    Example:
        >>> import probes, transformers
        >>> _, tokenizer = probes.load_checkpoint("bundled")
        >>> config = transformers.GPT2Config(vocab_size=4000, n_embd=8, n_layer=1, n_head=1)
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> losses = text_losses(transformers.GPT2LMHeadModel(config), tokenizer, corpus)
        >>> list(losses), len(losses)
        (['id', 'language', 'nats', 'tokens', 'bytes'], 240)
    """
    objective = LanguageModel(masked=masked)
    if not is_whole(batch_size) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r}: expected a whole number of at least 1")
    corpus = check_corpus(corpus)
    whole = corpus.remove_columns([c for c in ("split", "label", "labels", "tags") if c in corpus.column_names])
    rows, _ = training_rows(whole, model, tokenizer, numbered_by=None, max_length=max_length, prompt=prompt)
    objective.check_text(model, tokenizer, rows)
    padding = padding_for(rows, tokenizer, model)
    forward = predicts_next(model, f"objective {LanguageModel.name}")
    rows = [row | _asked(row, forward, tokenizer, masked, seed) for row in rows]
    rows.sort(key=lambda row: len(row["input_ids"]))
    nats, tokens = np.zeros(len(rows)), np.zeros(len(rows), int)
    with evaluating(model, model.device), torch.no_grad():
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            batch = {k: v.to(model.device) for k, v in collate(padding, part).items()}
            targets = batch.pop("targets")
            logits = model(**batch).logits.float()
            each = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
            index = [row["index"] for row in part]
            nats[index] = each.double().sum(1).cpu().numpy()
            tokens[index] = (targets != IGNORED).sum(1).cpu().numpy()
    texts: Sequence[str] = list(whole["text"])
    if "text_pair" in whole.column_names:
        texts = [one + two for one, two in zip(texts, whole["text_pair"], strict=True)]
    named = {c: list(whole[c]) for c in ("id", "language", "group") if c in whole.column_names}
    return pd.DataFrame(
        {
            **named,
            "nats": nats,
            "tokens": tokens,
            "bytes": [len(text.encode()) for text in texts],
        }
    )


def held_out_loss(
    losses: pd.DataFrame, other: pd.DataFrame | None = None, *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the loss of a language model by language and pooled, or how far it is from another's.

    Args:
        losses: of the texts, as `text_losses` gives them.
        other: those of another model on the same texts: what is told is `losses` minus these.
        draws, seed: of the bootstrap by id, so that translations are drawn together, or by group.

    Returns:
        A row a language, and last "pooled": `language`, `nats` a predicted token with `low` and
        `high`, the 95 % interval, and `texts`. Without `other` lower is better, and there are
        `perplexity`, its exponential, and `bits_per_byte`, all bits over the bytes of the texts (of
        a model of the next token; of masked tokens it says nothing). With it, below 0 is better
        than the other, and the interval is that of the difference.

    Raises:
        InputError: the two are not of the same texts, or of tokens that are not the same.

    Notes:
        A ratio of sums, over the texts of each draw; the interval is that of percentiles.

    See also:
        `text_losses`, `language_model_loss`

    Example:
        >>> losses = pd.DataFrame({"id": ["1", "2"], "language": "en", "nats": [4.0, 2.0],
        ...     "tokens": [2, 2], "bytes": [8, 8]})
        >>> held_out_loss(losses)[["language", "nats"]].to_numpy().tolist()
        [['en', 1.5], ['pooled', 1.5]]
    """
    if not is_whole(draws) or draws < 2:
        raise InputError(f"draws={draws!r}: expected a whole number of at least 2")
    if other is not None:
        for column in ("id", "language", "tokens"):
            if list(losses[column]) != list(other[column]):
                raise InputError(
                    f"the losses are not of the same texts and tokens: {column} differs. Measure both models on one "
                    "corpus, with one tokenizer, seed and share of masked tokens"
                )
    unit, names = pd.factorize(losses["group" if "group" in losses else "id"], sort=True)
    weights = balanced_weights(len(names), draws, seed).astype(np.int64)
    rows = []
    for language in [*dict.fromkeys(losses["language"]), "pooled"]:
        here = np.flatnonzero((losses["language"] == language).to_numpy() | (language == "pooled"))
        drawn, part = weights[:, unit[here]], losses.iloc[here]
        tokens = drawn @ part["tokens"].to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            found = drawn @ part["nats"].to_numpy() / tokens
            if other is not None:
                found = found - drawn @ other.iloc[here]["nats"].to_numpy() / tokens
        low, high = interval(found[0], found[1:])
        row: dict[str, Any] = {"language": language, "nats": found[0], "low": float(low), "high": float(high)}
        row["texts"] = len(here)
        if other is None:
            row["perplexity"] = math.exp(min(found[0], _MOST))
            row["bits_per_byte"] = part["nats"].sum() / math.log(2) / part["bytes"].sum()
        rows.append(row)
    return pd.DataFrame(rows)


def _asked(
    row: Mapping[str, Any], forward: bool, tokenizer: PreTrainedTokenizerBase, masked: float, seed: int
) -> dict[str, list[int]]:
    """What a text is read as and asked for: the same in whatever batch it is."""
    ids = torch.tensor([row["input_ids"]])
    attended = torch.ones_like(ids).bool()
    if forward:
        found = {"targets": next_tokens(ids, attended)}
    else:
        found = masked_tokens(ids, attended, tokenizer, np.random.default_rng([seed, row["index"]]), masked)
    return {k: v[0].tolist() for k, v in found.items()}
