"""Objectives of a text's label: right ones, and those that a teacher gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from compress.objectives.base import (
    IGNORED,
    Pass,
    attended_tokens,
    check_classes,
    check_number,
    check_shapes,
    check_softened,
    class_count,
    given_entry,
    given_logits,
    given_teacher,
)
from compress.objectives.by_text import shared_out
from probes.errors import InputError
from probes.models.facts import head_of


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the logits with the labels, the mean over texts or tokens.

    -log softmax(logits)[label], in nats. Tokens with the label -100 are left out, as all but the
    first of a word (`tags`); a batch without any other gives 0. A model that predicts the next
    token is compared to its labels one further, as transformers does itself. Of a head that gives
    none or several classes a text (`labels`) it is that of each class apart, -log sigmoid(logit) or
    -log(1 - sigmoid(logit)), the mean over texts and classes.

    Args:
        weight: what the loss is multiplied by.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite; at the call, logits or labels are missing,
            or the labels are not whole numbers, one to each text or token. A label that is no class
            of the head is PyTorch's to refuse.

    See also:
        `SquaredError`, of numbers

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, logits=torch.zeros(2, 6))
        >>> loss = CrossEntropy()(student, None, {"labels": torch.tensor([0, 5])})
        >>> round(float(loss), 3)  # log 6
        1.792
    """

    weight: float = 1.0
    name: str = "cross_entropy"
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    kinds: ClassVar[frozenset[str]] = frozenset({"classes", "several", "words", "tokens"})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student does not tell classes apart."""
        check_classes(self.name, student)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch with `labels` (batch,) or (batch, token), or (batch, class) of
        0 and 1, times the weight.
        """
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of each text (batch,), times the weight; of tokens what those of a text
        add to their mean.
        """
        logits, labels = given_logits(student, self.name), given_entry(batch, "labels", self.name)
        if labels.is_floating_point() and labels.shape == logits.shape and head_of(student.model) == "several":
            apart = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
            return self.weight * apart.mean(1)
        if labels.shape != logits.shape[:-1] or labels.is_floating_point():
            raise InputError(
                f"objective {self.name}: expected labels of whole numbers of shape {tuple(logits.shape[:-1])}, found "
                f"{labels.dtype} of shape {tuple(labels.shape)}: give one class to each text or token"
            )
        if logits.ndim == 3 and student.model.can_generate() and not student.model.config.is_encoder_decoder:
            logits, labels = logits[:, :-1], labels[:, 1:]
        flat = logits.flatten(0, -2), labels.flatten().long()
        found = F.cross_entropy(*flat, ignore_index=IGNORED, reduction="none").unflatten(0, labels.shape)
        return self.weight * shared_out(found.reshape(len(labels), -1), (labels != IGNORED).sum())


@dataclass(frozen=True)
class SoftLabels:
    """Divergence of the student's class probabilities from the teacher's, at a temperature.

    temperature^2 KL(softmax(teacher / temperature) || softmax(student / temperature)), in nats, the
    mean over texts, or over the tokens that are not padding; beside `LanguageModel` over those that
    it predicts. Of a head that gives none or several classes a text the divergence is that of each
    class apart, and the mean is over texts and classes.

    Args:
        weight: what the loss is multiplied by.
        temperature: above 0. The larger, the more the logits of unlikely classes count: towards
            infinity the loss becomes half the variance, over the classes, of the difference between
            the logits.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or the temperature not above 0; at the
            call, the teacher or logits are missing, or those of student and teacher differ in
            shape.

    Notes:
        Hinton, Vinyals and Dean 2015, arXiv 1503.02531. The gradient is that of the cross-entropy
        with the teacher's probabilities as labels, which only adds the teacher's entropy. The
        reference page says which weights give the losses of other papers.

    See also:
        `CrossEntropy`; `SquaredError(of="teacher")`, of numbers

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student, teacher = (Pass(model, torch.tensor([[0.0, x]])) for x in (0.0, 2.0))
        >>> round(float(SoftLabels(temperature=2)(student, teacher, {})), 3)
        0.444
    """

    weight: float = 1.0
    temperature: float = 1.0
    name: str = "soft_labels"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})
    by_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_softened(self.name, self.weight, self.temperature)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where student and teacher differ in classes or their order."""
        check_classes(self.name, student)
        check_classes(self.name, teacher)
        if (found := class_count(student)) != (expected := class_count(teacher)):
            raise InputError(
                f"objective {self.name}: the student has {found} classes, the teacher {expected}: expected the same"
            )
        mine, theirs = student.config.id2label or {}, teacher.config.id2label or {}
        if set(mine.values()) == set(theirs.values()) and mine != theirs:
            raise InputError(
                f"objective {self.name}: student and teacher have their classes in different orders, {mine} and "
                f"{theirs}: give the teacher's to the student's configuration and head"
            )

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch, times the weight."""
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of each text (batch,), times the weight; of tokens what those of a text
        that are not padding add to their mean.
        """
        s, t = given_logits(student, self.name), given_logits(given_teacher(teacher, self.name), self.name).detach()
        check_shapes(self.name, "logits", s, t)
        several = student.model is not None and head_of(student.model) == "several"
        tokens = s.ndim == 3
        if several:  # each class against its absence
            s, t = (torch.stack([x, torch.zeros_like(x)], -1) for x in (s, t))
        elif tokens:
            there = batch["targets"] != IGNORED if "targets" in batch else attended_tokens(batch, s, self.name)
            s, t = s[there], t[there]
        s, t = (F.log_softmax(logits / self.temperature, dim=-1) for logits in (s, t))
        found = F.kl_div(s, t, reduction="none", log_target=True).sum(-1)
        if several:
            found = found.mean(1)
        elif tokens:
            found = shared_out(found.new_zeros(there.shape).masked_scatter(there, found), there.sum())
        return self.weight * self.temperature**2 * found
