"""One sentence, token by token: who moved, where."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import name_of
from probes.states.by_token import Said
from probes.states.spoken import by_layer, spoken

WORST = 10  # tokens of a model that a report shows


def tokens(
    base: PreTrainedModel,
    other: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    id: str | int | None = None,
    language: str | None = None,
    names: tuple[str, str] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Show what two decoders say of every token of a sentence.

    Args:
        base, other: the original and the compressed model; without `other` the original alone.
        tokenizer: of both.
        corpus: as `load_corpus` gives it.
        id, language: of the sentences that are shown; by default all of the corpus.
        names: what the two are called in messages.
        settings: of `capture`: max_length, prompt, device, batch_size, batch_tokens.

    Returns:
        A row a token: `id`, `language`, `place` in the sentence, `text` of the token, `start` and
        `end` in the sentence, `base_nats` and `nats`, minus the log of its probability in each
        model (nan for the first, which nothing predicts), `kl` from the original's distribution to
        the other's in nats, and `base_top` and `top`, the five likeliest tokens of each as (text,
        probability). Of one model `nats`, `kl` and `top` are left out.

    Raises:
        InputError: there is no such sentence; the models predict no next token.

    See also:
        `next_token`, `lens`, `Comparison.report`, which shows the tokens that moved most.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> corpus = probes.load_corpus("bundled", split="dev")
        >>> rounded = compress.quantize(model, bits=3)
        >>> found = tokens(model, rounded, tokenizer, corpus, id=corpus["id"][0], language="fr")
        >>> bool(found["kl"].max() > 0)
        True
    """
    corpus = check_corpus(corpus)
    for column, wanted in (("id", id), ("language", language)):
        if wanted is not None:
            corpus = corpus.select([k for k, value in enumerate(corpus[column]) if str(value) == str(wanted)])
        if not len(corpus):
            raise InputError(
                f"tokens: no sentence of the corpus has {column}={wanted!r}. Choose one of corpus[{column!r}]"
            )
    both = [m for m in (base, other) if m is not None]
    called = [*(names or map(name_of, both))][: len(both)]
    rows = []
    for sentence in spoken(both, tokenizer, corpus, called, who="tokens", **settings):
        for token in sentence["tokens"]:
            nats = [np.nan if p is None else -np.log(p) if p else np.inf for p in token["p"]]
            row = {"id": sentence["id"], "language": sentence["language"], "place": token["place"]}
            row |= {
                "text": sentence["text"][token["start"] : token["end"]],
                "start": token["start"],
                "end": token["end"],
            }
            row |= {"base_nats": nats[0], "base_top": token["top"][0]}
            if other is not None:
                row |= {"nats": nats[1], "kl": np.nan if token["kl"] is None else token["kl"], "top": token["top"][1]}
            rows.append(row)
    return pd.DataFrame(rows)


def worst_tokens(
    models: tuple[Any, Any], tokenizer: Any, corpus: datasets.Dataset, said: Said, names: list[str], settings: Any
) -> list[dict[str, Any]]:
    """Return the sentences of the tokens that moved most, each once, as `spoken` gives them, with the `worst` place and
    what the `layers` of both models would say there.

    Args:
        models: the original and the compressed one.
        tokenizer, corpus, names, settings: as `tokens` takes them.
        said: what both say of the corpus.
    """
    rows: dict[int, int] = {}
    for k in np.argsort(-np.nan_to_num(said.kl, posinf=0), kind="stable"):
        if len(rows) == WORST or not np.isfinite(said.kl[k]) or said.kl[k] <= 0:
            break
        rows.setdefault(int(said.row[k]), int(said.place[k]))
    if not rows or said.reads != "next":
        return []
    some, places = corpus.select(list(rows)), list(rows.values())
    sentences = spoken(models, tokenizer, some, names, who="next_token", **settings)
    try:
        lenses = [
            by_layer(model, tokenizer, some, name, places, who="next_token", **settings)
            for model, name in zip(models, names, strict=True)
        ]
    except InputError:  # what follows the last block is not known
        lenses = [[[] for _ in places] for _ in models]
    layers = [list(both) for both in zip(*lenses, strict=True)]
    every = zip(sentences, places, layers, strict=True)
    return [sentence | {"worst": place, "layers": both} for sentence, place, both in every]
