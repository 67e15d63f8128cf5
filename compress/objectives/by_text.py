"""Losses by text, and further passes of the texts of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from compress.objectives.base import wide
from probes.models.facts import body_of, types_tokens
from probes.states.batches import collate
from probes.states.tokens import Padding, pads_left


def shared_out(losses: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return what each text adds to the mean loss of so many tokens, from losses (text, token): the
    mean over texts is that over tokens.

    Example:
        >>> shared_out(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor(3)).tolist()
        [2.0, 2.0]
    """
    return losses.sum(1) * (len(losses) / count.clamp_min(1))


def inputs_of(batch: Mapping[str, Any], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return what of a batch a model reads."""
    keys = ("input_ids", "attention_mask", *(["token_type_ids"] if types_tokens(model) else []))
    return {key: batch[key] for key in keys if key in batch}


def inputs_by(rows: Sequence[Mapping[str, Any]], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return what a model reads of some rows, padded side by side, on its device.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> inputs_by([{"input_ids": [1, 7]}, {"input_ids": [1]}], model)["attention_mask"].tolist()
        [[1, 1], [1, 0]]
    """
    kept = ("input_ids", "token_type_ids")
    batch = collate(padding_by(model), [{k: row[k] for k in kept if k in row} for row in rows])
    return {k: v.to(model.device) for k, v in inputs_of(batch, model).items()}


def padding_by(model: PreTrainedModel) -> Padding:
    """Return how a model pads by its configuration: an attention mask says that padding counts nothing."""
    token = getattr(model.config, "pad_token_id", None)
    return Padding(0 if token is None or token < 0 else token, pads_left(model))


def last_states(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the last hidden states (text, token, feature) of a model as it is now, with a gradient."""
    return wide(body_of(model)(**inputs, return_dict=True).last_hidden_state)
