"""Meta-distillation: texts that are typical of several domains count more in what a student learns.

Domains are languages, topics or any other column of a corpus. `transferability` weighs each text,
`MetaTeacher` trains a teacher on all domains with these weights, and `Transferable` compares a
student's layers with those of the teacher.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from compress.objectives.base import (
    Pass,
    Rows,
    State,
    attended_tokens,
    check_classes,
    check_number,
    check_shapes,
    given_entry,
    given_layers,
    given_logits,
    given_module,
    given_teacher,
    layer_pairs,
    pooled,
    wide,
)
from compress.objectives.domains import DomainHead
from probes.errors import InputError
from probes.models.facts import size_of
from probes.models.formats.heads_kept import heads_of


class _Rows(State):
    """The weight and domain of each training row, a head, and what may be learned beside it."""

    transferability: torch.Tensor
    domains: torch.Tensor
    fit: torch.nn.Module
    heads: torch.nn.Module

    def __init__(self, weights: torch.Tensor, domains: torch.Tensor, head: DomainHead | None, seed: int) -> None:
        super().__init__(seed)
        self.head = head
        self.register_buffer("transferability", weights, persistent=False)
        self.register_buffer("domains", domains, persistent=False)


@dataclass(frozen=True)
class _OfDomains:
    """What objectives share that know the weight and domain of each training row."""

    transfer: pd.DataFrame = field(repr=False, compare=False)
    head: DomainHead | None = field(default=None, repr=False, compare=False)
    weight: float = 1.0
    domain_weight: float = 0.5
    name: str = ""

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_number(self.name, "domain_weight", self.domain_weight, least=0)
        if missing := {"domain", "transferability"} - set(self.transfer.columns):
            raise InputError(
                f"objective {self.name}: transfer has no column {', '.join(sorted(missing))}: give what "
                "transferability(...) returns"
            )
        if not np.isfinite(self.transfer["transferability"]).all():
            raise InputError(f"objective {self.name}: transfer has weights that are not finite")
        unknown = set() if self.head is None else set(self.transfer["domain"]) - set(self.head.domains)
        if self.head is not None and unknown:
            raise InputError(
                f"objective {self.name}: transfer has the domains {sorted(unknown)}, which the head does not know; it "
                f"knows {self.head.domains}"
            )

    def _rows(self, rows: Rows, head: DomainHead | None, seed: int) -> _Rows:
        """Return what is known of the rows that are trained on."""
        if len(rows) != len(self.transfer):
            raise InputError(
                f"objective {self.name}: transfer weighs {len(self.transfer)} texts, there are {len(rows)} rows to "
                "train on: give the transferability of the same corpus"
            )
        weights = torch.from_numpy(self.transfer["transferability"].to_numpy(np.float32, copy=True))
        number = {name: i for i, name in enumerate(self.head.domains)} if self.head is not None else {}
        return _Rows(weights, torch.tensor([number.get(d, 0) for d in self.transfer["domain"]]), head, seed)


@dataclass(frozen=True)
class MetaTeacher(_OfDomains):
    """Cross-entropy of a teacher of all domains by transferability, with corrupted domains.

    The mean over texts of t (CE(label) + domain_weight CE(domain of another text)), in nats, with t
    the transferability, at least 0; the second is of the classifier of the head, and the domains it
    is to tell are those of the batch at random, so that the states that are left say nothing of the
    domain.

    Args:
        transfer: what `transferability` returns for the training rows.
        head: a `DomainHead`; it is trained, as it is, beside the model.
        weight: what the loss is multiplied by.
        domain_weight: what the corrupted domains count, at least 0.
        name: what it is logged under.

    Raises:
        InputError: a weight is negative or not finite; `transfer` is not what `transferability`
            returns, or has a domain the head does not know; there is no head; when prepared,
            `transfer` is of other rows, or the head of another width; at the call, labels, logits,
            hidden states, row numbers or the module are missing.

    Notes:
        The first stage of Meta-KD, Pan et al. 2021, arXiv 2012.01266, by its released code. Choices
        made here: E of a text's own domain, and a weight of 0 for a negative t.

    Example:
        >>> import pandas as pd, probes, torch
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> transfer = pd.DataFrame({"domain": ["en", "zh"], "transferability": [1.0, 0.5]})
        >>> objective = MetaTeacher(transfer, DomainHead(["en", "zh"], width=128), domain_weight=0)
        >>> batch = {"labels": torch.tensor([0, 5]), "index": torch.tensor([0, 1])}
        >>> batch["attention_mask"] = torch.ones(2, 1)
        >>> rows = [{"input_ids": [1], "labels": 0}, {"input_ids": [1], "labels": 5}]
        >>> batch["modules"] = {"meta_teacher": objective.prepare(model, None, rows, seed=0)}
        >>> given = Pass(model, torch.zeros(2, 6), hidden_states=(torch.zeros(2, 1, 128),))
        >>> round(float(objective(given, None, batch).detach()), 3)  # 3/4 of log 6
        1.344
    """

    name: str = "meta_teacher"
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "hidden_states"})
    kinds: ClassVar[frozenset[str]] = frozenset({"classes"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head is None:
            raise InputError(f"objective {self.name} needs a head: give DomainHead(domains, width)")

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the model has no classes, or the head another width."""
        check_classes(self.name, student)
        _check_head(self.name, self.head, student)

    def prepare(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int
    ) -> torch.nn.Module:
        """Return the head itself, with the weight and domain of each row."""
        self.check(student, teacher)
        return self._rows(rows, self.head, seed).to(student.device)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `labels`, `index` and `modules`, times the weight."""
        module, index = given_module(batch, self.name), given_entry(batch, "index", self.name)
        labels, last = given_entry(batch, "labels", self.name), given_layers(student, "hidden_states", self.name)[-1]
        each = F.cross_entropy(given_logits(student, self.name), labels, reduction="none")
        domains = module.domains[index]
        order = module.generator().permutation(len(index))
        mean = pooled(last, attended_tokens(batch, last, self.name), "mean").to(module.head.dense.weight.dtype)
        told = module.head.classifier(module.head(mean, domains))
        corrupted = F.cross_entropy(told, domains[torch.from_numpy(order).to(domains.device)], reduction="none")
        module.batches += 1
        t = module.transferability[index].clamp_min(0)
        return self.weight * (t * (each + self.domain_weight * corrupted)).mean()


@dataclass(frozen=True)
class Transferable(_OfDomains):
    """Squared difference of a student's layers and a teacher's, each text by its transferability.

    The mean over texts of (1 + t) g [hidden + attention + domain_weight * corrupted]: t is the
    transferability of the text and g = 1 / (1 + exp((p - 1)^2)) the teacher's expertise, with p the
    probability it gives the text's label; hidden and attention are the mean squared differences of
    the hidden states and of the attention maps, over the compared layers, features or heads, and
    tokens or pairs of tokens that are not padding; corrupted is that of the features of `head`, of
    the text's domain and the mean last state of either.

    Args:
        transfer: what `transferability` returns for the training rows.
        head: the `DomainHead` that `MetaTeacher` trained; a copy is used, and stays as it is.
            Without it, the third part is left out.
        weight: what the loss is multiplied by.
        domain_weight: what the third part counts, at least 0.
        name: what it is logged under.
        layers: the teacher's layer for each layer of the student that is compared, 0 the
            embeddings, i the states and the attention of block i; without it all layers of the
            student, uniformly, as for `HiddenStates`.

    Raises:
        InputError: a weight is negative or not finite; `transfer` is not what `transferability`
            returns, or has a domain the head does not know; `layers` is empty, or has layers that
            student or teacher do not have; student and teacher differ in heads, and so do the
            blocks of one of them; when prepared, `transfer` is of other rows, or the head not of
            the teacher's width; at the call, labels, the teacher, logits, hidden states, attention
            maps, row numbers or the module are missing, or what is compared has another shape than
            what it was prepared for.

    Notes:
        The second stage of Meta-KD, Pan et al. 2021, arXiv 2012.01266, by its released code; the
        third is `SoftLabels` with temperature 2. Choices made here: means over layers, maps of
        probabilities, a learned map of the student's features, one for all layers, only where the
        widths differ, a learned mixture of its heads where their number differs, and the teacher's
        head, as it is, for both sides, on the student's mapped states.

    Example:
        >>> import pandas as pd, probes, torch
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> transfer = pd.DataFrame({"domain": ["en"], "transferability": [1.0]})
        >>> objective = Transferable(transfer, layers={1: 1})
        >>> batch = {"labels": torch.tensor([0]), "index": torch.tensor([0])}
        >>> batch["attention_mask"] = torch.ones(1, 1)
        >>> rows = [{"input_ids": [1], "labels": 0}]
        >>> batch["modules"] = {"transferable": objective.prepare(model, model, rows, seed=0)}
        >>> sure, maps = torch.tensor([[99.0, 0.0]]), (torch.ones(1, 1, 1, 1),)
        >>> states = [(torch.zeros(1, 1, 4), torch.full((1, 1, 4), x)) for x in (0.0, 3.0)]
        >>> student, teacher = (Pass(model, sure, x, maps) for x in states)
        >>> float(objective(student, teacher, batch))  # (1 + 1) / 2 * 9
        9.0
    """

    name: str = "transferable"
    layers: Mapping[int, int] | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"labels", "teacher", "hidden_states", "attentions"})
    kinds: ClassVar[frozenset[str]] = frozenset({"classes"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None and not self.layers:
            raise InputError(f"objective {self.name}: layers is empty: give the teacher's for each of the student's")

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise where layers, heads, the teacher's classes or the width of the head do not fit."""
        self._heads(student, teacher)
        check_classes(self.name, teacher)
        _check_head(self.name, self.head, teacher)

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel, rows: Rows, seed: int) -> torch.nn.Module:
        """Return the maps of features and heads, the frozen head, and the weight of each row."""
        self.check(student, teacher)
        head = None if self.head is None else copy.deepcopy(self.head).requires_grad_(False)
        module = self._rows(rows, head, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = size_of(student, "hidden_size"), size_of(teacher, "hidden_size")
            for part, (s, t), bias in (("fit", widths, True), ("heads", self._heads(student, teacher), False)):
                setattr(module, part, torch.nn.Identity() if s == t else torch.nn.Linear(s, t, bias))
        return module.to(student.device)

    def _heads(self, student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[int, int]:
        """Return how many heads the blocks of either have, where they differ; 0 otherwise.

        Raises:
            InputError: a layer is missing; student and teacher differ in heads, and so do the
                blocks of one of them.
        """
        s, t = heads_of(student), heads_of(teacher)
        pairs = [(i, j) for i, j in layer_pairs(self.name, 1 + len(s), 1 + len(t), self.layers, 1) if i > 0 and j > 0]
        found = [s[i - 1] for i, _ in pairs], [t[j - 1] for _, j in pairs]
        if found[0] == found[1]:
            return 0, 0
        for role, heads in zip(("student", "teacher"), found, strict=True):
            if len(set(heads)) > 1:
                raise InputError(
                    f"objective {self.name}: the blocks of the {role} that are compared have {heads} heads: expected "
                    "as many in each. Give with layers= those that have"
                )
        return found[0][0], found[1][0]

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `labels`, `index` and `modules`, times the weight."""
        teacher = given_teacher(teacher, self.name)
        module, index = given_module(batch, self.name), given_entry(batch, "index", self.name)
        labels = given_entry(batch, "labels", self.name)
        s, t = (given_layers(p, "hidden_states", self.name) for p in (student, teacher))
        s_maps, t_maps = (given_layers(p, "attentions", self.name) for p in (student, teacher))
        there = attended_tokens(batch, s[0], self.name)
        pairs = layer_pairs(self.name, len(s), len(t), self.layers, first=1)
        hidden = [
            self._squares("hidden states", self._mapped("features", s[i], module.fit), t[j], there[..., None])
            for i, j in pairs
        ]
        total = torch.stack(hidden).mean(0)
        both = (there[:, :, None] & there[:, None, :])[..., None]
        maps = [
            self._squares(
                "attention maps, heads last,",
                self._mapped("heads", s_maps[i - 1].movedim(1, -1), module.heads),
                t_maps[j - 1].movedim(1, -1),
                both,
            )
            for i, j in pairs
            if i > 0 and j > 0
        ]
        if maps:
            total = total + torch.stack(maps).mean(0)
        if module.head is not None:
            domains = module.domains[index]
            mine, theirs = (
                module.head(x.to(module.head.dense.weight.dtype), domains)
                for x in (
                    self._mapped("features", pooled(s[-1], there, "mean"), module.fit),
                    pooled(t[-1], there, "mean").detach(),
                )
            )
            total = total + self.domain_weight * (mine - theirs).square().mean(1)
        sure = given_logits(teacher, self.name).detach().softmax(1).gather(1, labels[:, None])[:, 0]
        expertise = 1 / (1 + (sure - 1).square().exp())
        return self.weight * ((1 + module.transferability[index]) * expertise * total).mean()

    def _mapped(self, what: str, x: torch.Tensor, by: torch.nn.Module) -> torch.Tensor:
        """Map the last dimension by what was learned, if anything, in float32 at least."""
        x = wide(x)
        if not isinstance(by, torch.nn.Linear):
            return x
        if x.shape[-1] != by.in_features:
            raise InputError(
                f"objective {self.name}: the map of the student's {what} was prepared for {by.in_features}, found "
                f"{x.shape[-1]}: prepare the objective with the models that are trained"
            )
        return wide(by(x.to(by.weight.dtype)))

    def _squares(self, what: str, student: torch.Tensor, teacher: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Mean squared difference (text,), of the last dimension and the places that are there."""
        check_shapes(self.name, what, student, teacher)  # which would be stretched to one another
        squares = (student - wide(teacher).detach()).square().masked_fill(~there, 0).flatten(1).sum(1)
        return squares / (there.flatten(1).sum(1).clamp_min(1) * student.shape[-1])


def _check_head(name: str, head: DomainHead | None, model: PreTrainedModel) -> None:
    if head is not None and head.dense.in_features != size_of(model, "hidden_size"):
        raise InputError(
            f"objective {name}: the head is of {head.dense.in_features} features, {type(model).__name__} gives "
            f"{size_of(model, 'hidden_size')}: give DomainHead(domains, width) of the model's width"
        )
