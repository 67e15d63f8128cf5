"""Some of a model's logits alone: rows of its output layer, which itself does not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from compress.objectives.base import Pass, given_logits, wide
from probes.states.batches import random_batch
from probes.states.by_token import after_output, alike
from probes.states.running import run_by


def plain_output(model: PreTrainedModel) -> nn.Linear | None:
    """Return the output layer of a model over tokens, where one of its rows makes one logit; None
    where it is something else, or its weights are made anew whenever it runs.

    Example:
        >>> import probes
        >>> plain_output(probes.load_checkpoint("bundled-decoder")[0]).out_features
        4000
    """
    head = model.get_output_embeddings()
    hooked = head is not None and (head._forward_hooks or head._forward_pre_hooks or "forward" in vars(head))
    return head if type(head) is nn.Linear and not parametrize.is_parametrized(head) and not hooked else None


@contextmanager
def left_out(model: PreTrainedModel, wanted: bool = True) -> Iterator[list[torch.Tensor]]:
    """Run a model without its output layer for a while, and collect what that would be fed.

    Args:
        model: what it gives as logits means nothing meanwhile.
        wanted: False to leave all as it is, and the list empty; so it is too where `plain_output`
            finds none.

    Returns:
        A list that a forward pass fills with one tensor (text, token, feature).

    Example:
        >>> import probes, torch
        >>> model, _ = probes.load_checkpoint("bundled-decoder")
        >>> with left_out(model) as fed:
        ...     _ = model(torch.tensor([[1, 2, 3]]))
        >>> fed[0].shape
        torch.Size([1, 3, 128])
    """
    fed: list[torch.Tensor] = []
    head = plain_output(model) if wanted else None
    if head is None:
        yield fed
        return

    def instead(states: torch.Tensor) -> torch.Tensor:
        fed.append(states)
        # Of several processes each waits for a gradient of what its outputs are made of, and of nothing else.
        return states[..., :1] + sum(p[:0].sum() for p in head.parameters())

    with run_by(head, instead):
        yield fed


def sample(modules: Iterable[Any]) -> bool:
    """Say whether objectives, by what `prepare` returned, all read rows of the output layer alone."""
    found = [getattr(module, "samples", False) for module in modules]
    return bool(found) and all(found)


def rows_are_logits(model: PreTrainedModel) -> bool:
    """Say whether `logits_of` gives, of what the output layer is fed, what a model does."""
    if plain_output(model) is None:
        return False
    ids = random_batch(model, [6])["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0].float()
        with left_out(model) as fed:
            model(input_ids=ids)
        every = torch.arange(expected.shape[-1], device=ids.device).expand(len(expected), -1)
        given = Pass(model, None, output_inputs=fed[-1])
        found = logits_of(given, torch.ones_like(ids).bool(), every, "logits")
    return alike(found.float(), expected)


def logits_of(given: Pass, there: torch.Tensor, ids: torch.Tensor, name: str) -> torch.Tensor:
    """Return the logits of some tokens, in float32 at least.

    Args:
        given: what a model gave: logits, or what its output layer is fed.
        there: (text, token) which places are asked.
        ids: (place, number) tokens, for each of these places.
        name: of the objective that asks.

    Returns:
        (place, number).
    """
    if given.output_inputs is None:
        return given_logits(given, name)[there].gather(1, ids)
    head: Any = given.model.get_output_embeddings()
    states = wide(given.output_inputs[there])
    found = (wide(F.embedding(ids, head.weight)) @ states[:, :, None]).squeeze(2)
    if head.bias is not None:
        found = found + wide(head.bias[ids])
    return after_output(given.model)(found)
