"""The states of a decoder before each word of texts: what it knows when the word is to come."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError
from probes.states.by_token import planned
from probes.states.running import evaluating


def states_before(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    words: Sequence[Sequence[tuple[int, int]]],
    *,
    layers: Sequence[int] | None,
    name: str,
    who: str,
    progress: bool = False,
    **settings: Any,
) -> tuple[np.ndarray, list[int]]:
    """Return the states of the last token that ends before each word begins.

    Args:
        model: one that predicts the next token.
        tokenizer: of it, one that says where its tokens stand.
        corpus: texts.
        words: (text,) where the words of each begin and end.
        layers: by default all, 0 the embeddings.
        name: of the model.
        who: asks, as messages begin.
        progress: show a progress bar.
        settings: of `planned`: max_length, device, batch_size, batch_tokens.

    Returns:
        (layer, word, feature) in float32, the words of all texts end to end, 0 where no token comes
        before; and the layers.

    Raises:
        InputError: the model predicts no next token; the tokenizer does not say where tokens stand;
            a text is cut before its last word; there is no such layer.

    Example:
        >>> import probes
        >>> from probes.states.graphs import words_of
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> corpus = datasets.Dataset.from_dict({"id": ["1"], "language": ["en"], "text": ["Two words"]})
        >>> how = {"layers": [0, 6], "name": "a decoder", "who": "an example"}
        >>> states_before(model, tokenizer, corpus, [words_of("Two words")], **how)[0].shape
        (2, 2, 128)
    """
    plan = planned([model], tokenizer, corpus, [name], who, **settings)
    if not plan.forward:
        raise InputError(f"{who}: {name}: {type(model).__name__} predicts masked tokens: expected a decoder")
    places = _places(tokenizer, corpus, words, plan.batches.tokens.limit, plan.batches.tokens.lengths, name, who)
    depth = int(model.config.get_text_config().num_hidden_layers)
    chosen = list(range(depth + 1)) if layers is None else [int(k) for k in layers]
    if not chosen or any(not 0 <= k <= depth for k in chosen):
        raise InputError(f"{who}: layers={list(layers or [])}: expected some of 0 (the embeddings) to {depth}")
    starts = np.cumsum([0, *(len(p) for p in places)])
    out: np.ndarray | None = None
    bar = tqdm(total=len(corpus), desc=f"{who} {name}", unit="text", disable=not progress)
    with bar, ExitStack() as stack, torch.inference_mode():
        stack.enter_context(evaluating(model, plan.device))
        for rows in plan.batches.over(0, len(corpus)):
            inputs = plan.batches.tensors(rows, "mean", plan.device)[0]
            given = model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
            if out is None:
                out = np.zeros((len(chosen), int(starts[-1]), given[0].shape[-1]), np.float32)
            before = plan.batches.tokens.before(rows)
            for i, row in enumerate(rows):
                there = np.flatnonzero(places[row] >= 0)
                at = torch.as_tensor(places[row][there] + before[i], device=plan.device)
                for k, layer in enumerate(chosen):
                    out[k, starts[row] + there] = given[layer][i, at].float().cpu().numpy()
            bar.update(len(rows))
    assert out is not None
    return out, chosen


def _places(
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    words: Sequence[Sequence[tuple[int, int]]],
    limit: int | None,
    lengths: np.ndarray,
    name: str,
    who: str,
) -> list[np.ndarray]:
    """Which token of each text ends last before each of its words; -1 where none does."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{who}: the tokenizer of {name} does not say where its tokens stand: expected a fast one, as "
            "AutoTokenizer loads where there is a tokenizer.json"
        )
    found = tokenizer(
        list(corpus["text"]),
        truncation=limit is not None,
        max_length=limit,
        return_offsets_mapping=True,
        verbose=False,
    )
    out = []
    for row, (of, spans) in enumerate(zip(words, found["offset_mapping"], strict=True)):
        ends = np.maximum.accumulate([end for _, end in spans])
        if len(ends) != lengths[row] or (of and ends[-1] < of[-1][0]):
            raise InputError(
                f"{who}: row {row} of the sentences is cut at {lengths[row]} tokens, before its last word. Raise "
                "max_length, or give shorter sentences"
            )
        # What comes after a word's beginning may end there too only where it holds nothing, as the last special token.
        first = np.maximum.accumulate([start for start, _ in spans])
        out.append(np.array([int(((ends <= a) & (first <= a)).cumprod().sum()) - 1 for a, _ in of], np.int64))
    return out
