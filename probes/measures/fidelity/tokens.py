"""One sentence, token by token: who moved, where."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import name_of
from probes.results.table import Table
from probes.states.by_token import Said
from probes.states.spoken import spoken

WORST = 10  # tokens of a model that a report shows
DRAWN = 12  # languages of a sentence that is shown besides
LENSED = 40  # tokens of a sentence, those that moved most, whose layers are asked


def tokens(
    base: PreTrainedModel | Table,
    other: PreTrainedModel | str | int | None = None,
    tokenizer: PreTrainedTokenizerBase | str | None = None,
    corpus: datasets.Dataset | None = None,
    *,
    id: str | int | None = None,
    language: str | None = None,
    names: tuple[str, str] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Show what two decoders say of every token of a sentence.

    Of models it runs them; of a comparison, `tokens(comparison, id, language)`, it reads what that
    keeps: the sentences of the ten tokens of each model that moved most, and one that is drawn, in
    up to twelve languages.

    Args:
        base, other: the original and the compressed model; without `other` the original alone. Or a
            comparison, and the id.
        tokenizer: of both; of a comparison the language.
        corpus: as `load_corpus` gives it.
        id, language: of the sentences that are shown; by default all that there are.
        names: what the two are called in messages.
        settings: of `capture`: max_length, prompt, device, batch_size, batch_tokens.

    Returns:
        A row a token: `id`, `language`, `place` in the sentence, `text` of the token, `start` and
        `end` in the sentence, `base_nats` and `nats`, minus the log of its probability in each
        model (nan for the first, which nothing predicts), `kl` from the original's distribution to
        the other's in nats, and `base_top` and `top`, the five likeliest tokens of each as (text,
        probability). Of one model `nats`, `kl` and `top` are left out. Of a comparison the first
        column is `model`, and `base_layers` and `layers` are what each layer would say, as (likeliest
        token, probability of the right one), of the 40 tokens of a sentence that moved most.

    Raises:
        InputError: there is no such sentence; the models predict no next token; the comparison
            keeps none.

    See also:
        `next_token`, `lens`, `Comparison.explore` and `Comparison.report`, which show them.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> corpus = probes.load_corpus("bundled", split="dev")
        >>> rounded = compress.quantize(model, bits=3)
        >>> found = tokens(model, rounded, tokenizer, corpus, id=corpus["id"][0], language="fr")
        >>> bool(found["kl"].max() > 0)
        True
    """
    if isinstance(base, Table):
        given = [other if id is None else id, tokenizer if language is None else language]
        return _kept(base, *(None if x is None else str(x) for x in given))
    if tokenizer is None or corpus is None:
        raise InputError("tokens: expected two models, their tokenizer and a corpus, or a comparison")
    corpus = check_corpus(corpus)
    for column, wanted in (("id", id), ("language", language)):
        if wanted is not None:
            corpus = corpus.select([k for k, value in enumerate(corpus[column][:]) if str(value) == str(wanted)])
        if not len(corpus):
            raise InputError(
                f"tokens: no sentence of the corpus has {column}={wanted!r}. Choose one of corpus[{column!r}]"
            )
    both: list[Any] = [m for m in (base, other) if m is not None]
    called = [*(names or map(name_of, both))][: len(both)]
    told: Any = tokenizer
    return pd.DataFrame(
        [row for one in spoken(both, told, corpus, called, who="tokens", **settings) for row in _rows(one)]
    )


def _kept(comparison: Table, id: str | None, language: str | None) -> pd.DataFrame:
    """The sentences that a comparison keeps."""
    kept = comparison.provenance.get("tokens") or {}
    if not any(kept.values()):
        raise InputError(
            "tokens: the comparison keeps no sentences: expected one of at least two decoders of one tokenizer, with "
            "the probe next_token. Give models, their tokenizer and a corpus in its place"
        )
    there = {(one["id"], one["language"]): None for sentences in kept.values() for one in sentences}
    some = [key for key in there if id in (None, key[0]) and language in (None, key[1])]
    if not some:
        asked = ", ".join(f"{k}={v!r}" for k, v in (("id", id), ("language", language)) if v is not None)
        known = ", ".join(" in ".join(key) for key in list(there)[:WORST])
        raise InputError(
            f"tokens: the comparison keeps no sentence of {asked}. It keeps {known}{', ...' * (len(there) > WORST)}. "
            "Give models, their tokenizer and a corpus for others"
        )
    out = []
    for model, sentences in kept.items():
        for one in sentences:
            if (one["id"], one["language"]) in some:
                out += [{"model": model} | row for row in _rows(one, layers=True)]
    return pd.DataFrame(out)


def _rows(sentence: dict[str, Any], layers: bool = False) -> Iterator[dict[str, Any]]:
    """A row a token."""
    for token in sentence["tokens"]:
        nats = [np.nan if p is None else -np.log(p) if p else np.inf for p in token["p"]]
        row = {"id": sentence["id"], "language": sentence["language"], "place": token["place"]}
        row |= {"text": sentence["text"][token["start"] : token["end"]], "start": token["start"], "end": token["end"]}
        row |= {"base_nats": nats[0], "base_top": token["top"][0]}
        if len(nats) > 1:
            row |= {"nats": nats[1], "kl": np.nan if token["kl"] is None else token["kl"], "top": token["top"][1]}
        if layers:
            row |= dict(zip(("base_layers", "layers"), token.get("layers", [[], []]), strict=True))
        yield row


def shown_tokens(
    models: tuple[Any, Any],
    tokenizer: Any,
    corpus: datasets.Dataset,
    said: Said,
    names: list[str],
    settings: Any,
    seed: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the sentences of the tokens that moved most, each once, as `spoken` gives them, with the `worst` place;
    and a sentence that the seed draws in the languages that have it, the same for all models.

    Args:
        models: the original and the compressed one.
        tokenizer, corpus, names, settings: as `tokens` takes them.
        said: what both say of the corpus.
        seed: of the sentence that is drawn.
    """
    if said.reads != "next":
        return [], []
    rows: dict[int, int] = {}
    for k in np.argsort(-np.nan_to_num(said.kl, posinf=0), kind="stable"):
        if len(rows) == WORST or not np.isfinite(said.kl[k]) or said.kl[k] <= 0:
            break
        rows.setdefault(int(said.row[k]), int(said.place[k]))
    drawn = [row for row in _drawn(corpus, seed) if row not in rows]
    some = corpus.select([*rows, *drawn])
    found = spoken(models, tokenizer, some, names, who="next_token", lensed=LENSED, **settings)
    worst = [one | {"worst": place} for one, place in zip(found, rows.values(), strict=False)]
    return worst, found[len(rows) :]


def _drawn(corpus: datasets.Dataset, seed: int) -> list[int]:
    """The rows of a sentence in its languages: of those that most languages have, one that id and seed choose."""
    ids = np.array(corpus["id"][:]).astype(str)
    every, count = np.unique(ids, return_counts=True)
    first = min(every[count == count.max()], key=lambda one: zlib.crc32(f"{one}\0{seed}".encode()))
    rows, languages = np.flatnonzero(ids == first), corpus["language"][:]
    return sorted(rows.tolist(), key=lambda row: str(languages[row]))[:DRAWN]
