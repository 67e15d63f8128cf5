"""The corpus as token ids, once, and the batches that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError
from probes.models.facts import embedding_rows
from probes.models.formats.onnx_model import OnnxModel
from probes.states.representations import BLOCK
from probes.states.running import check_settings
from probes.states.vectors import length_of, prompted, settle

_TOKENISED = 2 * BLOCK  # rows that are tokenised at a time


def batches_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    name: str,
    *,
    max_length: int | None = None,
    prompt: str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
) -> tuple[torch.device, Callable[[], Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]]]:
    """Return the device to run on, and what yields the rows and inputs of one batch after another,
    as `capture` does.

    For probes that need more of a forward pass than its hidden states.
    """
    where = check_settings(device=device, batch_size=batch_size, batch_tokens=batch_tokens)
    how, declared = settle(model, name, pooling="mean", max_length=max_length, prompt=prompt)
    tokens = tokenise(tokenizer, prompted(corpus, how), length_of(how, model, tokenizer, declared), model, name)
    batches = Batches(tokens, batch_size, batch_tokens)
    return where, lambda: ((rows, batches.tensors(rows, "mean", where)[0]) for rows in batches.over(0, len(corpus)))


@dataclass
class Tokens:
    """The corpus as token ids, once: for every input of the model all rows end to end, and where
    each row starts.
    """

    inputs: dict[str, np.ndarray]
    special: np.ndarray
    lengths: np.ndarray
    padding: dict[str, int]
    limit: int | None
    cut: int

    def __post_init__(self) -> None:
        self.starts = np.cumsum(self.lengths) - self.lengths

    def padded(self, values: np.ndarray, rows: np.ndarray, padding: int) -> torch.Tensor:
        """Return some rows of an input side by side: (row, token)."""
        column = np.arange(self.lengths[rows].max())
        inside = column < self.lengths[rows, None]
        out = np.full(inside.shape, padding, np.int64)
        out[inside] = values[(self.starts[rows, None] + column)[inside]]
        return torch.from_numpy(out)


def tokenise(
    tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, limit: int | None, model: torch.nn.Module, name: str
) -> Tokens:
    """Tokenise a corpus; raise `InputError` where a text has no tokens of its own, or one that the
    model lacks.
    """
    pieces = [
        _encode(tokenizer, corpus.select(range(start, min(start + _TOKENISED, len(corpus)))), limit)
        for start in range(0, len(corpus), _TOKENISED)
    ]
    inputs = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
    lengths, special, cut = inputs.pop("lengths"), inputs.pop("special_tokens_mask"), int(inputs.pop("cut").sum())
    if limit is not None and lengths.max() > limit:  # a tokenizer does not cut below its special tokens
        raise InputError(f"{name}: at most {limit} tokens leave no room for special tokens. Raise max_length")
    own = np.bincount(np.repeat(np.arange(len(lengths)), lengths), 1 - special, minlength=len(lengths))
    if not own.all():
        bare = np.flatnonzero(own == 0)
        row = corpus[int(bare[0])]
        raise InputError(
            f"{name}: the text of row {bare[0]} (id {row['id']!r}, language {row['language']!r}) has no tokens of its "
            f"own{f' within {limit} tokens' if lengths[bare[0]] == limit else ''}; {len(bare)} such in all. "
            "Drop it, or raise max_length"
        )
    highest = int(inputs["input_ids"].max())
    if isinstance(model, PreTrainedModel | OnnxModel) and highest >= embedding_rows(model):
        raise InputError(
            f"{name}: tokenizer and model do not fit: token {highest} occurs, but there are {embedding_rows(model)} "
            "embeddings. Load the tokenizer that the model was trained with"
        )
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = getattr(getattr(model, "config", None), "pad_token_id", None)
        pad = 0 if pad is None or pad < 0 else pad  # the configurations of older decoders say -1 for none
    padding = {key: pad if key == "input_ids" else 0 for key in inputs}
    return Tokens(inputs, special, lengths, padding, limit, cut)


def _encode(tokenizer: PreTrainedTokenizerBase, part: datasets.Dataset, limit: int | None) -> dict[str, np.ndarray]:
    """Token ids and what goes with them, rows end to end: lists of lists take ten times as much."""

    def encode(rows: datasets.Dataset, truncation: bool) -> dict[str, list[list[int]]]:
        return dict(
            tokenizer(
                list(rows["text"]),
                list(rows["text_pair"]) if "text_pair" in rows.column_names else None,
                truncation=truncation,
                max_length=limit if truncation else None,
                padding=False,
                return_attention_mask=False,
                return_special_tokens_mask=True,
                verbose=False,
            )
        )

    encoded = encode(part, False)
    long = [] if limit is None else [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) > limit]
    if long:
        for key, values in encode(part.select(long), True).items():
            for row, value in zip(long, values, strict=True):
                encoded[key][row] = value
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    flat = {key: np.fromiter(chain.from_iterable(values), np.int32) for key, values in encoded.items()}
    return flat | {"lengths": lengths, "cut": np.array([len(long)])}


@dataclass
class Batches:
    """Batches of at most so many texts and so many tokens, of texts of nearly the same length."""

    tokens: Tokens
    size: int
    budget: int

    def longest(self) -> np.ndarray:
        """The row with the most tokens: if memory is short, it is so here and not after an hour."""
        return np.array([int(self.tokens.lengths.argmax())])

    def over(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield the rows start to stop, longest first, so that those of a batch have nearly the
        same length.
        """
        lengths = self.tokens.lengths[start:stop]
        order = np.argsort(-lengths, kind="stable") + start
        while len(order):
            longest = int(self.tokens.lengths[order[0]])
            count = max(1, min(self.size, self.budget // longest))
            yield order[:count]
            order = order[count:]

    def tensors(
        self, rows: np.ndarray, pooling: str, device: torch.device
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the padded inputs of some rows, and the weight of every token in its text's
        vector.
        """
        tokens = self.tokens
        inputs = {key: tokens.padded(values, rows, tokens.padding[key]) for key, values in tokens.inputs.items()}
        lengths = torch.from_numpy(tokens.lengths[rows])
        width = int(lengths.max())
        attention = (torch.arange(width) < lengths[:, None]).long()
        if pooling == "mean":
            weights = 1.0 - tokens.padded(tokens.special, rows, 1).float()
        elif pooling == "mean_all":
            weights = attention.float()
        else:
            at = torch.zeros_like(lengths) if pooling == "first" else lengths - 1
            weights = torch.nn.functional.one_hot(at, width).float()
        weights = weights / weights.sum(1, keepdim=True)
        inputs["attention_mask"] = attention
        return {k: v.to(device) for k, v in inputs.items()}, weights.to(device)
