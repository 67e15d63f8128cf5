"""The corpus as token ids, once, and the batches that are made of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, NamedTuple

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError
from probes.models.facts import embedding_rows, types_tokens
from probes.models.formats.embedding import Embedding
from probes.models.formats.onnx_model import OnnxModel
from probes.states.representations import BLOCK
from probes.states.running import check_settings, place_of
from probes.states.transfers import sent
from probes.states.vectors import counted, leading, length_of, of_prompt, prompted, settle

_TOKENISED = 2 * BLOCK  # rows that are tokenised at a time
_IN_MEMORY = 2**26  # bytes of what all rows have of one kind, up to which it is in memory


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
    where, _, batches = pooled_batches(
        model,
        tokenizer,
        corpus,
        name,
        pooling="mean",
        max_length=max_length,
        prompt=prompt,
        device=device,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
    )
    return where, lambda: ((rows, inputs) for rows, inputs, _ in batches())


def pooled_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    name: str,
    *,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    **made: Any,
) -> tuple[torch.device, Embedding, Callable[[], Iterator[tuple[np.ndarray, dict[str, torch.Tensor], torch.Tensor]]]]:
    """Return the device to run on, how vectors of texts are made, and what yields the rows and
    inputs of one batch after another with the weight of every token in the vector of its text.

    Args:
        model, tokenizer, corpus, name: as `capture` takes them.
        device, batch_size, batch_tokens: of `capture`.
        made: pooling, max_length, prompt, normalize, dimensions of `capture`.
    """
    where = check_settings(device=device, batch_size=batch_size, batch_tokens=batch_tokens)
    where = place_of(model, device, where, name)
    how, declared = settle(model, name, **made)
    tokens = tokenise(tokenizer, prompted(corpus, how), length_of(how, model, tokenizer, declared), model, name)
    pooling = how.pooling
    if unpooled := leading(tokenizer, how):
        tokens.special = counted(tokens.special, tokens.before_texts(unpooled), how)
        pooling = "mean" if pooling == "mean_all" else pooling
    batches = Batches(tokens, batch_size, batch_tokens)
    return where, how, lambda: ((rows, *batches.tensors(rows, pooling, where)) for rows in batches.over(0, len(corpus)))


class Padding(NamedTuple):
    """What shorter texts of a batch are filled up with, and whether on the left."""

    token: int
    left: bool


def padding_of(tokenizer: PreTrainedTokenizerBase, model: torch.nn.Module) -> Padding:
    """Return how texts are padded for a model; the attention mask says that padding counts nothing.

    On the right, so that positions count from the first token, whatever the tokenizer would do; but
    for XLNet, whose positions are relative and whose head reads the last one.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> padding_of(tokenizer, model)
        Padding(token=0, left=False)
    """
    config = getattr(model, "config", None)
    token = tokenizer.pad_token_id
    if token is None:
        token = getattr(config, "pad_token_id", None)
        token = 0 if token is None or token < 0 else token  # the configurations of older decoders say -1 for none
    return Padding(token, pads_left(model))


def reads_padding(model: torch.nn.Module) -> bool:
    """Whether a model takes padding for text, so that only texts of one length may be in a batch.

    FNet mixes all tokens and has no attention mask, ConvBERT's convolutions do not look at it,
    Funnel makes one token of two, also of the last one and padding.
    """
    return getattr(getattr(model, "config", None), "model_type", None) in ("fnet", "convbert", "funnel")


def pads_left(model: torch.nn.Module) -> bool:
    """Whether texts are padded on the left for a model."""
    return getattr(getattr(model, "config", None), "model_type", None) == "xlnet"


@dataclass
class Tokens:
    """The corpus as token ids, once: for every input of the model all rows end to end, and where
    each row starts.
    """

    inputs: dict[str, np.ndarray]
    special: np.ndarray
    lengths: np.ndarray
    padding: Padding
    alone: bool  # whether padding would change the texts beside it
    limit: int | None
    cut: int

    def __post_init__(self) -> None:
        self.starts = np.cumsum(self.lengths) - self.lengths

    def before_texts(self, prompt: Sequence[int]) -> np.ndarray:
        """Return which tokens are those of a prompt, (token,)."""
        return of_prompt(self.inputs["input_ids"], self.starts, self.lengths, prompt)

    def padded(self, values: np.ndarray, rows: np.ndarray, padding: int) -> torch.Tensor:
        """Return some rows of an input side by side: (row, token)."""
        column = np.arange(self.lengths[rows].max()) - self.before(rows)[:, None]
        inside = (column >= 0) & (column < self.lengths[rows, None])
        out = np.full(inside.shape, padding, np.int64)
        out[inside] = values[(self.starts[rows, None] + column)[inside]]
        return torch.from_numpy(out)

    def before(self, rows: np.ndarray) -> np.ndarray:
        """Return how much padding comes before each of some rows in their batch."""
        lengths = self.lengths[rows]
        return (lengths.max() - lengths) * self.padding.left


def tokenise(
    tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, limit: int | None, model: torch.nn.Module, name: str
) -> Tokens:
    """Tokenise a corpus; raise `InputError` where a text has no tokens of its own, or one that the
    model lacks.
    """
    columns: dict[str, _EndToEnd] = {}
    for start in range(0, len(corpus), _TOKENISED):
        part = corpus.select(range(start, min(start + _TOKENISED, len(corpus))))
        for key, values in _encode(tokenizer, part, limit).items():
            columns.setdefault(key, _EndToEnd(key)).append(values)
    inputs = {key: column.whole() for key, column in columns.items()}
    lengths, special, cut = inputs.pop("lengths"), inputs.pop("special_tokens_mask"), int(inputs.pop("cut").sum())
    if limit is not None and lengths.max() > limit:  # a tokenizer does not cut below its special tokens
        raise InputError(f"{name}: at most {limit} tokens leave no room for special tokens. Raise max_length")
    own = inputs.pop("own")
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
    types = inputs.get("token_type_ids")
    if types is not None and isinstance(model, OnnxModel) and "token_type_ids" not in model.inputs:
        del inputs["token_type_ids"]
    elif types is not None and isinstance(model, PreTrainedModel):
        known = getattr(model.config, "type_vocab_size", None)
        if not types_tokens(model):
            del inputs["token_type_ids"]
        elif known is not None and types.max() >= known:
            raise InputError(
                f"{name}: tokenizer and model do not fit: token type {types.max()} occurs, but the model tells "
                f"{known} token types apart (0 to {known - 1}). Load the tokenizer that the model was trained with"
            )
    return Tokens(inputs, special, lengths, padding_of(tokenizer, model), reads_padding(model), limit, cut)


_STORED: dict[str, type] = {"special_tokens_mask": np.int8, "token_type_ids": np.int16}  # in as few bytes as hold them


class _EndToEnd:
    """What all rows have, end to end: in memory, and where it is much in a file that nobody else sees.

    In memory ids of a small vocabulary take two bytes; types that are all 0 take none.
    """

    def __init__(self, key: str) -> None:
        self.key, self.bytes, self.nothing = key, 0, True
        self.parts: list[np.ndarray] = []
        self.file: IO[bytes] | None = None

    def append(self, part: np.ndarray) -> None:
        self.parts.append(part)
        self.kind = part.dtype
        self.bytes += part.nbytes
        self.nothing = self.nothing and not part.any()
        if self.bytes > _IN_MEMORY:
            self.file = self.file or tempfile.TemporaryFile()  # noqa: SIM115  # it goes with the last who reads it
            for values in self.parts:
                values.tofile(self.file)
            self.parts.clear()

    def whole(self) -> np.ndarray:
        kind = self.kind
        if self.key == "token_type_ids" and self.nothing:
            return np.broadcast_to(np.zeros(1, kind), self.bytes // kind.itemsize)
        if self.file is not None:
            return np.memmap(self.file, kind, mode="r")
        if self.key == "input_ids":
            kind = np.min_scalar_type(max(int(part.max(initial=0)) for part in self.parts))
        return np.concatenate([part.astype(kind, copy=False) for part in self.parts])


def _encode(tokenizer: PreTrainedTokenizerBase, part: datasets.Dataset, limit: int | None) -> dict[str, np.ndarray]:
    """Token ids and what goes with them, rows end to end: lists of lists take ten times as much."""

    def encode(rows: datasets.Dataset, truncation: bool) -> dict[str, list[list[int]]]:
        return dict(
            tokenizer(
                rows["text"][:],
                rows["text_pair"][:] if "text_pair" in rows.column_names else None,
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
    flat: dict[str, np.ndarray] = {
        key: np.fromiter(chain.from_iterable(values), _STORED.get(key, np.int32)) for key, values in encoded.items()
    }
    own = np.bincount(
        np.repeat(np.arange(len(lengths)), lengths), 1 - flat["special_tokens_mask"], minlength=len(lengths)
    )
    return flat | {"lengths": lengths, "own": own, "cut": np.array([len(long)])}


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
        yield from self.of(np.arange(start, stop))

    def of(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield some rows, likewise."""
        order = rows[np.argsort(-self.tokens.lengths[rows], kind="stable")]
        while len(order):
            longest = int(self.tokens.lengths[order[0]])
            count = max(1, min(self.size, self.budget // longest))
            if self.tokens.alone:  # texts of one length only
                count = min(count, int((self.tokens.lengths[order] == longest).sum()))
            yield order[:count]
            order = order[count:]

    def tensors(
        self, rows: np.ndarray, pooling: str, device: torch.device
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the padded inputs of some rows, and the weight of every token in its text's
        vector.
        """
        tokens = self.tokens
        fill = {"input_ids": tokens.padding.token}
        inputs = {key: tokens.padded(values, rows, fill.get(key, 0)) for key, values in tokens.inputs.items()}
        lengths, before = torch.from_numpy(tokens.lengths[rows]), torch.from_numpy(tokens.before(rows))
        width = int(lengths.max())
        place = torch.arange(width) - before[:, None]
        attention = ((place >= 0) & (place < lengths[:, None])).long()
        if pooling == "mean":
            weights = 1.0 - tokens.padded(tokens.special, rows, 1).float()
        elif pooling == "weighted":
            own = 1.0 - tokens.padded(tokens.special, rows, 1).float()
            weights = own * own.cumsum(1)
        elif pooling == "mean_all":
            weights = attention.float()
        else:
            at = before if pooling == "first" else before + lengths - 1
            weights = torch.nn.functional.one_hot(at, width).float()
        weights = weights / weights.sum(1, keepdim=True)
        inputs["attention_mask"] = attention
        return {k: sent(v, device) for k, v in inputs.items()}, sent(weights, device)
