"""Is a language model normalised by itself: log Z, of the softmax over tokens, on text that it was not trained on."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import IGNORED, is_whole
from compress.rows import every_row, padding_for
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.results.draws import balanced_weights
from probes.results.intervals import interval
from probes.states.batches import collate
from probes.states.by_token import next_tokens, predicts_next
from probes.states.running import evaluating


def self_normalization(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    batch_size: int = 32,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return mean and spread of log Z, the log of the sum of exp(logits), by language and pooled.

    A spread near 0 means that logits are log probabilities but for one constant, the mean: then no
    sum over the vocabulary is needed to compare tokens of different contexts.

    Args:
        model: of the next token; it is not changed.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it; of one with splits give those that were held out.
        batch_size: texts.
        draws, seed: of the bootstrap by id, or by group.

    Returns:
        A row a language, and last "pooled": `language`; `mean` over tokens, in nats, with `low` and
        `high`, the 95 % interval; `spread`, the standard deviation over tokens, in nats, at least 0;
        and `tokens`, how many.

    Raises:
        InputError: the model predicts no next token, or every text is one token long; a setting is
            out of range.

    Notes:
        As Mnih and Teh 2012, arXiv 1206.6426, and Devlin et al. 2014 speak of it. Adding one number
        to all logits changes the mean and no probability; the spread is what matters.

    See also:
        `NoiseContrast`, `language_model_loss`

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> list(self_normalization(model, tokenizer, corpus))
        ['language', 'mean', 'low', 'high', 'spread', 'tokens']
    """
    for name, value, least in (("batch_size", batch_size, 1), ("draws", draws, 2)):
        if not is_whole(value) or value < least:
            raise InputError(f"{name}={value!r}: expected a whole number of at least {least}")
    if not predicts_next(model, "self_normalization"):
        raise InputError(
            f"self_normalization: {type(model).__name__} predicts masked tokens: expected a model of the next token"
        )
    corpus = check_corpus(corpus)
    rows = every_row(corpus, model, tokenizer)
    if all(len(row["input_ids"]) < 2 for row in rows):
        raise InputError("self_normalization: every text is one token long, and none has a next one: give longer texts")
    padding = padding_for(rows, tokenizer, model)
    sums = np.zeros((3, len(rows)))  # of each text: tokens, log Z less a number near it, the square of that
    near = None
    with evaluating(model, model.device), torch.no_grad():
        by_length = sorted(rows, key=lambda row: len(row["input_ids"]))
        for start in range(0, len(rows), batch_size):
            part = by_length[start : start + batch_size]
            batch = {k: v.to(model.device) for k, v in collate(padding, part).items()}
            there = next_tokens(batch["input_ids"], batch["attention_mask"].bool()) != IGNORED
            found = model(**batch).logits[there].float().logsumexp(1).double()
            if near is None and len(found):
                near = float(found.mean())
            each = torch.zeros(there.shape, dtype=torch.float64, device=there.device)
            each.masked_scatter_(there, found - (near or 0.0))
            index = [row["index"] for row in part]
            for place, values in enumerate((there.double(), each, each.square())):
                sums[place, index] = values.sum(1).cpu().numpy()
    language = np.asarray(corpus["language"][:], object)
    unit, names = pd.factorize(pd.Series(corpus["group" if "group" in corpus.column_names else "id"][:]), sort=True)
    weights = balanced_weights(len(names), draws, seed).astype(np.int64)
    out = []
    for of in [*dict.fromkeys(language), "pooled"]:
        here = np.flatnonzero((language == of) | (of == "pooled"))
        tokens, first, second = sums[:, here] @ weights[:, unit[here]].T
        with np.errstate(invalid="ignore", divide="ignore"):
            means = first / tokens
            spread = float(np.sqrt(np.maximum(second[0] / tokens[0] - means[0] ** 2, 0.0)))
            means = means + (near or 0.0)
        low, high = interval(means[0], means[1:])
        row = {"language": of, "mean": float(means[0]), "low": float(low), "high": float(high), "spread": spread}
        out.append(row | {"tokens": int(tokens[0])})
    return pd.DataFrame(out)
