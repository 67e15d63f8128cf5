"""Contrast of views of a text: what a model gives for it under several dropout rates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F

from compress.objectives.base import (
    Pass,
    attended_tokens,
    check_choice,
    check_number,
    check_softened,
    given_entry,
    given_layers,
    pooled,
)
from compress.objectives.by_text import inputs_of, last_states
from probes.errors import InputError
from probes.models.facts import body_of

_BASE = 0.07  # the temperature at which the loss counts whole


@dataclass(frozen=True)
class SupCLSeq:
    """Supervised contrast of views: a text under several dropout rates, and the texts of its class.

    A view is the last state of the first token of a text, or the mean over tokens, divided by its
    length: one by the model's own dropout, and one for each of `rates`. With P(i) the other views of
    the same class, those of the text itself included, the loss is, in nats and as a mean over views,

        -(temperature / 0.07) mean over p in P(i) of
            log [ exp(v_i.v_p / temperature) / sum over j other than i of exp(v_i.v_j / temperature) ]

    Args:
        weight: what the loss is multiplied by.
        rates: dropout of each further view, at least 0 and below 1; each takes a forward pass.
        temperature: above 0.
        pooling: "first", or "mean" over the tokens that are not padding.
        name: what it is logged under.

    Raises:
        InputError: there are no rates, or one is out of range; a number is outside its range; at the
            call, labels or hidden states are missing.

    Notes:
        Sedghamiz, Raval, Santus, Alhanai and Ghassemi 2021, arXiv 2109.07424, by its released code:
        dropout 0.1 of the model, rates 0, 0.05 and 0.2. Then the encoder is frozen and a linear head
        learns by cross-entropy, as in `compress.recipes.supcl_seq`. Choice made here: the last state itself, where
        they take the pooler's.

    See also:
        `compress.recipes.supcl_seq`, `SupervisedContrast`, `PairSupCon`

    Example:
        >>> import probes, torch
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> batch = {"input_ids": torch.tensor([[1, 5], [1, 6]]), "labels": torch.tensor([0, 1])}
        >>> batch["attention_mask"] = torch.ones(2, 2, dtype=torch.long)
        >>> given = Pass(model, None, model(batch["input_ids"], output_hidden_states=True).hidden_states)
        >>> SupCLSeq()(given, None, batch).shape
        torch.Size([])
    """

    weight: float = 1.0
    rates: tuple[float, ...] = (0.0, 0.05, 0.2)
    temperature: float = 0.05
    pooling: Literal["first", "mean"] = "first"
    name: str = "supcl_seq"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "hidden_states"})
    kinds: ClassVar[frozenset[str]] = frozenset({"classes"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", tuple(self.rates))
        check_softened(self.name, self.weight, self.temperature)
        check_choice(self.name, "pooling", self.pooling, ("first", "mean"))
        if not self.rates:
            raise InputError(f"objective {self.name}: rates is empty: give the dropout of one further view at least")
        for rate in self.rates:
            check_number(self.name, "rates", rate, least=0)
            if rate >= 1:
                raise InputError(f"objective {self.name}: rates has {rate!r}: expected below 1, or nothing is left")

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `labels` (batch,), times the weight."""
        labels = given_entry(batch, "labels", self.name)
        last = given_layers(student, "hidden_states", self.name)[-1]
        attended = attended_tokens(batch, last, self.name)
        views = [pooled(last, attended, self.pooling)]
        for rate in self.rates:
            with dropout_at(body_of(student.model), rate):
                states = last_states(student.model, inputs_of(batch, student.model))
            views.append(pooled(states.to(views[0]), attended, self.pooling))
        with torch.autocast(last.device.type, enabled=False):  # which would round the scores to three digits
            return self.weight * view_contrast(torch.cat(views), labels.repeat(len(views)), self.temperature)


def view_contrast(views: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the supervised contrast of views (view, feature) by their labels (view,), a scalar; a
    view without another of its class adds 0.

    Example:
        >>> apart = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(float(view_contrast(apart, torch.tensor([0, 1, 0, 1]), 0.07)), 3)
        0.0
    """
    v = F.normalize(views, dim=1)
    own = torch.eye(len(v), dtype=torch.bool, device=v.device)
    logs = (v @ v.T / temperature).masked_fill(own, -math.inf).log_softmax(1)
    alike = (labels[:, None] == labels) & ~own
    each = logs.masked_fill(~alike, 0).sum(1) / alike.sum(1).clamp_min(1)
    return -(temperature / _BASE) * each.mean()


@contextmanager
def dropout_at(model: torch.nn.Module, rate: float) -> Iterator[None]:
    """Let all dropout of a model, also that of attention, be at a rate; then as before.

    Example:
        >>> layer = torch.nn.Dropout(0.1)
        >>> with dropout_at(layer, 0.5):
        ...     print(layer.p)
        0.5
        >>> layer.p
        0.1
    """
    before = [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, float) and (name == "p" if isinstance(module, torch.nn.Dropout) else _drops(name))
    ]
    try:
        for module, name, _ in before:
            setattr(module, name, rate)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _drops(name: str) -> bool:
    """Whether an attribute of a module is a rate of dropout, and not of whole layers."""
    return "drop" in name and "layer" not in name
