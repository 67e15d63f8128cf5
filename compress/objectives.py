"""Objectives: what a model in training should come close to, its labels, its teacher or its former weights.

A training loop calls each objective once a batch with what student and teacher gave, and adds up what comes back:

    loss = sum(objective(student, teacher, batch) for objective in objectives)

An objective is any object with `name`, `weight`, `needs` and such a call, see `Objective`. Those here compute in
float32 at least, whatever the models compute in. No gradient reaches the teacher.

Where student and teacher differ in width, objectives that compare their features learn a linear map, with bias, of the
student's to the teacher's, one for each pair of layers that is compared; after the training it is gone.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from compress.matrices import block_matrices
from probes.errors import InputError

NEEDS = frozenset({"labels", "teacher", "hidden_states", "attentions", "attention_outputs"})
IGNORED = -100  # the label of a token that has none

# What layers have to compare, in words, and how a model is made to give it.
_HOW = {
    "hidden_states": ("hidden states", "call it with output_hidden_states=True"),
    "attentions": (
        "attention maps",
        'call it with output_attentions=True after model.set_attn_implementation("eager"); no other implementation '
        "returns them",
    ),
    "attention_outputs": ("attention outputs", "call it within watching_attention(model)"),
}
# Attention output projections, whose input is what the heads give, side by side: BERT and its kin, DistilBERT, GPT-2,
# Llama and its kin.
_PROJECTION = re.compile(r"\.(attention\.output\.dense|attention\.out_lin|attn\.c_proj|self_attn\.o_proj)$")


@dataclass(frozen=True)
class Pass:
    """What a model gave for one batch.

    Attributes:
        model: the model itself, without what a training loop wraps around it.
        logits: (batch, class), or (batch, token, class) of a model that labels or predicts tokens; None without a head.
        hidden_states: (batch, token, feature) of the embeddings and after each block, where they were asked for.
        attentions: (batch, head, token, token), probabilities of each block, where they were asked for.
        attention_outputs: (batch, token, heads * size) of each block, what its heads give, side by side, before the
            output projection, where they were asked for; `watching_attention` collects them.
    """

    model: PreTrainedModel
    logits: torch.Tensor | None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_outputs: tuple[torch.Tensor, ...] | None = None


class Objective(Protocol):
    """What a training loop asks of an objective.

    It may also have a method `check(student, teacher)` of two models, the teacher None where there is none, that raises
    `InputError` where it cannot work with them; `check` of this module calls it.

    An objective that learns or remembers something has a method `prepare(student, teacher, rows, seed)`, which
    `compress.training.train` calls once before the first step, with both models in evaluation mode and on their device
    (the teacher None where there is none), the rows of `compress.training.training_rows`, and the seed of the training.
    It returns a `torch.nn.Module`: its parameters are trained beside the student's, by the learning rate of the
    training or the objective's attribute `learning_rate`, and its buffers are kept in checkpoints with them. At each
    call `batch["modules"][name]` is that module, and `batch["index"]` (batch,) says which of the rows the texts are.
    The objective itself stays as it is, and can be used again.

    Under `torchrun` each process calls it on the whole of every batch, so that what it remembers is the same in all of
    them, as long as it draws from a generator of its own, seeded by `seed` and what the module holds.
    """

    @property
    def name(self) -> str:
        """What its values are logged under."""

    @property
    def weight(self) -> float:
        """What its loss is multiplied by, at least 0."""

    @property
    def needs(self) -> frozenset[str]:
        """What the loop must provide beside the logits: any of `NEEDS`."""

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch, a scalar, times `weight`."""


