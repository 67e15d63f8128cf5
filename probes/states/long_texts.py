"""Texts that are longer than a model reads, in windows that overlap: each token counts once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from probes.errors import InputError
from probes.states.tokens import Batches, Tokens, tokenise

# What is computed of some rows: their raw vectors by layer as "hidden", and what a head says of them.
Given = Mapping[str, torch.Tensor]
_DEFAULT = 4  # windows overlap by one part of so many of what they have room for


def read_texts(
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    limit: int | None,
    model: torch.nn.Module,
    name: str,
    *,
    long_texts: str,
    overlap: int | None,
    prompt: str,
) -> tuple[Tokens, Windows | None]:
    """Tokenise a corpus, longer texts cut or as the first of their windows; and the other windows.

    Args:
        tokenizer, corpus, limit, model, name: as `probes.states.tokens.tokenise` takes them.
        long_texts, overlap: as of `capture`.
        prompt: what all texts begin with, "" for nothing.

    Raises:
        InputError: there is no room in a window, or it overlaps itself; what `tokenise` raises.
    """
    if long_texts == "cut" or limit is None:
        return tokenise(tokenizer, corpus, limit, model, name), None
    whole = tokenise(tokenizer, corpus, None, model, name)
    before, after = _frame(whole)
    before = max(before, _shared(whole, tokenizer(prompt)["input_ids"] if prompt else []))
    room = limit - before - after
    if room < 1:
        raise InputError(
            f"{name}: windows of {limit} tokens have no room for a text beside {before + after} special tokens and "
            "those of a prompt. Raise max_length"
        )
    overlap = room // _DEFAULT if overlap is None else overlap
    if overlap >= room:
        raise InputError(
            f"{name}: overlap={overlap}: expected at most {room - 1}: a window of {limit} tokens has room for {room} "
            f"of a text, beside {before + after} special ones and those of a prompt. Give a smaller one"
        )
    windows = Windows(whole, limit, before, after, overlap)
    return windows.firsts, windows


def _frame(tokens: Tokens) -> tuple[int, int]:
    """How many special tokens every text begins and ends with."""
    place = np.arange(len(tokens.special)) - np.repeat(tokens.starts, tokens.lengths)
    own, last = tokens.special == 0, np.repeat(tokens.lengths, tokens.lengths) - 1 - place
    return int(place[own].min()), int(last[own].min())


def _shared(tokens: Tokens, prompt: Sequence[int]) -> int:
    """How many tokens all texts begin with that are those of a prompt: its last one may be joined to a text's first."""
    ids, least = tokens.inputs["input_ids"], int(tokens.lengths.min())
    alike = [bool((ids[tokens.starts + i] == token).all()) for i, token in enumerate(prompt[:least])]
    return len(alike) if all(alike) else alike.index(False)


