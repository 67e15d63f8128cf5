"""Which token stands for a word of a text: the first of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

import datasets
import numpy as np
import torch
from transformers import BatchEncoding, PreTrainedTokenizerBase

from probes.errors import InputError

_AT_ONCE = 2048  # texts whose places are looked up together
NO_PLACES = "the tokenizer does not say where in the text its tokens lie"


def word_places(
    tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, start: int, limit: int | None
) -> np.ndarray:
    """Return the number of the first token of each word, (text, word), -1 where there is none.

    Args:
        tokenizer: one that says where in the text each token lies.
        corpus: its texts, as they are read, after a prompt.
        start: how many characters the prompt has.
        limit: tokens of a text at most.

    Raises:
        InputError: the tokenizer does not say where tokens lie.

    Example:
        >>> import probes
        >>> _, tokenizer = probes.load_checkpoint("bundled")
        >>> texts = datasets.Dataset.from_dict({"text": ["The red dog", "A cat"]})
        >>> places = word_places(tokenizer, texts, 0, None)
        >>> places.shape, places[1].tolist()[-1]
        ((2, 3), -1)
    """
    rows: list[list[int | None]] = []
    for at in range(0, len(corpus), _AT_ONCE):
        part = corpus.select(range(at, min(at + _AT_ONCE, len(corpus))))
        texts = part["text"][:]
        pairs = part["text_pair"][:] if "text_pair" in part.column_names else None
        encoded = tokenizer(texts, pairs, truncation=limit is not None, max_length=limit, verbose=False)
        rows += first_tokens(texts, start, encoded)
    out = np.full((len(rows), max(1, *map(len, rows))), -1)
    for i, row in enumerate(rows):
        out[i, : len(row)] = [-1 if token is None else token for token in row]
    return out


def scores_of_words(logits: torch.Tensor, places: np.ndarray, before: np.ndarray) -> torch.Tensor:
    """Return the logits (word, text, class) at the first token of each word of a batch, -inf where
    there is none.

    Args:
        logits: (text, token, class).
        places: (text, word), as `word_places` gives them.
        before: (text,) how much padding comes before each text.

    Example:
        >>> logits = torch.arange(6.0).reshape(1, 3, 2)
        >>> scores_of_words(logits, np.array([[1, -1]]), np.array([0])).tolist()
        [[[2.0, 3.0]], [[-inf, -inf]]]
    """
    there = torch.from_numpy(places >= 0).to(logits.device)
    at = torch.from_numpy(np.maximum(places, 0) + before[:, None]).to(logits.device)
    taken = logits[torch.arange(len(logits), device=logits.device)[:, None], at.clamp_max(logits.shape[1] - 1)]
    return taken.masked_fill(~there[..., None], -torch.inf).transpose(0, 1)


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
        raise InputError(f"{NO_PLACES}, and tags are of words: load one with a tokenizer.json")
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