def check(
    objectives: Sequence[Objective], student: PreTrainedModel, teacher: PreTrainedModel | None, labelled: bool
) -> None:
    """Raise where objectives cannot work with two models and the data, before any training.

    Args:
        objectives: what the student is to be trained on.
        student: the model to be trained.
        teacher: the model it learns from, where there is one.
        labelled: whether the data has labels.

    Raises:
        InputError: there are no objectives; two have one name; a weight is negative or not finite; labels or a teacher
            are needed and there are none; student and teacher differ in classes, or lack layers, where an objective
            compares them, or are of an architecture whose attention outputs are not known; a reference lacks a matrix
            or has it in another shape.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> check([CrossEntropy(), SoftLabels(weight=0.5)], model, None, labelled=True)
        Traceback (most recent call last):
        probes.errors.InputError: objective soft_labels needs a teacher, found none: give one, or leave it out
    """
    for role, model in (("student", student), ("teacher", teacher)):
        if model is not None and not isinstance(model, PreTrainedModel):
            raise InputError(f"the {role} is a {type(model).__name__}: expected a model of transformers")
    if not objectives:
        raise InputError("expected at least one objective, found none: without one there is nothing to train on")
    names = [objective.name for objective in objectives]
    for objective in objectives:
        name = objective.name
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} objectives are named {name}: give each its own name, with name=...")
        check_number(name, "weight", objective.weight, least=0)
        if unknown := sorted(objective.needs - NEEDS):
            raise InputError(f"objective {name} needs {unknown}: expected any of {sorted(NEEDS)}")
        if "labels" in objective.needs and not labelled:
            raise InputError(f"objective {name} needs labels, the data has none: add a label column, or leave it out")
        if "teacher" in objective.needs and teacher is None:
            raise InputError(f"objective {name} needs a teacher, found none: give one, or leave it out")
        if (own_check := getattr(objective, "check", None)) is not None:
            own_check(student, teacher)


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the logits with the labels, the mean over texts or tokens.

    -log softmax(logits)[label], in nats. Tokens with the label -100 are left out; a batch without any other gives 0. A
    model that predicts the next token is compared to its labels one further, as transformers does itself.

    Args:
        weight: what the loss is multiplied by.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite; at the call, logits or labels are missing, or the labels are
            not whole numbers, one to each text or token. A label that is no class of the head is PyTorch's to refuse.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, logits=torch.zeros(2, 6))
        >>> round(float(CrossEntropy()(student, None, {"labels": torch.tensor([0, 5])})), 3)  # log 6
        1.792
    """

    weight: float = 1.0
    name: str = "cross_entropy"
    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student does not tell classes apart."""
        check_classes(self.name, student)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch with `labels` (batch,) or (batch, token), times the weight."""
        logits, labels = given_logits(student, self.name), given_entry(batch, "labels", self.name)
        if labels.shape != logits.shape[:-1] or labels.is_floating_point():
            raise InputError(
                f"objective {self.name}: expected labels of whole numbers of shape {tuple(logits.shape[:-1])}, found "
                f"{labels.dtype} of shape {tuple(labels.shape)}: give one class to each text or token"
            )
        if logits.ndim == 3 and student.model.can_generate() and not student.model.config.is_encoder_decoder:
            logits, labels = logits[:, :-1], labels[:, 1:]
        total = F.cross_entropy(logits.flatten(0, -2), labels.flatten().long(), ignore_index=IGNORED, reduction="sum")
        return self.weight * total / (labels != IGNORED).sum().clamp_min(1)


@dataclass(frozen=True)
class SoftLabels:
    """Divergence of the student's class probabilities from the teacher's, both softened by a temperature.

    temperature^2 KL(softmax(teacher / temperature) || softmax(student / temperature)), in nats, the mean over texts, or
    over the tokens that are not padding.

    Args:
        weight: what the loss is multiplied by.
        temperature: above 0. The larger, the more the logits of unlikely classes count: towards infinity the loss
            becomes half the variance, over the classes, of the difference between the logits.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or the temperature not above 0; at the call, the teacher or
            logits are missing, or those of student and teacher differ in shape.

    Notes:
        Hinton, Vinyals and Dean 2015, arXiv 1503.02531; the divergence of self-distilled pruning (O' Neill, Dutta,
        Assem 2021, arXiv 2109.15014) is `CrossEntropy(weight=1 - a)` and `SoftLabels(weight=a)`, as recalled. The
        gradient is that of the cross-entropy with the teacher's probabilities as labels, which only adds the teacher's
        entropy. The code of sparse progressive distillation (arXiv 2110.08190) and SparseBERT (arXiv 2104.08682) takes
        the mean of that over texts and classes without temperature^2: `weight=1 / (classes * temperature**2)` here.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student, teacher = Pass(model, torch.tensor([[0.0, 0.0]])), Pass(model, torch.tensor([[0.0, 2.0]]))
        >>> round(float(SoftLabels(temperature=2)(student, teacher, {})), 3)
        0.444
    """

    weight: float = 1.0
    temperature: float = 1.0
    name: str = "soft_labels"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_number(self.name, "temperature", self.temperature, above=0)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where student and teacher do not have the same classes in the same order."""
        check_classes(self.name, student)
        check_classes(self.name, teacher)
        if (found := _classes(student)) != (expected := _classes(teacher)):
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
        """Return the loss of a batch, times the weight; `attention_mask` is used where tokens have logits."""
        s, t = given_logits(student, self.name), given_logits(given_teacher(teacher, self.name), self.name).detach()
        check_shapes(self.name, "logits", s, t)
        count: float | torch.Tensor = len(s)
        if s.ndim == 3:
            attended = attended_tokens(batch, s, self.name)
            s, t = (logits.masked_fill(~attended[..., None], 0) for logits in (s, t))  # no difference there
            count = attended.sum().clamp_min(1)
        s, t = (F.log_softmax(logits / self.temperature, dim=-1) for logits in (s, t))
        mean = F.kl_div(s, t, reduction="sum", log_target=True) / count
        return self.weight * self.temperature**2 * mean


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

    def prepare(
        self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Sequence[Mapping[str, Any]], seed: int
    ) -> torch.nn.Module:
        """Return the map of the student's features to the teacher's, where they differ in width."""
        return _projections_of([size_of(student, "hidden_size")], [size_of(teacher, "hidden_size")], [(0, 0)])

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
        s = _projected(s, 0, self.name, batch)
        check_shapes(self.name, "hidden states", s, t)
        return s, t

    def _loss(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class RepresentationMSE(_OfTexts):
    """Mean squared difference between the student's and the teacher's representation of each text.

    The representation z is the last hidden state of the first token, or the mean over the tokens that are not padding;
    the loss is the mean over texts and features of (student - teacher)^2, in squared units of the hidden states.

    Args:
        weight: what the loss is multiplied by.
        pooling: "first", which heads of encoders read, or "mean", for decoders, whose first token has seen no other.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or the pooling unknown; at the call, the teacher or hidden
            states are missing, or student and teacher differ in width and there is no learned map.

    Notes:
        A variant of self-distilled pruning (O' Neill, Dutta, Assem 2021, arXiv 2109.15014), as recalled. The mean over
        features, so that the weight does not depend on the width, and mean pooling are choices made here.

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

    The mean over texts of 1 - cos(student, teacher), 0 to 2, of the representations z that `RepresentationMSE` takes.
    Their lengths play no part. A representation of zeros has the cosine 0 with any other.

    Args:
        weight: what the loss is multiplied by.
        pooling: "first", which heads of encoders read, or "mean", for decoders, whose first token has seen no other.
        name: what it is logged under.

    Raises:
        InputError: as for `RepresentationMSE`.

    Notes:
        A variant of self-distilled pruning (O' Neill, Dutta, Assem 2021, arXiv 2109.15014), as recalled. Mean pooling
        is a choice made here.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, None, hidden_states=(torch.tensor([[[3.0, 4.0]]]),))
        >>> teacher = Pass(model, None, hidden_states=(torch.tensor([[[2.0, 0.0]]]),))
        >>> round(float(RepresentationCosine()(student, teacher, {"attention_mask": torch.tensor([[1]])})), 3)
        0.4
    """

    name: str = "representation_cosine"

    def _loss(self, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (1 - _cosines(s, t)).mean()


@dataclass(frozen=True)
class CrossCorrelation(_OfTexts):
    """Distance of the correlations between the student's and the teacher's features from the identity.

    C_ij is the correlation over the batch of feature i of the student with feature j of the teacher, both of the
    representations z that `RepresentationMSE` takes. The loss is, with d features,
    [sum_i (1 - C_ii)^2 + off_diagonal sum_i sum_{j != i} C_ij^2] / d: 0 where each feature of the student is that of
    the teacher up to a positive scale and a shift, and the teacher's features are uncorrelated. It is not 0 for a
    student equal to a teacher whose features are correlated: that part asks for less redundancy.

    Args:
        weight: what the loss is multiplied by.
        pooling: "first", which heads of encoders read, or "mean", for decoders, whose first token has seen no other.
        name: what it is logged under.
        off_diagonal: what a squared correlation of two different features counts, at least 0.
        center: take the means over the batch from the features first; without, C_ij is a cosine.

    Raises:
        InputError: as for `RepresentationMSE`, or `off_diagonal` is negative or not finite.

    Notes:
        The variant of self-distilled pruning that gives it its name (O' Neill, Dutta, Assem 2021, arXiv 2109.15014),
        form as recalled. Choices made here: off_diagonal=0.005 and centring as in Barlow Twins (Zbontar, Jing, Misra,
        LeCun, Deny 2021, arXiv 2103.03230), and dividing by d, so that the weight does not depend on the width.
        Correlations of a small batch are mostly chance, an off-diagonal C_ij^2 about 1 / (texts): use 32 texts or more;
        accumulating gradients does not make a batch larger here. A feature that is constant over the batch correlates
        with nothing and gets no gradient; in a batch of one text, centred, that is all of them: the loss is 1.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])[:, None]  # (text, token, feature)
        >>> student, teacher = Pass(model, None, hidden_states=(2 * z + 3,)), Pass(model, None, hidden_states=(z,))
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
        """Bring the features (text, feature) to mean 0 and length 1 over the texts, and constant ones to zeros."""
        centred = z - z.mean(0) if self.center else z
        length = torch.linalg.vector_norm(centred, dim=0)
        rounding = 10 * torch.finfo(z.dtype).eps * torch.linalg.vector_norm(z.detach(), dim=0)
        return centred / length.where(length > rounding, math.inf)


@dataclass(frozen=True)
class Relational(_OfTexts):
    """Difference between how the texts of a batch lie to each other for the student and for the teacher.

    Of the representations z that `RepresentationMSE` takes, for both models: the distances |z_i - z_j| over their mean
    in the batch, of all pairs of texts, and the cosines of the angles at z_j between z_i and z_k, of all triples of
    texts. The loss is distance times the mean over pairs, plus angle times the mean over triples, of the Huber loss of
    the student's minus the teacher's: d^2 / 2 up to |d| = 1, and |d| - 1/2 beyond. Scale, shift and rotation of either
    play no part, and they may differ in width without a learned map.

    Args:
        weight: what the loss is multiplied by.
        pooling: "first", which heads of encoders read, or "mean", for decoders, whose first token has seen no other.
        name: what it is logged under.
        distance: what the distances count, at least 0.
        angle: what the angles count, at least 0.

    Raises:
        InputError: as for `RepresentationMSE`, but for the width; `distance` or `angle` is negative or not finite.

    Notes:
        Park, Kim, Lu and Cho 2019, arXiv 1904.05068; that angles count twice as much as distances, as recalled. Means
        over pairs and triples of different texts are a choice made here: copies of one text, whose angle or distance
        is 0 without a direction, have the cosine 0, and get no gradient. Of n texts there are n^3 angles: a batch of
        some hundred is as far as memory goes. A batch of one text has the loss 0, of two no angles.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> z = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])[:, None]  # (text, token, feature)
        >>> flat = torch.tensor([[0.0], [3.0], [4.0]])[:, None]
        >>> student, teacher = Pass(model, None, hidden_states=(flat,)), Pass(model, None, hidden_states=(7 * z + 1,))
        >>> one = {"attention_mask": torch.ones(3, 1)}
        >>> float(Relational()(teacher, teacher, one)), round(float(Relational()(student, teacher, one)), 3)
        (0.0, 1.273)
    """

    name: str = "relational"
    distance: float = 1.0
    angle: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.name, "distance", self.distance, least=0)
        check_number(self.name, "angle", self.angle, least=0)

    def prepare(
        self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Sequence[Mapping[str, Any]], seed: int
    ) -> torch.nn.Module:
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
        """Return distances over their mean (text, text), and cosines at each text (text, text, text)."""
        difference = z[None] - z[:, None]
        squares = difference.square().sum(2)
        apart = squares > 0
        distance = squares.where(apart, 1).sqrt().where(apart, 0)  # whose gradient is finite at 0
        pairs = max(len(z) * (len(z) - 1), 1)
        mean = distance.sum() / pairs
        unit = difference / distance.where(apart, 1)[..., None]
        return distance / mean.where(mean > 0, 1), unit @ unit.transpose(1, 2)


@dataclass(frozen=True)
class _ByLayer:
    """What objectives that compare layer by layer share: the mean over layers of the mean squared difference."""

    weight: float = 1.0
    layers: Mapping[int, int] | None = None
    name: str = ""
    what: ClassVar[str]  # the attribute of `Pass` that is compared
    first: ClassVar[int] = 0  # how many layers stand before that of the first block

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher", self.what})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        if self.layers is not None and not self.layers:
            raise InputError(
                f"objective {self.name}: layers is empty: give a layer of the teacher for each of the student's"
            )

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where student or teacher lack a layer that is compared."""
        self._pairs(len(self._sizes(student)), len(self._sizes(teacher)))

    def prepare(
        self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Sequence[Mapping[str, Any]], seed: int
    ) -> torch.nn.Module:
        """Return the maps of what the student gives to what the teacher gives, where they differ in size."""
        s, t = self._sizes(student), self._sizes(teacher)
        return _projections_of(s, t, self._pairs(len(s), len(t)), bias=self.what != "attentions")

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `attention_mask` (batch, token), times the weight."""
        s, t = (given_layers(p, self.what, self.name) for p in (student, given_teacher(teacher, self.name)))
        each = []
        for i, j in self._pairs(len(s), len(t)):
            mine = self._mapped(wide(s[i]), i, batch)
            check_shapes(self.name, _HOW[self.what][0], mine, t[j])
            there = self._there(batch, mine)
            squares = (mine - wide(t[j]).detach()).masked_fill(~there, 0).square()
            each.append(squares.sum() / (there.sum().clamp_min(1) * (squares.numel() // there.numel())))
        return self.weight * torch.stack(each).mean()

    def _sizes(self, model: PreTrainedModel) -> list[int]:
        """Return how many features, or heads, each layer gives."""
        raise NotImplementedError

    def _pairs(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Return which of so many layers of the student is compared to which of the teacher's."""
        return layer_pairs(self.name, student, teacher, self.layers, self.first)

    def _mapped(self, x: torch.Tensor, layer: int, batch: Mapping[str, Any]) -> torch.Tensor:
        """Map what a layer of the student gives to the size of the teacher's."""
        return _projected(x, layer, self.name, batch)

    def _there(self, batch: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Mark what is not padding in a layer's (batch, token, feature)."""
        return attended_tokens(batch, x, self.name)[..., None]


@dataclass(frozen=True)
class HiddenStates(_ByLayer):
    """Mean squared difference between the student's and the teacher's hidden states, layer by layer.

    The mean over layers, embeddings included, of the mean over features and over the tokens that are not padding of
    (student - teacher)^2, in squared units of the hidden states.

    Args:
        weight: what the loss is multiplied by.
        layers: the teacher's layer for each layer of the student that is compared, 0 the embeddings, i the states after
            block i; `compress.match_layers` proposes one. Without it all layers of the student, uniformly: with s
            blocks, i to the teacher's i t / s of t, rounded.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or `layers` is empty; at the check and the call, layers are
            compared that student or teacher do not have, or the student has more than the teacher and no `layers`; at
            the call, the teacher or hidden states are missing, or they differ in width and there is no learned map.

    Notes:
        As in self-distilled quantization (O' Neill and Dutta 2023, arXiv 2307.05972), as recalled. Sparse progressive
        distillation (arXiv 2110.08190) and SparseBERT (arXiv 2104.08682) sum over the layers, which is a weight of the
        number of layers here, and their code takes the mean over padding as well. A learned map of its own for each
        layer, where the widths differ, and the uniform map are choices made here.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, None, hidden_states=(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
        >>> teacher = Pass(model, None, hidden_states=(torch.zeros(1, 2, 4), torch.ones(1, 2, 4)))
        >>> float(HiddenStates()(student, teacher, {"attention_mask": torch.tensor([[1, 0]])}))
        0.5
    """

    name: str = "hidden_states"
    what: ClassVar[str] = "hidden_states"
    first: ClassVar[int] = 1

    def _sizes(self, model: PreTrainedModel) -> list[int]:
        return [size_of(model, "hidden_size")] * (1 + size_of(model, "num_hidden_layers"))


@dataclass(frozen=True)
class Attentions(_ByLayer):
    """Mean squared difference between the student's and the teacher's attention maps, layer by layer.

    The mean over blocks of the mean over heads and over pairs of tokens, of which neither is padding, of
    (student - teacher)^2; the maps are probabilities, so the loss has no unit and lies between 0 and 1.

    Args:
        weight: what the loss is multiplied by.
        layers: the teacher's block for each block of the student that is compared, 0 the first. Without it all blocks
            of the student, uniformly: with s blocks, i to the teacher's (i + 1) t / s - 1 of t, rounded.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or `layers` is empty; at the check and the call, blocks are
            compared that student or teacher do not have, or the student has more than the teacher and no `layers`; at
            the call, the teacher or attention maps are missing, or they differ in heads and there is no learned map.

    Notes:
        After sparse progressive distillation (Huang et al. 2022, arXiv 2110.08190) and SparseBERT (Xu, Yen, Zhao, Xiao
        2021, arXiv 2104.08682), whose code compares scores before the softmax, those of padding (-100 and less) set to
        0, and sums over the blocks. Models of transformers return probabilities, which are compared here, so a weight
        of those papers does not carry over. The pairs that a decoder masks, which are 0 in both, count in the mean.
        Where student and teacher differ in heads, each of the teacher's is compared to a learned linear mixture of the
        student's in that block, a choice made here.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, None, attentions=(torch.eye(2)[None, None],))  # each token sees itself
        >>> teacher = Pass(model, None, attentions=(torch.full((1, 1, 2, 2), 0.5),))
        >>> float(Attentions()(student, teacher, {"attention_mask": torch.tensor([[1, 1]])}))
        0.25
    """

    name: str = "attentions"
    what: ClassVar[str] = "attentions"

    def _sizes(self, model: PreTrainedModel) -> list[int]:
        return heads_of(model)

    def _mapped(self, x: torch.Tensor, layer: int, batch: Mapping[str, Any]) -> torch.Tensor:
        return _projected(x.movedim(1, -1), layer, self.name, batch).movedim(-1, 1)

    def _there(self, batch: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Mark the pairs of tokens, of which neither is padding, in a block's (batch, head, token, token)."""
        attended = attended_tokens(batch, x[:, 0], self.name)
        return (attended[:, :, None] & attended[:, None, :])[:, None]


@dataclass(frozen=True)
class AttentionOutputs(_ByLayer):
    """Mean squared difference between what the student's and the teacher's attention heads give, block by block.

    A[l, h] = softmax(Q K^T / sqrt(d)) V of head h in block l, before the output projection. The mean over blocks and
    heads of the mean over features and over the tokens that are not padding of (student - teacher)^2, in squared units
    of the values V. It works with any implementation of attention.

    Args:
        weight: what the loss is multiplied by.
        layers: the teacher's block for each block of the student that is compared, 0 the first. Without it all blocks
            of the student, uniformly: with s blocks, i to the teacher's (i + 1) t / s - 1 of t, rounded.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, or `layers` is empty; at the check, the attention outputs of
            the architecture are not known; at the check and the call, blocks are compared that student or teacher do
            not have, or the student has more than the teacher and no `layers`; at the call, the teacher or attention
            outputs are missing, or they differ in heads times their size and there is no learned map.

    Notes:
        The loss of self-distilled quantization (O' Neill and Dutta 2023, arXiv 2307.05972), where it is added to
        `CrossEntropy` and `SoftLabels`; form as recalled. Leaving out padding and `layers` are choices made here. Heads
        of one block have one size, so the mean over heads is one over all their features side by side; that is what is
        compared where student and teacher split the same width into heads of different number.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> student = Pass(model, None, attention_outputs=(torch.zeros(1, 2, 4),))
        >>> teacher = Pass(model, None, attention_outputs=(torch.ones(1, 2, 4),))
        >>> float(AttentionOutputs()(student, teacher, {"attention_mask": torch.tensor([[1, 0]])}))
        1.0
    """

    name: str = "attention_outputs"
    what: ClassVar[str] = "attention_outputs"

    def _sizes(self, model: PreTrainedModel) -> list[int]:
        return [_width(module) for module in _projections(model)]


@contextmanager
def watching_attention(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect what the attention heads of each block give while a model runs: (batch, token, heads * size).

    Args:
        model: a model of the BERT, DistilBERT, GPT-2 or Llama family; nothing of it is changed, and nothing is watched
            any more afterwards.

    Returns:
        A list that a forward pass fills, one entry a block.

    Raises:
        InputError: the architecture is not known.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> with watching_attention(model) as seen:
        ...     _ = model(torch.tensor([[1, 2, 3]]))
        >>> len(seen), seen[0].shape
        (6, torch.Size([1, 3, 128]))
    """
    seen: list[torch.Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for module in _projections(model)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _projections(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the attention output projection of each block."""
    found = [module for name, module in model.named_modules() if _PROJECTION.search(name)]
    blocks = size_of(model, "num_hidden_layers")
    if len(found) != blocks or model.config.is_encoder_decoder:
        raise InputError(
            f"{type(model).__name__}: the attention outputs of this architecture are not known: expected an attention "
            f"output projection named as in BERT, DistilBERT, GPT-2 or Llama in each of {blocks} blocks, found "
            f"{len(found)}. Compare hidden states in their place"
        )
    return found


def _width(module: torch.nn.Module) -> int:
    """Return how many features a linear map reads."""
    # Conv1D, of GPT-2, has its inputs first and does not name them as Linear does.
    found: Any = module.weight.shape[0] if isinstance(module, Conv1D) else module.in_features
    return int(found)


@dataclass(frozen=True)
class AlignedWeights:
    """Distance of a model's surviving weights from those of a reference, such as the model before it was pruned.

    With w_i a row of a matrix W, the weights of one output unit, and w0_i and W0 those of the reference: "cosine" is
    the mean over rows of 1 - cos(w_i, w0_i), 0 to 2, whatever the scale of each unit; "frobenius" is
    ||W - W0|| / ||W0||, 0 where they are equal. The loss is the mean over the matrices.

    A weight that is exactly 0 counts as pruned: it gets no gradient from here. A row that is pruned as a whole has the
    cosine 0. Rows, and for "frobenius" matrices, that are zero in the reference have nothing to align with and count
    nothing.

    Args:
        reference: a model, or tensors by name. A copy is kept, so it may be the model that is trained. It may have
            another head than the model in training, or none.
        form: "cosine" or "frobenius".
        weight: what the loss is multiplied by.
        matrices: names of parameters of the model in training; without it, the matrices of its blocks that
            `compress.prune` prunes.
        name: what it is logged under, by default "aligned_weights_" and the form.

    Raises:
        InputError: the weight is negative or not finite, or the form unknown; at the check and the call, the model has
            no such matrices, or the reference lacks one or has it in another shape.

    Notes:
        O' Neill, Dutta and Assem 2022, arXiv 2204.01385: two regularisers that keep the units of a pruned network
        aligned with those of the unpruned one. The formulas are choices made here after their names; "frobenius" is
        relative, so that one weight suits all layers. The reference is the fine-tuned model, as recalled; the
        pretrained one can be given instead. With W = W0 but for pruned entries, each cosine is the square root of the
        share of the row's energy that is kept, and the distance that of the share of the matrix's that is lost.

    Example:
        >>> import probes
        >>> from compress import prune
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> aligned = AlignedWeights(model, form="frobenius")
        >>> aligned(Pass(model, None), None, {}).item()
        0.0
        >>> pruned = prune(model, sparsity=0.6)
        >>> 0.1 < aligned(Pass(pruned, None), None, {}).item() < 0.6
        True
    """

    reference: InitVar[PreTrainedModel | Mapping[str, torch.Tensor]]
    form: Literal["cosine", "frobenius"] = "cosine"
    weight: float = 1.0
    matrices: Sequence[str] | None = None
    name: str = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    _kept: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self, reference: PreTrainedModel | Mapping[str, torch.Tensor]) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"aligned_weights_{self.form}")
        check_number(self.name, "weight", self.weight, least=0)
        check_choice(self.name, "form", self.form, ("cosine", "frobenius"))
        if isinstance(self.matrices, str) or (self.matrices is not None and not self.matrices):
            raise InputError(f"objective {self.name}: matrices={self.matrices!r}: expected a list of names, or None")
        tensors: Mapping[str, torch.Tensor]
        if not isinstance(reference, PreTrainedModel):
            tensors = reference
        elif self.matrices is None:
            tensors = block_matrices(reference)
        else:
            every, prefix = dict(reference.named_parameters()), reference.base_model_prefix
            found = [_known_as(name, prefix, every) for name in self.matrices]
            tensors = {name: every[name] for name in found if name is not None}
        self._kept.update({name: tensor.detach().clone() for name, tensor in tensors.items()})

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student has no such matrices, or the reference other ones."""
        for _ in self._matrices(student):
            pass

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of the student's weights as they are, times the weight; the batch plays no part."""
        each = []
        for weight, reference in self._matrices(student.model):
            w = weight.masked_fill(weight == 0, 0)  # what is pruned gets no gradient
            w, w0 = wide(w), reference.to(wide(w).dtype)
            if self.form == "cosine":
                there = (w0 != 0).any(1)
                each.append((1 - _cosines(w, w0)).where(there, 0).sum() / there.sum().clamp_min(1))
            else:
                size = torch.linalg.vector_norm(w0)
                each.append(torch.linalg.vector_norm(w - w0) / size.where(size > 0, math.inf))
        return self.weight * torch.stack(each).mean()

    def _matrices(self, model: PreTrainedModel) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield each matrix and its reference on the same device, one row an output unit."""
        parameters = dict(model.named_parameters())
        names = list(block_matrices(model)) if self.matrices is None else self.matrices
        if not names:
            raise InputError(f"objective {self.name}: {type(model).__name__} has no matrices in blocks: give matrices=")
        for name in names:
            if name not in parameters or parameters[name].ndim != 2:
                raise InputError(
                    f"objective {self.name}: {type(model).__name__} has no matrix {name}: expected names of its "
                    f"parameters of two dimensions, such as {next(iter(block_matrices(model)), 'none')}"
                )
            weight: torch.Tensor = parameters[name]
            known = _known_as(name, model.base_model_prefix, self._kept)
            if known is None:
                raise InputError(
                    f"objective {self.name}: the reference has no matrix {name}: give one of the model's architecture"
                )
            reference = self._kept[known]
            if reference.shape != weight.shape:
                raise InputError(
                    f"objective {self.name}: {name} has shape {tuple(weight.shape)}, in the reference "
                    f"{tuple(reference.shape)}: expected the same"
                )
            if reference.device != weight.device:
                reference = self._kept[known] = reference.to(weight.device)
            if isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D):
                weight, reference = weight.T, reference.T
            yield weight, reference


def _known_as(name: str, prefix: str, among: Mapping[str, torch.Tensor]) -> str | None:
    """Return what a parameter is called among others, with or without the name of the model below the head."""
    bare = name.removeprefix(f"{prefix}.")
    return next((known for known in (name, bare, f"{prefix}.{bare}") if known in among), None)


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _cosines(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cosine of each row of x with that of y; 0, without a gradient that is not finite, where one is zero."""
    lengths = (torch.linalg.vector_norm(z, dim=1) for z in (x, y))
    x_length, y_length = (length.where(length > 0, 1) for length in lengths)
    return (x * y).sum(1) / (x_length * y_length)


def given_teacher(teacher: Pass | None, name: str) -> Pass:
    """Return what the teacher gave; raise where there is none."""
    if teacher is None:
        raise InputError(f"objective {name} needs a teacher, found none: give one, or leave it out")
    return teacher


def given_entry(batch: Mapping[str, torch.Tensor], key: str, name: str) -> torch.Tensor:
    """Return an entry of a batch; raise where there is none."""
    if batch.get(key) is None:
        raise InputError(f"objective {name}: the batch has no {key}, found {sorted(batch)}: add it")
    return batch[key]


def given_logits(given: Pass, name: str) -> torch.Tensor:
    """Return the logits a model gave, in float32 at least; raise where there are none."""
    if given.logits is None:
        raise InputError(
            f"objective {name}: {type(given.model).__name__} gave no logits: expected a model with a head of classes"
        )
    return wide(given.logits)


def given_layers(given: Pass, what: str, name: str) -> tuple[torch.Tensor, ...]:
    """Return what a model gave by layer: `hidden_states`, `attentions` or `attention_outputs`."""
    found: tuple[torch.Tensor, ...] | None = getattr(given, what)
    if not found or any(layer is None for layer in found):
        words, how = _HOW[what]
        raise InputError(f"objective {name}: {type(given.model).__name__} gave no {words}: {how}")
    return found


def attended_tokens(batch: Mapping[str, torch.Tensor], like: torch.Tensor, name: str) -> torch.Tensor:
    """Mark the tokens that are not padding: (batch, token), as the first two dimensions of another tensor."""
    mask = given_entry(batch, "attention_mask", name)
    if mask.shape != like.shape[:2]:
        raise InputError(
            f"objective {name}: expected an attention_mask of shape {tuple(like.shape[:2])}, one entry to each token, "
            f"found {tuple(mask.shape)}"
        )
    return mask.bool()


def uniform_layers(student: int, teacher: int) -> list[int]:
    """Return the teacher's layer, at most so many, for the layers 0 (embeddings), 1, ... of a student of some blocks.

    Example:
        >>> uniform_layers(2, 6), uniform_layers(3, 4)
        ([0, 3, 6], [0, 1, 3, 4])
    """
    # Halves up: of 5 blocks 2 stand for the 3rd and the 5th.
    return [(2 * i * teacher + student) // (2 * student) for i in range(student + 1)] if student else [0]


def layer_pairs(
    name: str, student: int, teacher: int, layers: Mapping[int, int] | None, first: int
) -> list[tuple[int, int]]:
    """Return which of so many layers of the student is compared to which of the teacher's.

    Of them `first`, 0 or 1, stand before that of the first block.
    """
    if layers is None:
        if student > teacher:
            raise InputError(
                f"objective {name}: the student has {student} layers to compare, the teacher {teacher}: say with "
                "layers= which of the teacher's each of the student's is compared to"
            )
        uniform = uniform_layers(student - first, teacher - first)
        return [(i, uniform[i + 1 - first] - 1 + first) for i in range(student)]
    for i, j in layers.items():
        if not (0 <= i < student and 0 <= j < teacher):
            raise InputError(
                f"objective {name}: layers has {i}: {j}: expected a layer of the student from 0 to {student - 1} "
                f"and one of the teacher from 0 to {teacher - 1}"
            )
    return list(layers.items())


def _projections_of(
    student: Sequence[int], teacher: Sequence[int], pairs: Sequence[tuple[int, int]], bias: bool = True
) -> torch.nn.ModuleDict:
    """Return a linear map for each layer of the student whose size is not that of the teacher's, by its number."""
    different = [(i, j) for i, j in pairs if student[i] != teacher[j]]
    return torch.nn.ModuleDict({str(i): torch.nn.Linear(student[i], teacher[j], bias) for i, j in different})


def _projected(x: torch.Tensor, layer: int, name: str, batch: Mapping[str, Any]) -> torch.Tensor:
    """Map the last dimension by what was learned for a layer of the student, if something was."""
    learned = batch.get("modules", {}).get(name)
    if learned is None or str(layer) not in learned:
        return x
    linear: Any = learned[str(layer)]
    mapped: torch.Tensor = linear(x.to(linear.weight.dtype))
    return mapped.to(x.dtype)


def size_of(model: PreTrainedModel, what: str) -> int:
    """Return a number of the configuration of the model that reads text, as "hidden_size"."""
    return int(getattr(model.config.get_text_config(), what))


def heads_of(model: PreTrainedModel) -> list[int]:
    """Return how many attention heads each block has, also where some were pruned."""
    kept: Sequence[int] | None = getattr(model.config, "heads_kept", None)
    whole = [size_of(model, "num_attention_heads")] * size_of(model, "num_hidden_layers")
    return whole if kept is None else list(kept)


def _classes(model: PreTrainedModel) -> int:
    return size_of(model, "vocab_size") if model.get_output_embeddings() is not None else model.config.num_labels or 0


def check_classes(name: str, model: PreTrainedModel) -> None:
    """Raise where a model does not tell classes apart."""
    if model.base_model is model:
        raise InputError(f"objective {name}: {type(model).__name__} has no head: expected a model that gives classes")
    if _classes(model) < 2:
        raise InputError(
            f"objective {name}: {type(model).__name__} gives {_classes(model)} number(s) a text or token: "
            "expected at least two classes"
        )


def check_shapes(name: str, what: str, student: torch.Tensor, teacher: torch.Tensor) -> None:
    """Raise where what student and teacher gave differs in shape."""
    if student.shape != teacher.shape:
        raise InputError(
            f"objective {name}: {what} of shape {tuple(student.shape)} by the student, {tuple(teacher.shape)} by the "
            "teacher: expected the same"
        )


def check_choice(name: str, setting: str, value: str, known: tuple[str, ...]) -> None:
    """Raise where a setting is none of the known words."""
    if value not in known:
        raise InputError(f"objective {name}: {setting}={value!r}: expected one of {known}")


def check_number(name: str, setting: str, value: float, *, least: float = -math.inf, above: float = -math.inf) -> None:
    """Raise where a setting is no finite number within its bounds."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or value < least or value <= above:
        bound = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
        raise InputError(f"objective {name}: {setting}={value!r}: expected a finite number {bound}")


def is_whole(value: object) -> bool:
    """Say whether something is a whole number, of Python or NumPy; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
