"""Objectives of heads that give a number: the label, or the number that a teacher gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from compress.objectives.base import (
    Pass,
    check_choice,
    check_number,
    given_entry,
    given_logits,
    given_teacher,
)
from probes.errors import InputError
from probes.models.facts import head_of


@dataclass(frozen=True)
class SquaredError:
    """Squared difference of the number that a model gives from the label, the mean over texts.

    Args:
        weight: what the loss is multiplied by.
        of: whose number it is compared to: "labels", or that of the "teacher", for which there need
            be no labels.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or `of` not known; the student, or the
            teacher, gives no number; at the call, labels, the teacher or logits are missing, or not
            one number to each text.

    Notes:
        In the square of the labels' unit; what transformers trains such a head by.

    See also:
        `CrossEntropy`, `SoftLabels`

    Example:
        >>> import torch
        >>> said = Pass(None, torch.tensor([[1.0], [4.0]]))
        >>> float(SquaredError()(said, None, {"labels": torch.tensor([1.0, 2.0])}))
        2.0
    """

    weight: float = 1.0
    of: str = "labels"
    name: str = "squared_error"

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_choice(self.name, "of", self.of, ("labels", "teacher"))
        if self.of == "teacher" and self.name == SquaredError.name:  # so that both can stand beside each other
            object.__setattr__(self, "name", "squared_error_to_teacher")

    @property
    def needs(self) -> frozenset[str]:
        """Labels, or a teacher."""
        return frozenset({self.of})

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where a model that is compared gives no number."""
        for model in (student, teacher) if self.of == "teacher" else (student,):
            if model is not None and (head_of(model) != "numbers" or model.config.num_labels != 1):
                raise InputError(
                    f"objective {self.name}: {type(model).__name__} gives {model.config.num_labels} classes or numbers "
                    "a text: expected a head of one number (num_labels=1); of classes take CrossEntropy or SoftLabels"
                )

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch with `labels` (batch,), times the weight."""
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of each text (batch,), times the weight."""
        said = given_logits(student, self.name)
        if self.of == "teacher":
            wanted = given_logits(given_teacher(teacher, self.name), self.name).detach()
        else:
            wanted = given_entry(batch, "labels", self.name)[..., None]
        if said.shape != wanted.shape or not wanted.is_floating_point():
            raise InputError(
                f"objective {self.name}: numbers of shape {tuple(said.shape)} by the student, and by the {self.of} "
                f"{wanted.dtype} of shape {tuple(wanted.shape)}: expected one number to each text"
            )
        return self.weight * (said - wanted.to(said.dtype)).square().flatten(1).mean(1)
