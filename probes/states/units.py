"""What a text is made of, token by token or word by word: which tokens are its own, and which of
them make a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from probes.errors import InputError
from probes.states.examples import column_of
from probes.states.tokens import Tokens
from probes.states.words import NO_PLACES

Words = bool | Mapping[str, Callable[[str], Sequence[str]]]

_AT_ONCE = 2048  # texts that are looked up together
# Scripts that put no spaces between words: kana, Han, Thai, Lao, Tibetan, Myanmar, Khmer.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True)
class Units:
    """The tokens of all texts that are their own, or the words that these make, end to end."""

    of_token: np.ndarray  # (token,) of all texts end to end: which unit of its text a token is in; -1 for none
    counts: np.ndarray  # (text,) how many units each has
    place: np.ndarray  # (unit,) which of its text it is, as words or own tokens are counted
    code: np.ndarray  # (unit,) which of the names it has
    names: list[str]  # all different ones
    joined: bool  # whether a unit may be several tokens

    @property
    def bounds(self) -> np.ndarray:
        """Where the units of each text begin, and where the last ones end: (1 + text,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @property
    def called(self) -> str:
        """What a unit is called, many of them."""
        return "words" if self.joined else "tokens"

    def at(self, rows: np.ndarray, start: int) -> np.ndarray:
        """Return where the units of some rows lie, counted from the first of row `start`."""
        first, counts = self.bounds[rows] - self.bounds[start], self.counts[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(first, counts) + within

    def states(self, layers: Sequence[torch.Tensor], tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
        """Return the states of the units of a batch, (layer, unit, feature): of a word the mean of
        its tokens.

        Args:
            layers: states (text, token, feature) of every layer.
            tokens: of all texts.
            rows: the texts of the batch.
        """
        unit = tokens.padded(self.of_token, rows, -1).to(layers[0].device)
        own = unit >= 0
        # Only own tokens are read: a padded place may hold NaN, and 0 times that is NaN.
        taken = torch.stack([h[own].float() for h in layers])
        if not self.joined:
            return taken
        counts = torch.from_numpy(self.counts[rows]).to(unit.device)
        of_batch = (unit + (counts.cumsum(0) - counts)[:, None])[own]
        total = int(counts.sum())
        summed = taken.new_zeros(len(taken), total, taken.shape[2]).index_add_(1, of_batch, taken)
        return summed / torch.bincount(of_batch, minlength=total)[:, None]


def check_words(words: Words, tokenizer: PreTrainedTokenizerBase, languages: Sequence[str]) -> None:
    """Raise `InputError` where words cannot be told from tokens, or a segmenter is of no language."""
    if not words:
        return
    if not isinstance(words, bool | Mapping) or (
        isinstance(words, Mapping) and not all(callable(cut) for cut in words.values())
    ):
        raise InputError(
            f"words={words!r}: expected True, or for languages without spaces a function from a text to its words, as "
            "words={'th': cut}"
        )
    unknown = [one for one in words if one not in languages] if isinstance(words, Mapping) else []
    if unknown:
        raise InputError(
            f"words has a segmenter for {', '.join(map(repr, unknown))}; the languages of the corpus are "
            f"{', '.join(map(repr, dict.fromkeys(languages)))}"
        )
    if not tokenizer.is_fast:
        raise InputError(f"{NO_PLACES}, and words are made of them: load one with a tokenizer.json, or keep tokens")


def units_of(
    tokens: Tokens,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    words: Words,
    *,
    start: int,
    prompt: Sequence[int],
    name: str,
) -> Units:
    """Return the own tokens of every text, or its words.

    Args:
        tokens: of the texts as the model reads them.
        tokenizer: which made them.
        corpus: the texts as they are read, after a prompt, with their columns.
        words: join the tokens of a word: what the tokenizer splits before it makes pieces, each
            piece alone in scripts without spaces; what a segmenter of the language gives; what
            spaces separate where the corpus has `tags`, which are counted so.
        start, prompt: how many characters the prompt before each text has, and its tokens.
        name: what the model is called.

    Raises:
        InputError: a text has no token of its own, or no word; a segmenter gives words that are
            not in the text.
    """
    if words:
        found = _words(tokens, tokenizer, corpus, words, start)
    else:
        own = tokens.special == 0
        if start:
            own &= _after(tokens, tokenizer, corpus, start, prompt)
        before = np.cumsum(own) - own
        of_token = np.where(own, before - np.repeat(before[tokens.starts], tokens.lengths), -1)
        code, ids = pd.factorize(tokens.inputs["input_ids"][own])
        names = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids.tolist())]
        counts = np.add.reduceat(own.astype(int), tokens.starts)
        found = Units(of_token, counts, of_token[own].astype(np.int32), code.astype(np.int32), names, joined=False)
    bare = np.flatnonzero(found.counts == 0)
    if len(bare):
        row = corpus[int(bare[0])]
        raise InputError(
            f"{name}: the text of row {bare[0]} (id {row['id']!r}, language {row['language']!r}) has no "
            f"{'word' if words else 'token'} of its own; {len(bare)} such in all. Drop it, or raise max_length"
        )
    return found


def _after(
    tokens: Tokens, tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, start: int, prompt: Sequence[int]
) -> np.ndarray:
    """Which tokens come after the prompt: (token,), of all texts end to end."""
    if not tokenizer.is_fast:
        return ~tokens.before_texts(prompt)
    # By where they lie: what ends in a space may be other tokens by itself than before a text.
    return np.array(
        [
            sequence != 0 or high > start
            for encoding, _, _ in _encoded(tokens, tokenizer, corpus)
            for (_, high), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
        ]
    )


def _encoded(
    tokens: Tokens, tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset
) -> Iterator[tuple[Any, list[str], int]]:
    """Yield each text as its tokenizer sees it, with the text, its pair ("" for none), and its row."""
    for at in range(0, len(corpus), _AT_ONCE):
        part = corpus.select(range(at, min(at + _AT_ONCE, len(corpus))))
        texts = part["text"][:]
        pairs = part["text_pair"][:] if "text_pair" in part.column_names else None
        encoded = tokenizer(texts, pairs, truncation=tokens.limit is not None, max_length=tokens.limit, verbose=False)
        both = zip(texts, pairs or [""] * len(texts), strict=True)
        for row, (encoding, read) in enumerate(zip(encoded.encodings or [], both, strict=True)):
            yield encoding, list(read), at + row


def _words(
    tokens: Tokens, tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, words: Words, start: int
) -> Units:
    tagged = "tags" in corpus.column_names
    cuts = words if isinstance(words, Mapping) else {}
    of_token = np.full(int(tokens.lengths.sum()), -1)
    counts, place, texts = [], [], []
    languages = column_of(corpus, "language")
    for encoding, both, row in _encoded(tokens, tokenizer, corpus):
        cut = None if tagged else cuts.get(languages[row])
        spans = None
        if tagged or cut is not None:
            spans = [_spans(both[0], start, cut), {} if tagged else _spans(both[1], 0, cut)]  # tags are of the first
        found = _of_text(encoding, both, start, spans)
        first = tokens.starts[row]
        of_token[first : first + len(found)] = [-1 if unit is None else unit[0] for unit in found]
        known = {unit[0]: unit for unit in found if unit is not None}
        counts.append(len(known))
        place += [unit[1] for unit in known.values()]
        texts += [unit[2] for unit in known.values()]
    code, names = pd.factorize(np.array(texts, dtype=object))
    return Units(
        of_token,
        np.array(counts),
        np.array(place, np.int32),
        code.astype(np.int32),
        [str(n) for n in names],
        joined=True,
    )


def _spans(text: str, start: int, cut: Callable[[str], Sequence[str]] | None) -> dict[int, tuple[int, int, int]]:
    """Which word each character of a text is in: its number, and where it begins and ends."""
    if cut is None or not text[start:].strip():
        found = [match.span() for match in re.finditer(r"\S+", text[start:])]
    else:
        found, at = [], 0
        for word in cut(text[start:]):
            low = text.find(word, start + at) - start
            if low < 0:
                raise InputError(
                    f"a segmenter gives the word {word!r}, which is not in what is left of the text "
                    f"{text[start:][:60]!r}: expected its words in their order, as they stand there"
                )
            at = low + len(word)
            if word.strip():
                found.append((low, at))
    return {
        start + i: (number, start + low, start + high)
        for number, (low, high) in enumerate(found)
        for i in range(low, high)
    }


def _of_text(
    encoding: Any, texts: Sequence[str], start: int, spans: Sequence[dict[int, tuple[int, int, int]]] | None
) -> list[tuple[int, int, str] | None]:
    """Of each token: which unit of its text it is in, its place, and its name; None for none."""
    out: list[tuple[int, int, str] | None] = []
    known: dict[tuple[object, ...], tuple[int, int, str]] = {}
    key: tuple[object, ...]
    whole: dict[tuple[int, int], list[int]] = {}
    each = list(zip(encoding.offsets, encoding.sequence_ids, encoding.word_ids, strict=True))
    if spans is None:  # from where to where each word of the tokenizer goes
        for (low, high), sequence, word in each:
            if sequence is not None and word is not None:
                ends = whole.setdefault((sequence, word), [low, high])
                ends[1] = max(ends[1], high)
    for number, ((low, high), sequence, word) in enumerate(each):
        if sequence is None or (sequence == 0 and high <= start):
            out.append(None)  # special, or of the prompt
            continue
        text = texts[sequence]
        if spans is not None:
            at = next((spans[sequence][i] for i in range(low, high) if i in spans[sequence]), None)
            if at is None:
                out.append(None)
                continue
            key, place, (low, high) = (sequence, at[0]), at[0], at[1:]
        else:
            ends = whole.get((sequence, word), [low, high]) if word is not None else [low, high]
            alone = word is None or _UNSPACED.search(text, *ends) is not None
            # Several tokens of one character are one piece.
            key = (sequence, "piece", low if high > low else -number) if alone else (sequence, "word", word)
            place = len(known)
            low, high = (low, high) if alone else (max(ends[0], start if sequence == 0 else 0), ends[1])
        if key not in known:
            known[key] = (len(known), place, text[low:high].strip())
        out.append(known[key])
    return out
