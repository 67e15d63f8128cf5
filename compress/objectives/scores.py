"""Attention before the softmax: what queries and keys give, collected while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from compress.objectives.base import wide
from probes.errors import InputError
from probes.models.facts import size_of
from probes.states.running import evaluating

_NAME = "layerscope_scores"
_MASKED = -1e4  # and less is what a mask adds; scores of models stay well above
_seen: list[list[torch.Tensor]] = []  # of the models that are watched now, the last one innermost


@contextmanager
def watching_scores(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect the attention scores of each block while a model runs (batch, head, token, token).

    Scores are Q K^T times the scale of the model, with what it adds for positions, before the
    softmax; where it masks, a pair has -inf. While it is watched the model computes its attention
    plainly, to the same numbers up to rounding; afterwards as before.

    Args:
        model: a model of one stack that asks transformers for its implementation of attention.

    Returns:
        A list that a forward pass fills, one entry a block.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> with watching_scores(model) as seen:
        ...     _ = model(torch.tensor([[1, 2, 3]]))
        >>> len(seen), seen[0].shape
        (6, torch.Size([1, 4, 3, 3]))
    """
    seen: list[torch.Tensor] = []
    before = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    _seen.append(seen)
    try:
        yield seen
    finally:
        _seen.remove(seen)
        model.set_attn_implementation(before)


def check_scores(name: str, model: PreTrainedModel) -> None:
    """Raise where the attention scores of a model cannot be collected, by reading one short text."""
    found, blocks, why = 0, size_of(model, "num_hidden_layers"), ""
    if not model.config.is_encoder_decoder:
        ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
        try:
            with evaluating(model, model.device), torch.no_grad(), watching_scores(model) as seen:
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
            found = len(seen)
        except (InputError, KeyError, ValueError) as error:
            why = f" ({error})"
    if found != blocks:
        raise InputError(
            f"objective {name}: {type(model).__name__} gave the attention scores of {found} blocks of {blocks}{why}: "
            'expected a model of one stack that asks transformers for its attention; compare form="probabilities"'
        )


def _scored(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    position_bias: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend, as implementations of transformers do, and keep the scores."""
    if others.get("s_aux") is not None:
        raise InputError("attention with sinks has no scores of pairs alone")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None:
        masked = attention_mask < _MASKED if attention_mask.is_floating_point() else ~attention_mask
        kept = scores + attention_mask.masked_fill(masked, 0) if attention_mask.is_floating_point() else scores
        scores = kept.masked_fill(masked, float("-inf"))
    if _seen:
        _seen[-1].append(scores)
    # A row that sees nothing, as of padding, spreads evenly, as it does where a mask is a large number.
    nothing = (scores == float("-inf")).all(-1, keepdim=True)
    weights = wide(scores.masked_fill(nothing, 0)).softmax(-1).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(_NAME, _scored)
AttentionMaskInterface.register(_NAME, eager_mask)