class Windows:
    """The windows of texts that are longer than one.

    A window is the special tokens and the prompt that every text begins with, as many further
    tokens of the text as fit, and the special tokens that it ends with. All windows of a text are
    full: the last one is moved back, and overlaps more. Of what two windows share, the first half
    counts in the earlier one and the second half in the later one, where more of the text is on
    either side. Special tokens and the prompt count in the first window, those at the end in the
    last one, as far as a pooling counts them at all.

    Args:
        whole: all texts, uncut.
        limit: tokens of a window.
        before, after: how many tokens every window begins and ends with.
        overlap: how many tokens of a text two windows share at least.

    Attributes:
        firsts: the texts, of those that are longer the first window.
        further: all other windows, text by text.
        owner: (further window,) the row of its text.
        overlap: as given.
        count: how many texts have more than one.
    """

    def __init__(self, whole: Tokens, limit: int, before: int, after: int, overlap: int) -> None:
        """Lay the windows out."""
        self.whole, self.limit, self.before, self.after, self.overlap = whole, limit, before, after, overlap
        self.long = whole.lengths > limit
        self.count = int(self.long.sum())
        room = limit - before - after
        place = np.arange(len(whole.special)) - np.repeat(whole.starts, whole.lengths)
        ends = np.repeat(whole.lengths, whole.lengths) - after
        out = np.repeat(self.long, whole.lengths) & (place >= before + room) & (place < ends)
        self.firsts = self._tokens(np.flatnonzero(~out), np.minimum(whole.lengths, limit))
        self.begins: dict[int, np.ndarray] = {}
        at, owner = [], []
        for row in np.flatnonzero(self.long):
            first, length = int(whole.starts[row]), int(whole.lengths[row])
            own = length - before - after
            steps = 1 + -(-(own - room) // (room - overlap))
            self.begins[int(row)] = np.minimum(np.arange(steps) * (room - overlap), own - room)
            frame = np.arange(first, first + before), np.arange(first + length - after, first + length)
            for begin in self.begins[int(row)][1:]:
                start = first + before + int(begin)
                at.append(np.concatenate([frame[0], np.arange(start, start + room), frame[1]]))
                owner.append(int(row))
        self.owner = np.array(owner, int)
        self.further = self._tokens(np.concatenate(at) if at else np.zeros(0, int), np.full(len(at), limit))
        self.of_first: dict[int, np.ndarray] = {}
        self.of_further = np.zeros((len(at), limit), np.float32)
        self.share_of_first: dict[int, float] = {}
        self.share_of_further = np.zeros(len(at))
        self.sums: dict[int, dict[str, torch.Tensor]] = {}

    def about(self) -> dict[str, str | int]:
        """Return what attributes say of it."""
        return {
            "long_texts": "windows",
            "overlap": self.overlap,
            "texts_in_windows": self.count,
            "windows": f"texts of more than {self.limit} tokens are read in windows of {self.limit}, with the special "
            f"tokens and a prompt in each, that share {self.overlap} tokens, the last two of a text maybe more; each "
            "token counts once, of those that two windows share the first half in the earlier and the second half in "
            "the later one",
        }

    def weigh(self, pooling: str) -> None:
        """Settle what each token counts, as it would in the whole text: by `whole.special`, those that
        no mean counts, and a pooling as `probes.states.tokens.Batches.tensors` takes it.
        """
        number = 0
        for row, begins in self.begins.items():
            first, length = int(self.whole.starts[row]), int(self.whole.lengths[row])
            weights = _weights(self.whole.special[first : first + length], pooling)
            room, own = self.limit - self.before - self.after, length - self.before - self.after
            bounds = np.concatenate([[0], (begins[1:] + begins[:-1] + room) // 2, [own]])
            for k, begin in enumerate(begins):
                of_window = np.zeros(self.limit)
                counted = np.arange(bounds[k], bounds[k + 1])
                of_window[self.before + counted - begin] = weights[self.before + counted]
                share = len(counted) / own
                if k == 0:
                    of_window[: self.before] = weights[: self.before]
                if k == len(begins) - 1:
                    of_window[self.limit - self.after :] = weights[length - self.after :]
                if k == 0:
                    self.of_first[row], self.share_of_first[row] = of_window, share
                else:
                    self.of_further[number], self.share_of_further[number] = of_window, share
                    number += 1

    def counted(self, rows: np.ndarray, weights: torch.Tensor) -> torch.Tensor:
        """Return the weights of the tokens of some rows (row, token), of longer texts those of their first window."""
        for i in np.flatnonzero(self.long[rows]):
            weights[i] = torch.from_numpy(self.of_first[int(rows[i])]).to(weights)
        return weights

    def begin(self, rows: np.ndarray, given: Given) -> None:
        """Take up what is computed of the first windows of the longer texts among some rows."""
        for i in np.flatnonzero(self.long[rows]):
            self.sums[int(rows[i])] = _of_one(given, int(i), self.share_of_first[int(rows[i])])

    def rest(
        self,
        start: int,
        stop: int,
        like: Batches,
        device: torch.device,
        run: Callable[[dict[str, torch.Tensor], torch.Tensor], Given],
    ) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """Yield the longer texts among the rows start to stop, each with the sum over its windows.

        Args:
            start, stop: rows of the corpus, the first windows of which are taken up.
            like: batches, as large as which those of further windows are.
            device: to run on.
            run: from the inputs of a batch and the weights of its tokens to what is computed.
        """
        batches = Batches(self.further, like.size, like.budget)
        for numbers in batches.of(np.flatnonzero((self.owner >= start) & (self.owner < stop))):
            inputs, weights = batches.tensors(numbers, "mean_all", device)
            weights = torch.from_numpy(self.of_further[numbers]).to(weights)
            given = run(inputs, weights)
            for i, number in enumerate(numbers):
                total = self.sums[int(self.owner[number])]
                for key, value in _of_one(given, i, self.share_of_further[number]).items():
                    total[key] += value
        for row in np.flatnonzero(self.long[start:stop]) + start:
            yield int(row), self.sums.pop(int(row))

    def _tokens(self, at: np.ndarray, lengths: np.ndarray) -> Tokens:
        """Take some tokens of all, as rows of these lengths."""
        inputs = {key: values[at] for key, values in self.whole.inputs.items()}
        return replace(self.whole, inputs=inputs, special=self.whole.special[at], lengths=lengths, limit=self.limit)


def _weights(special: np.ndarray, pooling: str) -> np.ndarray:
    """What each token of one text counts in its vector, by its special tokens."""
    if pooling in ("mean", "weighted"):
        weights = 1.0 - special
        if pooling == "weighted":
            weights = weights * weights.cumsum()
    elif pooling == "mean_all":
        weights = np.ones(len(special))
    else:
        weights = np.zeros(len(special))
        weights[0 if pooling == "first" else -1] = 1
    return weights / weights.sum()


def _of_one(given: Given, i: int, share: float) -> dict[str, torch.Tensor]:
    """What is computed of one row: its vectors, and its share of what a head says."""
    return {k: v[..., i, :].cpu().double() * (1 if k == "hidden" else share) for k, v in given.items()}


def check_windows(long_texts: str, *, pairs: bool, decoder: bool, tokens: bool, of_words: bool, name: str) -> None:
    """Raise `InputError` where what is captured is not to be had in windows.

    Args:
        long_texts: of `capture`.
        pairs: whether texts are pairs.
        decoder: whether the layers of a decoder that is fed them are captured.
        tokens: whether states of tokens or words are kept, or pooled by something else than a mean.
        of_words: whether a head says something of words.
        name: of the model.
    """
    if long_texts == "cut":
        return
    why = (
        "a text_pair, and which of the two goes on in the next window is not known. Leave text_pair out"
        if pairs
        else "part='decoder', whose input has another length. Leave part out"
        if decoder
        else "tokens=True, words=... or a pooling of all tokens, and windows share some. Leave them out"
        if tokens
        else "a head that labels words, which may lie in several windows. Give the model without its head"
        if of_words
        else None
    )
    if why is not None:
        raise InputError(
            f"{name}: long_texts='windows' gives one vector a text, and does not go with {why}, or long_texts"
        )
