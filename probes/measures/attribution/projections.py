"""Straight maps from the states of one model to those of another, learned from text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import body_of
from probes.states.resumed import blocks_of, record
from probes.states.running import evaluating
from probes.states.tokens import batches_of

_PENALTIES = (1e-8, 1e-6, 1e-4, 1e-2)  # shares of the mean variance of what is mapped
_APART = 5  # one sentence of so many is held out
_SETTINGS = ("max_length", "prompt", "device", "batch_size", "batch_tokens")


@dataclass(frozen=True)
class Projection:
    """A straight map of states, and what it leaves.

    Attributes:
        weight, offset: states @ weight + offset.
        residual: the share of the variance of the states of sentences held out that it leaves.
    """

    weight: torch.Tensor
    offset: torch.Tensor
    residual: float

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Return states (..., feature) as the other model has them."""
        return (states.to(self.weight.dtype) @ self.weight + self.offset).to(states.dtype)


def check_apart(train: datasets.Dataset, corpus: datasets.Dataset) -> datasets.Dataset:
    """Return the texts to learn from; raise `InputError` where they are too few, or some are in the
    corpus that is measured on.
    """
    train = check_corpus(train)
    known = set(zip(corpus["language"], corpus["text"], strict=True))
    both = [t for t in zip(train["language"], train["text"], strict=True) if t in known]
    if both:
        raise InputError(
            f"{len(both)} of the {len(train)} texts that maps are learned from are measured on too, as {both[0][1]!r} "
            f"({both[0][0]}). Give others as train="
        )
    if len(set(train["id"])) < _APART:
        raise InputError(f"train= has {len(set(train['id']))} sentences: expected {_APART} at least, to hold one out")
    return train


def projections(
    donor: PreTrainedModel,
    host: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    layers: Mapping[int, int],
    **settings: Any,
) -> dict[int, Projection]:
    """Learn, for layers of a model, a map from the states of another: ridge regression, token by
    token.

    Args:
        donor: the model whose states are mapped.
        host: the model that they are mapped to.
        tokenizer: of both.
        train: texts, of which each fifth sentence is held out; by it the penalty is chosen, of four.
        layers: layer of `host` -> layer of `donor`.
        settings: of `capture`.

    Returns:
        A map for each layer of `host`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(20))
        >>> found = projections(model, model, tokenizer, train, {2: 2})
        >>> found[2].residual < 1e-3
        True
    """
    how = {name: settings[name] for name in _SETTINGS if name in settings}
    where, batches = batches_of(donor, tokenizer, train, "train", **how)
    order = {one: k for k, one in enumerate(dict.fromkeys(train["id"]))}
    apart = np.array([order[one] % _APART == 0 for one in train["id"]])
    sums: dict[int, list[list[Any]]] = {layer: [[0.0] * 6, [0.0] * 6] for layer in layers}
    with evaluating(donor, where), evaluating(host, where), torch.inference_mode():
        for rows, inputs in batches():
            one, two = (record(partial(body_of(m), **inputs), blocks_of(m)) for m in (donor, host))
            for held_out in (False, True):
                texts = torch.as_tensor(apart[rows] == held_out, device=where)
                there = inputs["attention_mask"].bool() & texts[:, None]
                for layer, given in layers.items():
                    x, y = one.layer(given)[there].double(), two.layer(layer)[there].double()
                    new = (float(len(x)), x.sum(0), y.sum(0), x.T @ x, x.T @ y, float(y.square().sum()))
                    sums[layer][held_out] = [a + b for a, b in zip(sums[layer][held_out], new, strict=True)]
    return {layer: _best(*of) for layer, of in sums.items()}


def _best(learned: list[Any], held_out: list[Any]) -> Projection:
    """The map, of those of all penalties, that leaves least of what is held out."""
    n, x, y, xx, xy, _ = learned
    mean, goal = x / n, y / n
    spread = xx - n * torch.outer(mean, mean)
    shared = xy - n * torch.outer(mean, goal)
    size = torch.eye(len(spread), dtype=spread.dtype, device=spread.device) * spread.diagonal().mean()
    found = []
    for penalty in _PENALTIES:
        weight = torch.linalg.lstsq(spread + penalty * size, shared).solution
        offset = goal - mean @ weight
        found.append(Projection(weight, offset, _left(weight, offset, held_out)))
    return min(found, key=lambda one: one.residual)


def _left(weight: torch.Tensor, offset: torch.Tensor, held_out: list[Any]) -> float:
    """The share of the variance of what is held out that a map leaves."""
    n, x, y, xx, xy, yy = held_out
    mapped = (weight * (xx @ weight)).sum() + 2 * (x @ weight) @ offset + n * offset.square().sum()
    left = yy - 2 * ((weight * xy).sum() + y @ offset) + mapped
    whole = yy - y.square().sum() / n
    return float(left.clamp_min(0) / whole) if whole > 0 else float("nan")
