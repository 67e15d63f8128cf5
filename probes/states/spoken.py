"""Sentences token by token: what one or two language models hold for likely at each place."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError
from probes.states.by_token import NO_TOKEN, before_output, compared, next_of, planned
from probes.states.lenses import at_layers
from probes.states.running import evaluating

TOP = 5  # tokens that are named at each place


def spoken(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    names: Sequence[str],
    *,
    who: str,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return what decoders say of every token of some texts.

    Args:
        models: one, or two of one tokenizer, that predict the next token.
        tokenizer, corpus, names: of them, the texts, few enough to be read, and what they are called.
        who: asks, as messages begin.
        settings: of `planned`.

    Returns:
        A text a dictionary, as JSON keeps it: `id`, `language`, `text`, as the models read it, and
        `tokens`, each with `place`, `token`, `start` and `end` in the text, `p` of each model (None
        for the first of a text, which nothing predicts), `kl` (None of one model) and `top` of each
        model, the likeliest tokens as (text, probability).

    Raises:
        InputError: as `planned`; the models predict masked tokens.
    """
    plan = planned(models, tokenizer, corpus, names, who, **settings)
    if not plan.forward:
        raise InputError(f"{who}: {type(models[0]).__name__} predicts masked tokens: expected a decoder")
    out: list[dict[str, Any]] = [{} for _ in range(len(corpus))]
    with ExitStack() as stack, torch.inference_mode():
        for model in models:
            stack.enter_context(evaluating(model, plan.device))
        layers = [stack.enter_context(before_output(m, plan.batches, plan.device)) for m in models]
        for row in range(len(corpus)):
            inputs = plan.batches.tensors(np.array([row]), "mean", plan.device)[0]
            targets = next_of(inputs)
            there = targets != NO_TOKEN
            logits = [layer(inputs, there).of(slice(None)) for layer in layers]
            ids = inputs["input_ids"][0].tolist()
            one = corpus[row]
            text, spans = _spans(tokenizer, str(one["text"]), ids)
            said = _of_text(tokenizer, ids, logits, targets[there]) if len(ids) > 1 else []
            first: dict[str, Any] = {"p": [None] * len(models), "kl": None, "top": [[] for _ in models]}
            tokens = [
                {"place": place, "token": token, "start": start, "end": end} | about
                for place, (token, (start, end), about) in enumerate(zip(ids, spans, [first, *said], strict=True))
            ]
            out[row] = {"id": str(one["id"]), "language": str(one["language"]), "text": text, "tokens": tokens}
    return out


def by_layer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    name: str,
    places: Sequence[int],
    *,
    who: str,
    **settings: Any,
) -> list[list[tuple[str, float]]]:
    """Return what each layer of a decoder would say at one place of each text: the likeliest token, and the probability
    of the right one, the embeddings first.

    Args:
        model, tokenizer, corpus, name, who, settings: as `spoken` takes them, of one model.
        places: (text,) of the token that is predicted, from 1.

    Raises:
        InputError: as `planned` and `probes.states.lenses.at_layers`.
    """
    plan = planned([model], tokenizer, corpus, [name], who, **settings)
    names: dict[int, str] = {}
    out = []
    with at_layers(model, plan, who) as run:
        for row, place in enumerate(places):
            inputs = plan.batches.tensors(np.array([row]), "mean", plan.device)[0]
            there = torch.zeros_like(inputs["input_ids"]).bool()
            there[0, place - 1] = True
            layers, right = run(inputs, there), inputs["input_ids"][0, place]
            said = [layers.logits(k, slice(None))[0].double() for k in range(len(layers.states))]
            tops = [_named(tokenizer, int(x.argmax()), names) for x in said]
            out.append([(top, round(float(x.softmax(-1)[right]), 4)) for top, x in zip(tops, said, strict=True)])
    return out


def _of_text(
    tokenizer: Any, ids: Sequence[int], logits: Sequence[torch.Tensor], targets: torch.Tensor
) -> list[dict[str, Any]]:
    """What is said of each token but the first."""
    found = compared(logits, targets)
    p = (-found["nats"]).exp().T.tolist()
    kl = found["kl"].tolist() if len(logits) > 1 else [None] * len(p)
    likely = [torch.softmax(x.double(), -1).topk(min(TOP, x.shape[-1])) for x in logits]
    names: dict[int, str] = {}
    top = []
    for best in likely:
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        top.append(
            [[(_named(tokenizer, i, names), round(share, 4)) for i, share in zip(*row, strict=True)] for row in pairs]
        )
    p = [[float(f"{x:.6g}") for x in row] for row in p]
    kl = [None if x is None else float(f"{x:.6g}") for x in kl]
    return [{"p": p[k], "kl": kl[k], "top": [of_model[k] for of_model in top]} for k in range(len(ids) - 1)]


def _named(tokenizer: Any, token: int, known: dict[int, str]) -> str:
    """A token as text; one that is a part of a letter as the tokenizer calls it."""
    if token not in known:
        text = str(tokenizer.decode([token]))
        known[token] = text if text and "\ufffd" not in text else str(tokenizer.convert_ids_to_tokens(token))
    return known[token]


def _spans(tokenizer: Any, text: str, ids: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """A text and where each token stands in it; without a tokenizer that says so, the text that the tokens make."""
    if getattr(tokenizer, "is_fast", False):
        found = tokenizer(text, truncation=True, max_length=len(ids), return_offsets_mapping=True)
        if list(found["input_ids"]) == ids:
            return text, [(int(start), int(end)) for start, end in found["offset_mapping"]]
    known: dict[int, str] = {}
    pieces = [_named(tokenizer, token, known) for token in ids]
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    return "".join(pieces), [(end - len(piece), end) for end, piece in zip(ends, pieces, strict=True)]
