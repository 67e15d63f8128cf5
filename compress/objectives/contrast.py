"""Contrastive objectives: the student's representation of a text comes closer to the teacher's of
that text than to those of other texts, which a memory bank keeps from earlier batches.

Beside what `compress.objectives` says of objectives, these learn projections and remember latents:
`prepare` makes the module that holds both, a training loop optimises and saves it and hands it back
in `batch["modules"][name]`, together with the numbers of the training rows in `batch["index"]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from compress.objectives.base import (
    Pass,
    Rows,
    attended_tokens,
    check_choice,
    check_classes,
    check_number,
    given_layers,
    given_module,
    given_teacher,
    layer_pairs,
    pooled,
)
from compress.objectives.likeness import Similar, check_similar
from compress.objectives.memory import Memory, check_banked, pools_of
from probes.errors import InputError
from probes.models.facts import size_of


@dataclass(frozen=True)
class _Contrast:
    """What contrastive objectives share: two projections, and memory banks of what they gave."""

    weight: float = 1.0
    k: int = 100
    size: int = 128
    temperature: float = 0.07
    momentum: float = 0.5
    name: str = ""
    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "hidden_states"})
    kinds: ClassVar[frozenset[str]] = frozenset({"classes", "tokens"})

    def __post_init__(self) -> None:
        check_banked(self.name, self.weight, self.temperature, self.momentum, self.k, self.size)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch that has `index` and `modules`, times the weight."""
        memory = given_module(batch, self.name)
        s, t = self._summary(student, batch, 0), self._summary(given_teacher(teacher, self.name), batch, 1).detach()
        with torch.autocast(s.device.type, enabled=False):  # which would round the scores to three digits
            loss = self._loss(memory, memory.latents("student", s), memory.latents("teacher", t), batch)
        memory.batches += 1
        return self.weight * loss

    def _summary(self, given: Pass, batch: Mapping[str, Any], side: int) -> torch.Tensor:
        """Return what is projected (text, feature), of the student, side 0, or the teacher, 1."""
        raise NotImplementedError

    def _loss(self, memory: Memory, s: torch.Tensor, t: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        raise NotImplementedError

    def _two_sided(
        self,
        memory: Memory,
        s: torch.Tensor,
        t: torch.Tensor,
        rows: np.ndarray,
        drawn: np.ndarray,
        shares: np.ndarray | None = None,
    ) -> torch.Tensor:
        """Return the loss of either model against the other's bank, and bring both up to date.

        `shares` are those of the positive in a mixture with each of the first negatives, (text,
        mixture).
        """
        index = torch.from_numpy(np.column_stack([rows, drawn])).to(s.device)
        total = s.new_zeros(())
        for side, (anchor, bank) in enumerate(((s, memory.teacher_bank), (t, memory.student_bank))):
            kept = F.embedding(index, bank)  # several times faster than bank[index]
            scores = _scores(anchor, kept, self.temperature)
            if memory.batches == 0:
                every = scores.detach()
                memory.log_z[side] = every.logsumexp((0, 1)) - math.log(every.numel()) + math.log(len(bank))
            shift = memory.log_z[side] + math.log(self.k / len(bank))
            logs = F.logsigmoid(scores[:, 0] - shift) + F.logsigmoid(shift - scores[:, 1:]).sum(1)
            if shares is not None:
                share = torch.from_numpy(shares).to(kept)[..., None]
                mixed = F.normalize(share * kept[:, :1] + (1 - share) * kept[:, 1 : 1 + shares.shape[1]], dim=2)
                pseudo = F.logsigmoid(shift - _scores(anchor, mixed, self.temperature))
                logs = logs + ((1 - share[..., 0]) * pseudo).sum(1)
            total = total - logs.mean()
        memory.remember("student", index[:, 0], s, self.momentum)
        memory.remember("teacher", index[:, 0], t, self.momentum)
        return total


@dataclass(frozen=True)
class CoDIR(_Contrast):
    """Contrastive loss of the student's layers against the teacher's, negatives from a memory bank.

    The states of a text are pooled in each layer and put side by side; a linear map for each model
    and division by the length give g_S and g_T of `size` features. With g_k the negatives, texts of
    another label than the text's own, or any other text where there are no labels, the loss is the
    mean over texts of

        form="softmax": -log [ e_T / (e_T + sum_k e_k) ], e_j = exp(g_j.g_S / temperature)
        form="nce": -log(P_0 / (P_0 + k / N)) - sum_k log((k / N) / (P_k + k / N)),
            P_j = exp(v_j.g / temperature) / Z

    The first, in nats, has g_T of the teacher as it is now, and g_k from a bank of the teacher's
    latents. The second is half the sum over the student against the teacher's bank v and the
    teacher against the student's, with v_0 the text's own latent, N the training rows, and Z N
    times the mean of the exp in the first batch.

    After the loss, the latents v of the batch's texts become momentum * v + (1 - momentum) * g, at
    length 1.

    Args:
        weight: what the loss is multiplied by.
        k: negatives of a text, at least 1, all different unless there are fewer to draw from.
        size: features of a latent, at least 1.
        temperature: above 0.
        momentum: what stays of a latent in the bank, from 0 to below 1.
        name: what it is logged under.
        pooling: "mean" over the tokens that are not padding, or the "first" token.
        layers: the teacher's layer for each layer of the student that is taken, 0 the embeddings, i
            the states after block i; without it the states after every block of either model, which
            may differ in number.
        form: "softmax" or "nce".
        negatives: "bank", or "batch": all the other texts of the batch that may be negatives, in
            place of k from the bank, for form="softmax". A text without any has the loss 0.

    Raises:
        InputError: a number is outside its range or a word not known; at the check, layers are
            taken that student or teacher do not have; when prepared, there are no rows, one row, or
            rows of one label; at the call, the teacher, hidden states, row numbers or the prepared
            module are missing.

    Notes:
        Sun, Gan, Cheng, Fang, Wang and Liu 2020, arXiv 2009.14167: mean pooling of every layer; the
        softmax form is as recalled. Choices made here: one bank for "softmax", whose teacher's map
        stays as it was drawn, drawing with replacement only where a text has fewer than k
        negatives, and not using the embeddings. Without labels translations of a text count as
        other texts. The reference page says what their released code does differently.

    See also:
        `CRD`

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> rows = [{"input_ids": [1, 2 + i], "labels": i % 2, "index": i} for i in range(4)]
        >>> objective = CoDIR(k=2, layers={1: 1})
        >>> batch = {"index": torch.tensor([0, 1]), "attention_mask": torch.ones(2, 1)}
        >>> batch["modules"] = {"codir": objective.prepare(model, model, rows, seed=0)}
        >>> states = (torch.zeros(2, 1, 128), torch.ones(2, 1, 128))
        >>> given = Pass(model, None, hidden_states=states)
        >>> objective(given, given, batch).shape
        torch.Size([])
    """

    name: str = "codir"
    pooling: Literal["mean", "first"] = "mean"
    layers: Mapping[int, int] | None = None
    form: Literal["softmax", "nce"] = "softmax"
    negatives: Literal["bank", "batch"] = "bank"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "pooling", self.pooling, ("mean", "first"))
        check_choice(self.name, "form", self.form, ("softmax", "nce"))
        check_choice(self.name, "negatives", self.negatives, ("bank", "batch"))
        if self.form == "nce" and self.negatives == "batch":
            raise InputError(f'objective {self.name}: form="nce" draws from a bank: give negatives="bank"')
        if self.layers is not None and not self.layers:
            raise InputError(f"objective {self.name}: layers is empty: give the teacher's for each of the student's")

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where student or teacher lack a layer that is taken."""
        if self.layers is not None:
            s, t = (1 + size_of(model, "num_hidden_layers") for model in (student, teacher))
            layer_pairs(self.name, s, t, self.layers, first=1)

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Rows, seed: int) -> Memory:
        """Return the projections and, for negatives from a bank, the banks of these rows."""
        self.check(student, teacher)
        pools = pools_of(rows, self.name)
        sides = {"batch": (), "bank": ("teacher",)} if self.form == "softmax" else {"bank": ("student", "teacher")}
        widths = []
        for side, model in enumerate((student, teacher)):
            taken = self._taken(1 + size_of(model, "num_hidden_layers"), side)
            widths.append(len(taken) * size_of(model, "hidden_size"))
        memory = Memory(widths, self.size, len(rows), sides[self.negatives], pools.draw, seed)
        if (self.form, self.negatives) == ("softmax", "bank"):
            # It would hear of positives alone, since a bank has no gradient, and make all of its latents alike.
            memory.teacher.requires_grad_(False)
        return memory.to(student.device)

    def _taken(self, count: int, side: int) -> list[int]:
        """Return which of so many layers, embeddings included, are taken."""
        return list(range(1, count)) if self.layers is None else [pair[side] for pair in self.layers.items()]

    def _summary(self, given: Pass, batch: Mapping[str, Any], side: int) -> torch.Tensor:
        states = given_layers(given, "hidden_states", self.name)
        taken = self._taken(len(states), side)
        if max(taken) >= len(states):
            raise InputError(
                f"objective {self.name}: layers has {max(taken)}, {type(given.model).__name__} gave the states of "
                f"{len(states)}: expected at most {len(states) - 1}"
            )
        attended = attended_tokens(batch, states[0], self.name)
        return torch.cat([pooled(states[i], attended, self.pooling) for i in taken], 1)

    def _loss(self, memory: Memory, s: torch.Tensor, t: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        if self.negatives == "batch":
            own = torch.eye(len(s), dtype=torch.bool, device=s.device)
            labels = batch.get("labels")
            barred = own if labels is None else labels[:, None] == labels
            scores = (s @ t.T / self.temperature).masked_fill(barred & ~own, -math.inf)
            return F.cross_entropy(scores, torch.arange(len(s), device=s.device))
        rows = memory.rows(batch, self.name)
        drawn, _ = memory.draw(memory.generator(), rows, self.k)
        if self.form == "nce":
            return self._two_sided(memory, s, t, rows, drawn) / 2
        index = torch.from_numpy(drawn).to(s.device)
        kept = torch.cat([t[:, None], F.embedding(index, memory.teacher_bank)], 1)
        scores = _scores(s, kept, self.temperature)
        memory.remember("teacher", torch.from_numpy(rows).to(s.device), t, self.momentum)
        return F.cross_entropy(scores, torch.zeros(len(s), dtype=torch.long, device=s.device))


@dataclass(frozen=True)
class CRD(_Contrast):
    """Contrastive loss of the student's last layer against the teacher's, with chosen negatives.

    The representation of a text is the last hidden state of its first token, or the mean over its
    tokens; a linear map for each model and division by the length give g. With banks v of both
    models' latents of the N training rows, P_j = exp(v_j.g / temperature) / Z, v_0 the text's own
    latent and Z N times the mean of the exp in the first batch, the loss is the mean over texts,
    and the sum over the student against the teacher's bank and the reverse, of

        -log(P_0 / (P_0 + k / N)) - sum over k negatives of log((k / N) / (P_k + k / N))

    Negatives have another label than the text, or are any other text where there are no labels.
    "uniform" draws all alike. "instances" draws from the `top_k` rows most similar to the text, by
    the cosine of the teacher's representations before training, with P(j | i) proportional to
    exp(cosine / sharpness), each at most once, and, where top_k < k, the rest alike from all.
    "classes" draws one of the `top_k` labels most alike to the text's, with P(c' | c) proportional
    to exp(S_cc' / sharpness), and any row of it; S_cc' is the mean probability the teacher gives c'
    over the rows of c, divided by that of all labels of the data but c, or, with `vectors`, the
    cosine of those of the names of c and c'.

    With `mixup`, each negative v_k drawn from the top_k, or by "uniform", also gives a
    pseudo-negative normalise(m v_0 + (1 - m) v_k) with m drawn from Beta(mixup, mixup), at most
    0.5, which counts 1 - m.

    After the loss, the latents v of the batch's texts become momentum * v + (1 - momentum) * g, at
    length 1.

    Args:
        weight: what the loss is multiplied by.
        k: negatives of a text, at least 1.
        size: features of a latent, at least 1.
        temperature: above 0.
        momentum: what stays of a latent in the bank, from 0 to below 1.
        name: what it is logged under.
        pooling: "first", which heads of encoders read, or "mean" over the tokens that are not
            padding.
        negatives: "uniform", "classes" or "instances".
        top_k: labels, at most all but one, or rows, at most those that every text has as negatives;
            without it 5 labels or 5 k rows, or all where there are fewer. Of as many rows as k or
            fewer each batch draws all, whatever `sharpness` is.
        sharpness: temperature of the similarities, above 0: the smaller, the more the most similar
            are drawn.
        vectors: a vector for the name of each label, for negatives="classes"; see `name_vectors`
            and `embedded_names` of `compress.objectives`. Without it labels are compared by what
            the teacher takes them for.
        mixup: the parameter of the Beta distribution, above 0, or None.

    Raises:
        InputError: a number is outside its range or a word not known; when prepared, there are no
            rows, one row, or rows of one label, `top_k` is more than there are, or labels or the
            teacher's head are missing for "classes"; at the call, the teacher, hidden states, row
            numbers or the prepared module are missing.

    Notes:
        Tian, Krishnan and Isola 2019 (CRD), arXiv 1910.10699, after the code of RepDistiller, whose
        k is 16384 as recalled; k=100 suits some thousand texts. Negatives of similar classes or
        samples, and latents interpolated: O' Neill and Bollegala 2021, arXiv 2102.06603. No
        gradient passes through the banks. The reference page says which choices were made here.

    See also:
        `CoDIR`, `SupervisedContrast`

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> rows = [{"input_ids": [1, 2 + i], "labels": i % 2, "index": i} for i in range(4)]
        >>> objective = CRD(k=2, negatives="instances")
        >>> memory = objective.prepare(model, model, rows, seed=0)
        >>> batch = {"index": torch.tensor([0, 1]), "attention_mask": torch.ones(2, 1)}
        >>> batch["modules"] = {"crd": memory}
        >>> given = Pass(model, None, hidden_states=(torch.ones(2, 1, 128),))
        >>> objective(given, given, batch).shape
        torch.Size([])
    """

    name: str = "crd"
    pooling: Literal["first", "mean"] = "first"
    negatives: Literal["uniform", "classes", "instances"] = "uniform"
    top_k: int | None = None
    sharpness: float = 0.1
    mixup: float | None = None
    vectors: Mapping[str, ArrayLike] | None = field(default=None, repr=False)

    @property
    def labels_of(self) -> str | None:
        """Whose classes the labels are: the teacher's, where it says which of them are alike."""
        return "teacher" if self.negatives == "classes" else None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "pooling", self.pooling, ("first", "mean"))
        check_choice(self.name, "negatives", self.negatives, ("uniform", "classes", "instances"))
        if self.mixup is not None:
            check_number(self.name, "mixup", self.mixup, above=0)
        check_similar(self.name, self.negatives, self.top_k, self.sharpness, self.vectors)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where a teacher without classes is to compare labels."""
        if self.negatives == "classes":
            check_classes(self.name, teacher)

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Rows, seed: int) -> Memory:
        """Return projections and banks of these rows; the teacher may run on them once."""
        self.check(student, teacher)
        pools = pools_of(rows, self.name)
        similar = Similar(self.negatives, self.k, self.top_k, self.sharpness, self.vectors, self.name)
        draw = similar.draw(pools, teacher, rows, self.pooling)
        widths = [size_of(model, "hidden_size") for model in (student, teacher)]
        memory = Memory(widths, self.size, len(rows), ("student", "teacher"), draw, seed)
        return memory.to(student.device)

    def _summary(self, given: Pass, batch: Mapping[str, Any], side: int) -> torch.Tensor:
        last = given_layers(given, "hidden_states", self.name)[-1]
        return pooled(last, attended_tokens(batch, last, self.name), self.pooling)

    def _loss(self, memory: Memory, s: torch.Tensor, t: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        rows, generator = memory.rows(batch, self.name), memory.generator()
        drawn, near = memory.draw(generator, rows, self.k)
        shares = None
        if self.mixup is not None:
            shares = generator.beta(self.mixup, self.mixup, (len(rows), near)).clip(max=0.5)
        return self._two_sided(memory, s, t, rows, drawn, shares)


def _scores(anchors: torch.Tensor, latents: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return <latent, anchor> / temperature (text, latent), of (text, latent, feature)."""
    return torch.einsum("bd,bkd->bk", anchors, latents) / temperature
