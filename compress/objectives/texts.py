"""Objectives that compare one vector a text, or the texts of a batch with each other."""

from __future__ import annotations

import math
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
    cosines,
    given_layers,
    given_teacher,
    wide,
)
from compress.objectives.layers import projected, projections_of
from probes.models.facts import size_of


@dataclass(frozen=True)
class _OfTexts:
    """What objectives that compare one representation z of each text share: (text, feature)."""

    weight: float = 1.0
    pooling: Literal["first", "mean"] = "first"
    name: str = ""
    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "hidden_states"})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_choice(self.name, "pooling", self.pooling, ("first", "mean"))

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Rows, seed: int) -> torch.nn.Module:
        """Return the map of the student's features to the teacher's, where they differ in width."""
        return projections_of([size_of(student, "hidden_size")], [size_of(teacher, "hidden_size")], [(0, 0)])

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `attention_mask` (batch, token), times the weight."""
        s, t = (
            wide(given_layers(p, "hidden_states", self.name)[-1]) for p in (student, given_teacher(teacher, self.name))
        )
        check_shapes(self.name, "hidden states", s[..., 0], t[..., 0])
        t, attended = t.detach(), attended_tokens(batch, s, self.name)
        if self.pooling == "first":  # after padding, where that is on the left
            first = attended.int().argmax(1)
            texts = torch.arange(len(s), device=s.device)
            s, t = s[texts, first], t[texts, first]
        else:
            counts = attended.sum(1, keepdim=True).clamp_min(1)
            s, t = (x.masked_fill(~attended[..., None], 0).sum(1) / counts for x in (s, t))
        return self.weight * self._loss(*self._comparable(s, t, batch))

    def _comparable(
        self, s: torch.Tensor, t: torch.Tensor, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        s = projected(s, 0, self.name, batch)
        check_shapes(self.name, "hidden states", s, t)
        return s, t

    def _loss(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class RepresentationMSE(_OfTexts):
    """Mean squared difference between the student's and the teacher's representation of each text.

    The representation z is the last hidden state of the first token, or the mean over the tokens
    that are not padding; the loss is the mean over texts and features of (student - teacher)^2, in
    squared units of the hidden states.

    Args:
        weight: what the loss is multiplied by.
        pooling: "first", which heads of encoders read, or "mean", for decoders, whose first token
            has seen no other.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or the pooling unknown; at the call, the
            teacher or hidden states are missing, or student and teacher differ in width and there
            is no learned map.

    Notes:
        A variant of self-distilled pruning (O' Neill, Dutta, Assem 2021, arXiv 2109.15014), as
        recalled. The mean over features, so that the weight does not depend on the width, and mean
        pooling are choices made here.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, None, hidden_states=(torch.tensor([[[1.0, 0.0], [9.0, 9.0]]]),))
        >>> teacher = Pass(model, None, hidden_states=(torch.tensor([[[0.0, 0.0], [0.0, 0.0]]]),))
        >>> float(RepresentationMSE()(student, teacher, {"attention_mask": torch.tensor([[1, 1]])}))
        0.5
    """

    name: str = "representation_mse"

    def _loss(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (s - t).square().mean()


@dataclass(frozen=True)
class RepresentationCosine(_OfTexts):
    """Cosine distance between the student's and the teacher's representation of each text.

    The mean over texts of 1 - cos(student, teacher), 0 to 2, of the representations z that
    `RepresentationMSE` takes. Their lengths play no part. A representation of zeros has the cosine
    0 with any other.

    Args:
        weight, pooling, name: as for `RepresentationMSE`.

    Raises:
        InputError: as for `RepresentationMSE`.

    Notes:
        A variant of self-distilled pruning (O' Neill, Dutta, Assem 2021, arXiv 2109.15014), as
        recalled. Mean pooling is a choice made here.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, None, hidden_states=(torch.tensor([[[3.0, 4.0]]]),))
        >>> teacher = Pass(model, None, hidden_states=(torch.tensor([[[2.0, 0.0]]]),))
        >>> one = {"attention_mask": torch.tensor([[1]])}
        >>> round(float(RepresentationCosine()(student, teacher, one)), 3)
        0.4
    """

    name: str = "representation_cosine"

    def _loss(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (1 - cosines(s, t)).mean()


@dataclass(frozen=True)
class CrossCorrelation(_OfTexts):
    """Distance of the correlations of the student's and the teacher's features from the identity.

    C_ij is the correlation over the batch of feature i of the student with feature j of the
    teacher, both of the representations z that `RepresentationMSE` takes. The loss is, with d
    features, [sum_i (1 - C_ii)^2 + off_diagonal sum_i sum_{j != i} C_ij^2] / d: 0 where each
    feature of the student is that of the teacher up to a positive scale and a shift, and the
    teacher's features are uncorrelated. It is not 0 for a student equal to a teacher whose features
    are correlated: that part asks for less redundancy.

    Args:
        weight: what the loss is multiplied by.
        pooling: "first", which heads of encoders read, or "mean", for decoders, whose first token
            has seen no other.
        name: what it is logged under.
        off_diagonal: what a squared correlation of two different features counts, at least 0.
        center: take the means over the batch from the features first; without, C_ij is a cosine.

    Raises:
        InputError: as for `RepresentationMSE`, or `off_diagonal` is negative or not finite.

    Notes:
        The variant of self-distilled pruning that gives it its name (O' Neill, Dutta, Assem 2021,
        arXiv 2109.15014), form as recalled. Correlations of a small batch are mostly chance, an
        off-diagonal C_ij^2 about 1 / (texts): use 32 texts or more; accumulating gradients does not
        make a batch larger here. In a batch of one text, centred, the loss is 1. The reference page
        says which choices were made here, and what constant features do.

    See also:
        `RepresentationCosine`, `Relational`

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> z = z[:, None]  # (text, token, feature)
        >>> student, teacher = (Pass(model, None, hidden_states=(x,)) for x in (2 * z + 3, z))
        >>> float(CrossCorrelation()(student, teacher, {"attention_mask": torch.ones(4, 1)}))
        0.0
    """

    name: str = "cross_correlation"
    off_diagonal: float = 5e-3
    center: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.name, "off_diagonal", self.off_diagonal, least=0)

    def _loss(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.autocast(s.device.type, enabled=False):  # which would round the correlations to three digits
            correlation = self._scaled(s).T @ self._scaled(t)
        diagonal = correlation.diagonal()
        off = correlation - diagonal.diag()
        total = (1 - diagonal).square().sum() + self.off_diagonal * off.square().sum()
        return total / len(diagonal)

    def _scaled(self, z: torch.Tensor) -> torch.Tensor:
        """Bring features (text, feature) to mean 0 and length 1 over texts, constant ones to 0."""
        centred = z - z.mean(0) if self.center else z
        length = torch.linalg.vector_norm(centred, dim=0)
        rounding = 10 * torch.finfo(z.dtype).eps * torch.linalg.vector_norm(z.detach(), dim=0)
        return centred / length.where(length > rounding, math.inf)


@dataclass(frozen=True)
class Relational(_OfTexts):
    """Difference of how the texts of a batch lie to each other for student and teacher.

    Of the representations z that `RepresentationMSE` takes, for both models: the distances |z_i -
    z_j| over their mean in the batch, of all pairs of texts, and the cosines of the angles at z_j
    between z_i and z_k, of all triples of texts. The loss is distance times the mean over pairs,
    plus angle times the mean over triples, of the Huber loss of the student's minus the teacher's:
    d^2 / 2 up to |d| = 1, and |d| - 1/2 beyond. Scale, shift and rotation of either play no part,
    and they may differ in width without a learned map.

    Args:
        weight: what the loss is multiplied by.
        pooling: "first", which heads of encoders read, or "mean", for decoders, whose first token
            has seen no other.
        name: what it is logged under.
        distance: what the distances count, at least 0.
        angle: what the angles count, at least 0.

    Raises:
        InputError: as for `RepresentationMSE`, but for the width; `distance` or `angle` is negative
            or not finite.

    Notes:
        Park, Kim, Lu and Cho 2019, arXiv 1904.05068; that angles count twice as much as distances,
        as recalled. Means over pairs and triples of different texts are a choice made here: copies
        of one text, whose angle or distance is 0 without a direction, have the cosine 0, and get no
        gradient. Of n texts there are n^3 angles: a batch of some hundred is as far as memory goes.
        A batch of one text has the loss 0, of two no angles.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> z = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> flat = torch.tensor([[0.0], [3.0], [4.0]])
        >>> states = (x[:, None] for x in (flat, 7 * z + 1))  # (text, token, feature)
        >>> student, teacher = (Pass(model, None, hidden_states=(x,)) for x in states)
        >>> one, loss = {"attention_mask": torch.ones(3, 1)}, Relational()
        >>> float(loss(teacher, teacher, one)), round(float(loss(student, teacher, one)), 3)
        (0.0, 1.273)
    """

    name: str = "relational"
    distance: float = 1.0
    angle: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.name, "distance", self.distance, least=0)
        check_number(self.name, "angle", self.angle, least=0)

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Rows, seed: int) -> torch.nn.Module:
        """Return an empty module: there is nothing to learn."""
        return torch.nn.Module()

    def _comparable(
        self, s: torch.Tensor, t: torch.Tensor, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return s, t

    def _loss(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        n = len(s)
        other = ~torch.eye(n, dtype=torch.bool, device=s.device)
        with torch.autocast(s.device.type, enabled=False):
            (s_distance, s_cosine), (t_distance, t_cosine) = (self._relations(z) for z in (s, t))
        pairs = F.huber_loss(s_distance[other], t_distance[other], reduction="sum") / max(n * (n - 1), 1)
        # At the first text of three, the second and third are others, and different.
        three = other[:, :, None] & other[:, None, :] & other[None, :, :]
        triples = F.huber_loss(s_cosine[three], t_cosine[three], reduction="sum") / max(n * (n - 1) * (n - 2), 1)
        return self.distance * pairs + self.angle * triples

    def _relations(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return distances over their mean (text, text) and cosines at each text (3 times text)."""
        difference = z[None] - z[:, None]
        squares = difference.square().sum(2)
        apart = squares > 0
        distance = squares.where(apart, 1).sqrt().where(apart, 0)  # whose gradient is finite at 0
        pairs = max(len(z) * (len(z) - 1), 1)
        mean = distance.sum() / pairs
        unit = difference / distance.where(apart, 1)[..., None]
        return distance / mean.where(mean > 0, 1), unit @ unit.transpose(1, 2)
