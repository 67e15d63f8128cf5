"""Sentences token by token: what one or two language models, and their layers, hold for likely at each place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import InputError
from probes.states.by_token import NO_TOKEN, Logits, Planned, before_output, next_of, planned, rows_at_once
from probes.states.distributions import Shares, compared, likeliest
from probes.states.lenses import Layers, at_layers
from probes.states.running import evaluating

TOP = 5  # tokens that are named at each place


def spoken(
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    names: Sequence[str],
    *,
    who: str,
    lensed: int = 0,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return what decoders say of every token of some texts.

    Args:
        models: one, or two of one tokenizer, that predict the next token.
        tokenizer, corpus, names: of them, the texts, few enough to be read, and what they are called.
        who: asks, as messages begin.
        lensed: of how many tokens of a text, those that moved most, layers are asked too; of one
            model those that it predicts worst.
        settings: of `planned`.

    Returns:
        A text a dictionary, as JSON keeps it: `id`, `language`, `text`, as the models read it, and
        `tokens`, each with `place`, `token`, `start` and `end` in the text, `p` of each model (None
        for the first of a text, which nothing predicts), `kl` (None of one model), `top` of each
        model, the likeliest tokens as (text, probability), and where layers were asked `layers` of
        each model: the likeliest token of each and the probability of the right one, the embeddings
        first, none of a model whose layers cannot be read.

    Raises:
        InputError: as `planned`; the models predict masked tokens.
    """
    plan = planned(models, tokenizer, corpus, names, who, **settings)
    if not plan.forward:
        raise InputError(f"{who}: {type(models[0]).__name__} predicts masked tokens: expected a decoder")
    out: list[dict[str, Any]] = [{} for _ in range(len(corpus))]
    known: dict[int, str] = {}
    with torch.no_grad(), ExitStack() as stack:  # the outermost: what runs layers ends with the gradients it began with
        for model in models:
            stack.enter_context(evaluating(model, plan.device))
        runs = [stack.enter_context(_run(m, plan, who, lensed)) for m in models]
        for rows in plan.batches.over(0, len(corpus)):
            inputs = plan.batches.tensors(rows, "mean", plan.device)[0]
            targets = next_of(inputs)
            there = targets != NO_TOKEN
            made = [run(inputs, there) for run in runs]
            said = _of_tokens(tokenizer, made, targets[there], known)
            text = there.nonzero()[:, 0].cpu().numpy()
            if lensed:
                asked = np.concatenate([_moved(said, np.flatnonzero(text == k), lensed) for k in range(len(rows))])
                layers = [_of_layers(tokenizer, one, targets[there], asked, known) for one in made]
                for k, *each in zip(asked, *layers, strict=True):
                    said[k]["layers"] = each
            for k, row in enumerate(rows):
                ids = inputs["input_ids"][k][inputs["attention_mask"][k].bool()].tolist()
                first: dict[str, Any] = {"p": [None] * len(models), "kl": None, "top": [[] for _ in models]}
                every = [first, *(said[i] for i in np.flatnonzero(text == k))]
                one = corpus[int(row)]
                whole, spans = _spans(tokenizer, str(one["text"]), ids)
                tokens = [
                    {"place": place, "token": token, "start": start, "end": end} | about
                    for place, (token, (start, end), about) in enumerate(zip(ids, spans, every, strict=True))
                ]
                out[row] = {"id": str(one["id"]), "language": str(one["language"]), "text": whole, "tokens": tokens}
    return out


@contextmanager
def _run(model: PreTrainedModel, plan: Planned, who: str, lensed: int) -> Iterator[Any]:
    """What runs a model to its layers where these are asked for and can be read, and else to its output."""
    with ExitStack() as stack:
        if lensed:
            try:
                yield stack.enter_context(at_layers(model, plan, who))
                return
            except InputError:  # what follows the last block is not known
                pass
        yield stack.enter_context(before_output(model, plan.batches, plan.device))


def _of_tokens(
    tokenizer: Any, made: Sequence[Logits | Layers], targets: torch.Tensor, known: dict[int, str]
) -> list[dict[str, Any]]:
    """What is said of each token that is predicted."""
    out = []
    step = rows_at_once(made[0].vocabulary)
    for start in range(0, len(targets), step):
        part = slice(start, start + step)
        logits = [one.of(part) for one in made]
        found = compared(logits, targets[part])
        p = [[_short(x) for x in row] for row in (-found["nats"]).exp().T.tolist()]
        kl = [_short(x) for x in found["kl"].tolist()] if len(logits) > 1 else [None] * len(p)
        likely = [torch.softmax(x.double(), -1).topk(min(TOP, x.shape[-1])) for x in logits]
        top = [
            [[(_named(tokenizer, i, known), round(share, 4)) for i, share in zip(*row, strict=True)] for row in pairs]
            for pairs in (zip(best.indices.tolist(), best.values.tolist(), strict=True) for best in likely)
        ]
        out += [{"p": one, "kl": far, "top": list(best)} for one, far, *best in zip(p, kl, *top, strict=True)]
    return out


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _moved(said: Sequence[dict[str, Any]], rows: np.ndarray, most: int) -> np.ndarray:
    """Of some tokens those that moved most, in their order; of one model those that it predicts worst."""
    far = [1 - said[k]["p"][0] if said[k]["kl"] is None else said[k]["kl"] for k in rows]
    return np.sort(rows[np.argsort(-np.nan_to_num(far), kind="stable")[:most]])


def _of_layers(
    tokenizer: Any, made: Logits | Layers, targets: torch.Tensor, rows: np.ndarray, known: dict[int, str]
) -> list[list[tuple[str, float]]]:
    """What each layer of a model would say of some tokens: the likeliest, and the probability of the right one."""
    out: list[list[tuple[str, float]]] = [[] for _ in rows]
    if not isinstance(made, Layers):
        return out
    step = rows_at_once(made.vocabulary)
    for start in range(0, len(rows), step):
        part = torch.from_numpy(rows[start : start + step]).to(targets.device)
        for layer in range(len(made.states)):
            shares = Shares.of(made.logits(layer, part))
            p = (-shares.nats(targets[part])).exp().tolist()
            for k, (token, share) in enumerate(zip(likeliest(shares.logits).tolist(), p, strict=True), start):
                out[k].append((_named(tokenizer, token, known), round(share, 4)))
    return out


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
