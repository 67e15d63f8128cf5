"""Contrast without a teacher: texts of one class come together, those of similar classes apart."""

from __future__ import annotations

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
    given_layers,
    given_module,
    pooled,
)
from compress.objectives.likeness import Similar, check_similar
from compress.objectives.memory import Memory, check_banked, pools_of
from probes.errors import InputError
from probes.models.facts import size_of


@dataclass(frozen=True)
class SupervisedContrast:
    """Contrast of a text's representation with one of its class and with chosen ones of others.

    g is the last hidden state of the first token, or the mean over tokens, through a learned linear
    map and divided by its length; v are the latents of the training rows in a memory bank, as they
    were when each was last seen. With v_+ of another row of the text's label, drawn alike (its own
    where it is alone), and v_j those of k negatives, the loss is the mean over texts, in nats, of

        -log [ e_+ / (e_+ + sum_j e_j) ], e = exp(v.g / temperature)

    It lies above 0, and at log(1 + k) where nothing is told apart. After it, the latents of the
    batch's texts become momentum * v + (1 - momentum) * g, at length 1.

    Args:
        weight, k, size, temperature, momentum, name, pooling: as for `CRD`.
        negatives: "instances", "classes" or "uniform", as for `CRD`; what is similar is said by the
            model as it is before the training, or by `vectors`.
        top_k, sharpness, vectors: as for `CRD`.

    Raises:
        InputError: a number is outside its range or a word not known; when prepared, rows have no
            labels, or those of one class alone, `top_k` is more than there are, or the head of the
            model is missing for "classes" without `vectors`; at the call, hidden states, row
            numbers or the prepared module are missing.

    Notes:
        The supervised setting of semantically conditioned negative samples, O' Neill and Bollegala
        2021, arXiv 2102.06603, beside `CrossEntropy`. Choices made here: the bank, the learned map,
        one positive a text, and similarities that stay as they were before the training.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> rows = [{"input_ids": [1, 2 + i], "labels": i % 2, "index": i} for i in range(4)]
        >>> objective = SupervisedContrast(k=2)
        >>> batch = {"index": torch.tensor([0, 1]), "attention_mask": torch.ones(2, 1)}
        >>> batch["modules"] = {objective.name: objective.prepare(model, None, rows, seed=0)}
        >>> given = Pass(model, None, hidden_states=(torch.ones(2, 1, 128),))
        >>> objective(given, None, batch).shape
        torch.Size([])

    See also:
        `CRD`, `CrossEntropy`
    """

    weight: float = 1.0
    k: int = 100
    size: int = 128
    temperature: float = 0.07
    momentum: float = 0.5
    name: str = "supervised_contrast"
    pooling: Literal["first", "mean"] = "first"
    negatives: Literal["uniform", "classes", "instances"] = "instances"
    top_k: int | None = None
    sharpness: float = 0.1
    vectors: Mapping[str, ArrayLike] | None = field(default=None, repr=False)
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "hidden_states"})
    kinds: ClassVar[frozenset[str]] = frozenset({"classes"})

    def __post_init__(self) -> None:
        check_banked(self.name, self.weight, self.temperature, self.momentum, self.k, self.size)
        check_choice(self.name, "pooling", self.pooling, ("first", "mean"))
        check_choice(self.name, "negatives", self.negatives, ("uniform", "classes", "instances"))
        check_similar(self.name, self.negatives, self.top_k, self.sharpness, self.vectors)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where a model without classes is to say which are alike."""
        if self.negatives == "classes":
            check_classes(self.name, student)

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> Memory:
        """Return projection and bank of these rows; the model may run on them once."""
        self.check(student, teacher)
        pools = pools_of(rows, self.name)
        if not pools.labelled:
            raise InputError(f"objective {self.name} needs labels, the rows have none: add a label column")
        similar = Similar(self.negatives, self.k, self.top_k, self.sharpness, self.vectors, self.name)
        draw = similar.draw(pools, student, rows, self.pooling)
        memory = Memory([size_of(student, "hidden_size")], self.size, len(rows), ("student",), draw, seed)
        memory.like = pools.like
        return memory.to(student.device)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch that has `index` and `modules`, times the weight."""
        memory = given_module(batch, self.name)
        last = given_layers(student, "hidden_states", self.name)[-1]
        states = pooled(last, attended_tokens(batch, last, self.name), self.pooling)
        rows, generator = memory.rows(batch, self.name), memory.generator()
        drawn, _ = memory.draw(generator, rows, self.k)
        index = np.column_stack([memory.like(generator, rows), drawn])
        with torch.autocast(states.device.type, enabled=False):  # which would round the scores to three digits
            g = memory.latents("student", states)
            kept = F.embedding(torch.from_numpy(index).to(g.device), memory.student_bank)
            scores = torch.einsum("bd,bkd->bk", g, kept) / self.temperature
            loss = F.cross_entropy(scores, torch.zeros(len(g), dtype=torch.long, device=g.device))
        memory.remember("student", torch.from_numpy(rows).to(g.device), g, self.momentum)
        memory.batches += 1
        return self.weight * loss
