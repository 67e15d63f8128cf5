"""Objectives of sparse representations: translations together, activations few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import (
    Pass,
    Rows,
    State,
    attended_tokens,
    check_choice,
    check_number,
    check_softened,
    given_layers,
    given_module,
    is_whole,
    pooled,
    wide,
)
from compress.objectives.pairs import another
from probes.errors import InputError
from probes.models.facts import body_of, types_tokens
from probes.models.formats.sparse_embeddings import sparse_head_of
from probes.states.batches import collate
from probes.states.tokens import padding_of


class _OfVectors:
    """What objectives of the sparse vectors of texts share."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student has no sparse head."""
        sparse_head_of(student)


@dataclass(frozen=True)
class Translations(_OfVectors):
    """Contrastive loss: translations of a sentence come together, and apart from other sentences.

    Each text u of a batch gets one of its translations v, drawn from the other rows of its id; the
    loss is, in nats and as a mean over texts,

        -1/2 [ log softmax_j(u_i.v_j / temperature)_i + log softmax_j(u_j.v_i / temperature)_i ]

    where j runs over the batch, without other translations of the same sentence. The vectors are
    those of `student.sparse_head`.

    Args:
        ids: the sentence id of each row that is trained on.
        tokenizer: of the model.
        temperature: above 0.
        weight: what the loss is multiplied by.
        name: what it is logged under.

    Raises:
        InputError: the weight is negative or not finite, the temperature not above 0; a row has no
            translation; at the check, the model has no sparse head; when prepared, there are not as
            many rows as ids.

    Notes:
        The loss of the in-batch negatives of InfoNCE (van den Oord, Li and Vinyals 2018, arXiv
        1807.03748), both ways; that it stands here, and the temperature, are choices made here. The
        translations take a forward pass of their own.

    See also:
        `sparsify_embeddings`, `objectives.SparseActivations`

    Example:
        >>> import probes
        >>> _, tokenizer = probes.load_checkpoint("bundled")
        >>> Translations(["a", "b", "b"], tokenizer)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        probes.errors.InputError: objective translations: expected every id at least twice, ...
    """

    ids: Sequence[str]
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    temperature: float = 0.05
    weight: float = 1.0
    name: str = "translations"

    def __post_init__(self) -> None:
        check_softened(self.name, self.weight, self.temperature)
        if not len(self.ids) or min(np.unique(self.ids, return_counts=True)[1]) < 2:
            raise InputError(
                f"objective {self.name}: expected every id at least twice, once for each translation, found "
                f"{len(set(self.ids))} ids in {len(self.ids)} rows: leave out rows without a translation"
            )

    def prepare(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int
    ) -> torch.nn.Module:
        """Return what remembers the rows, and which are translations of each other."""
        if len(rows) != len(self.ids):
            raise InputError(
                f"objective {self.name}: {len(self.ids)} ids and {len(rows)} rows that are trained on: give one each"
            )
        return _Pairs(self.ids, rows, seed)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch that has `index` and `modules`, times the weight."""
        pairs: _Pairs = given_module(batch, self.name)
        u = _vectors(student, batch, self.name)
        index = batch["index"].cpu().numpy()
        other = collate(padding_of(self.tokenizer, student.model), [pairs.rows[i] for i in pairs.draw(index)])
        given = {k: v.to(u.device) for k, v in other.items() if k != "token_type_ids" or types_tokens(student.model)}
        states = body_of(student.model)(**given, return_dict=True).last_hidden_state
        v = wide(sparse_head_of(student.model)(pooled(states, given["attention_mask"].bool(), "mean")))
        scores = u @ v.T / self.temperature
        groups = torch.from_numpy(pairs.groups[index]).to(u.device)
        own = torch.eye(len(u), dtype=torch.bool, device=u.device)
        scores = scores.masked_fill((groups[:, None] == groups) & ~own, -math.inf)
        wanted = torch.arange(len(u), device=u.device)
        return self.weight * (F.cross_entropy(scores, wanted) + F.cross_entropy(scores.T, wanted)) / 2


class _Pairs(State):
    """The rows trained on, and draws of translations by the seed and the batches so far."""

    def __init__(self, ids: Sequence[str], rows: Rows, seed: int) -> None:
        super().__init__(seed)
        self.rows = [{k: v for k, v in row.items() if k not in ("labels", "index")} for row in rows]
        self.groups = np.unique(ids, return_inverse=True)[1]

    def draw(self, index: np.ndarray) -> np.ndarray:
        """Return for each of some rows another one of the same sentence."""
        rng = self.generator()
        self.batches += 1
        return another(self.groups, index, rng)


class _Average(State):
    """A count of batches, and a moving average over them."""

    average: torch.Tensor

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.register_buffer("average", torch.zeros(()))


@dataclass(frozen=True)
class SparseActivations(_OfVectors):
    """How active the features of sparse vectors are: what retrieval costs, or the L1 norm.

    With a_j the mean over the n texts of |f_j|, the features of the vectors that
    `student.sparse_head` gives, of length 1,

        form="flops": sum_j a_j^2
        form="l1": sum_j a_j

    times weight * min(1, (t / ramp)^2) in batch t, the first being 1.

    Args:
        weight: what the loss is multiplied by in the end, at least 0.
        form: "flops" pushes each feature down in proportion to how active it is, gradient 2 a_j
            sign(f) / n, and so spreads the non-zeros over the features; "l1" pushes all alike.
        ramp: batches until the weight is whole; 0 for the whole weight from the start.
        name: what it is logged under, by default the form.
        moving: the weight is divided by a moving average of sum_j a_j, of which this share stays at
            each batch, from 0 to below 1; 0 for no division. Where texts are sparse already the
            weight grows.

    Raises:
        InputError: the weight is negative or not finite, the form not known, the ramp no whole
            number, or `moving` out of range; at the check, the model has no sparse head.

    Notes:
        Paria, Yeh, Yen, Xu, Ravikumar and Poczos 2020, arXiv 2004.05665, with the ramp of their
        code and, as `moving`, its division by an average of the L1 norm, as recalled. With so many
        non-zeros a text, that is the relaxation of the expected operations for each pair of query
        and text; see `retrieval_cost`.

    Example:
        >>> import torch
        >>> one, spread = torch.eye(2)[[0, 0]], torch.eye(2)
        >>> flops, l1 = SparseActivations(), SparseActivations(form="l1")
        >>> [float(o.of(x)) for o in (flops, l1) for x in (one, spread)]
        [1.0, 0.5, 1.0, 1.0]
    """

    weight: float = 1.0
    form: Literal["flops", "l1"] = "flops"
    ramp: int = 0
    name: str = ""
    moving: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", str(self.form))
        check_number(self.name, "weight", self.weight, least=0)
        check_choice(self.name, "form", self.form, ("flops", "l1"))
        check_number(self.name, "moving", self.moving, least=0)
        if self.moving >= 1:
            raise InputError(f"objective {self.name}: moving={self.moving!r}: expected below 1, or nothing new counts")
        if not is_whole(self.ramp) or self.ramp < 0:
            raise InputError(f"objective {self.name}: ramp={self.ramp!r}: expected a whole number of at least 0")

    def prepare(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int
    ) -> torch.nn.Module:
        """Return what counts the batches, and the average so far."""
        return _Average(seed) if self.moving else State(seed)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch that has `modules`, times the weight of this step."""
        count = given_module(batch, self.name)
        count.batches += 1
        share = min(1.0, (int(count.batches) / self.ramp) ** 2) if self.ramp else 1.0
        vectors = _vectors(student, batch, self.name)
        if self.moving:
            own = vectors.detach().abs().mean(0).sum()
            first = int(count.batches) == 1
            count.average.copy_(own if first else self.moving * count.average + (1 - self.moving) * own)
            share = share / max(float(count.average), torch.finfo(torch.float32).eps)
        return self.weight * share * self.of(vectors)

    def of(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the loss of some vectors (text, feature), without the weight."""
        active = vectors.abs().mean(0)
        return active.square().sum() if self.form == "flops" else active.sum()


def _vectors(student: Pass, batch: Mapping[str, Any], name: str) -> torch.Tensor:
    """Return the sparse vectors of a batch of texts, as the student is now."""
    states = given_layers(student, "hidden_states", name)[-1]
    return wide(sparse_head_of(student.model)(pooled(states, attended_tokens(batch, states, name), "mean")))
