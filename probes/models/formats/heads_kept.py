"""Models that lost heads or channels: how one is made with the heads that were kept."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.models.parts import count_of, family_of, keep_parts, layers_of


def with_shapes(kind: Any) -> Any:
    """Return a class whose models are made with the heads that were kept, so that `from_pretrained` finds shapes fit.

    Notes:
        Set `model.__class__` back to `kind` after loading: the class is needed while a model is made only.
    """

    def make(self: PreTrainedModel, config: transformers.PreTrainedConfig, *args: Any, **settings: Any) -> None:
        kind.__init__(self, config, *args, **settings)
        apply_shapes(self)

    return type(kind.__name__, (kind,), {"__init__": make, "__module__": kind.__module__})


def apply_shapes(model: PreTrainedModel) -> None:
    """Give a freshly made model, in place, the number of heads a layer that its configuration says were kept.

    `config.heads_kept` has it, one number a layer, where heads were pruned. Which heads these were does not matter any
    more: the weights are loaded after it.
    """
    kept = getattr(model.config, "heads_kept", None)
    if kept is None:
        return
    family = family_of(model)
    layers = layers_of(model, family)
    if len(kept) != len(layers):
        raise InputError(
            f"config.heads_kept has {len(kept)} numbers and the model {len(layers)} layers: they do not belong together"
        )
    for layer, count in zip(layers, kept, strict=True):
        if count_of(layer, family, "heads") != count:
            keep_parts(layer, family, "heads", list(range(count)))
