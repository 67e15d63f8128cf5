"""Patient distillation: directions of hidden states of the first token, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from compress.objectives.base import (
    Pass,
    Rows,
    attended_tokens,
    check_choice,
    check_number,
    check_shapes,
    given_layers,
    given_teacher,
    layer_pairs,
    pooled,
)
from compress.objectives.layers import projected, projections_of
from probes.errors import InputError
from probes.models.facts import size_of


@dataclass(frozen=True)
class PatientStates:
    """Squared distance of the directions of the student's and the teacher's states, layer by layer.

    With h the hidden state of the first token of a text after a block, the mean over texts and the
    sum over layers of || h_S / ||h_S|| - h_T / ||h_T|| ||^2, each 0 to 4: twice one minus the
    cosine. The last block is left out, as soft labels come from it.

    Args:
        weight: what the loss is multiplied by.
        layers: the teacher's layer for each layer of the student that is compared, i the states
            after block i. Without it all blocks of the student but the last.
        name: what it is logged under.
        strategy: without `layers`, whether they are compared to blocks spread over the teacher's
            ("skip"), or to its "last" ones but the very last.
        pooling: "first", or "mean" over the tokens that are not padding.

    Raises:
        InputError: a number or word is out of its range, or `layers` is empty; at the check and the
            call, layers are compared that student or teacher do not have, or the student has one
            block; at the call, the teacher or hidden states are missing, or they differ in width
            and there is no learned map.

    Notes:
        Sun, Cheng, Gan and Liu 2019 (patient knowledge distillation), arXiv 1908.09355, as
        recalled: the baseline of CoDIR, of the same authors. Mean pooling, and a learned map where
        widths differ, are choices made here.

    See also:
        `HiddenStates`, `CoDIR`, `compress.recipes.patient_distillation`

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> states = lambda x: (torch.zeros(1, 1, 2), torch.tensor([[x]]), torch.zeros(1, 1, 2))
        >>> student = Pass(model, None, hidden_states=states([3.0, 0.0]))
        >>> teacher = Pass(model, None, hidden_states=states([0.0, 1.0]))
        >>> float(PatientStates()(student, teacher, {"attention_mask": torch.ones(1, 1)}))
        2.0
    """

    weight: float = 1.0
    layers: Mapping[int, int] | None = None
    name: str = "patient_states"
    strategy: Literal["skip", "last"] = "skip"
    pooling: Literal["first", "mean"] = "first"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "hidden_states"})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_choice(self.name, "pooling", self.pooling, ("first", "mean"))
        check_choice(self.name, "strategy", self.strategy, ("skip", "last"))
        if self.layers is not None and not self.layers:
            raise InputError(
                f"objective {self.name}: layers is empty: give a layer of the teacher for each of the student's"
            )

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where student or teacher lack a layer that is compared."""
        self._pairs(*(1 + size_of(model, "num_hidden_layers") for model in (student, teacher)))

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Rows, seed: int) -> torch.nn.Module:
        """Return the maps from the student's width to the teacher's, where they differ."""
        s, t = ([size_of(m, "hidden_size")] * (1 + size_of(m, "num_hidden_layers")) for m in (student, teacher))
        return projections_of(s, t, self._pairs(len(s), len(t)))

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `attention_mask` (batch, token), times the weight."""
        s, t = (given_layers(p, "hidden_states", self.name) for p in (student, given_teacher(teacher, self.name)))
        attended = attended_tokens(batch, s[0], self.name)
        total = []
        for i, j in self._pairs(len(s), len(t)):
            mine = projected(pooled(s[i], attended, self.pooling), i, self.name, batch)
            theirs = pooled(t[j], attended, self.pooling).detach()
            check_shapes(self.name, "hidden states", mine, theirs)
            total.append((F.normalize(mine, dim=1) - F.normalize(theirs, dim=1)).square().sum(1).mean())
        return self.weight * torch.stack(total).sum()

    def _pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Return which layer of the student is compared to which of the teacher's, 0 the embeddings."""
        if self.layers is not None:
            return layer_pairs(self.name, student, teacher, self.layers, 1)
        if student < 3:
            raise InputError(
                f"objective {self.name}: the student has {student - 1} block(s), of which the last is left out: "
                "expected two at least, or layers=..."
            )
        uniform = layer_pairs(self.name, student, teacher, None, 1)[1:-1]
        if self.strategy == "skip":
            return uniform
        return [(i, i + teacher - student) for i, _ in uniform]
