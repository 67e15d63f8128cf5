"""Learning from candidate labels: of each text several labels are given, one of which is right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import (
    Pass,
    Rows,
    State,
    check_classes,
    check_count,
    check_number,
    class_count,
    given_logits,
    given_module,
    wide,
)
from compress.objectives.by_text import inputs_by
from compress.objectives.pairs import another
from probes.errors import InputError
from probes.models.facts import classes_of, name_of
from probes.states.predictions import several_codes


@dataclass(frozen=True)
class CandidateLabels:
    """Loss of texts with several candidate labels, one of which is right: reliable ones are learned from.

    A text of one candidate has the cross-entropy with it. Of the others, with p what the student
    says, each adds -sum over other classes of log(1 - p), and, in the first `warmup` epochs, the
    cross-entropy with all candidates alike. After each of these epochs the most reliable texts are
    chosen: where the class of the largest |z||z - 1|, signed as z, of the logits z is a candidate, the
    `top_k` of each class by it. With lam = min(1, epoch / ramp), r = augment * lam and S_y the
    running covariance of the logits of texts of class y, a text adds lam times

        reliable: -log softmax_c(z_c + r / 2 Var(z_c - z_y))[y], y its class, Var by S_y
        others: the cross-entropy of another view with what is expected of softmax(z) where z has the
            covariance r S_y, among the candidates, where that is confident

    The other view is a translation of the text, where there is one, and without some of its tokens.
    Confident is what is above confidence * a / (2 - a), a the share of texts that are confidently of
    that class, over that of the class with the most.

    Args:
        weight: what the loss is multiplied by.
        warmup: epochs, at least 1.
        ramp: epochs until these parts count whole, at least 1.
        top_k: reliable texts of each class, at least 1.
        augment: how far the logits are spread, at least 0.
        confidence: above 0 and at most 1.
        dropped: the share of the tokens that the other view leaves out, at least 0 and below 1.
        translate: whether the other view is a translation where there is one.
        name: what it is logged under.

    Raises:
        InputError: a number is outside its range; before a training: the head is not of classes, the
            corpus has no column `labels`, a text has no candidate, or a label that is not among
            its candidates, or a candidate is no class of the model.

    Notes:
        Li, Jiang, Li, Wang and Ouyang 2023 (PLSP), arXiv 2211.13655, by its released code, for
        images: 10 epochs, 50, 200 texts, 0.01, 0.75. Choices made here: the logits by which texts
        are chosen are those of when each was last seen; S of logits, which is what the last layer
        makes of that of its inputs, and has no gradient; the views; texts of one candidate. The
        reference page says what is expected of a softmax.

    See also:
        `compress.recipes.plsp`, `CrossEntropy`

    Example:
        >>> import probes, torch
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> named = list(model.config.id2label.values())
        >>> rows = [{"input_ids": [1], "beside": {"id": "a", "labels": f"{named[0]} {named[1]}"}}]
        >>> objective = CandidateLabels()
        >>> modules = {objective.name: objective.prepare(model, None, rows, seed=0)}
        >>> batch = {"index": torch.tensor([0]), "modules": modules}
        >>> given = Pass(model, torch.zeros(1, 6))
        >>> round(float(objective(given, None, batch)), 3)  # log 6, and 4 times -log(1 - 1 / 6)
        2.521
    """

    weight: float = 1.0
    warmup: int = 1
    ramp: int = 5
    top_k: int = 200
    augment: float = 0.01
    confidence: float = 0.75
    dropped: float = 0.1
    translate: bool = True
    name: str = "candidate_labels"
    needs: ClassVar[frozenset[str]] = frozenset()
    kinds: ClassVar[frozenset[str]] = frozenset({"classes"})
    columns: ClassVar[tuple[str, ...]] = ("id", "labels", "label")

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        for setting in ("warmup", "ramp", "top_k"):
            check_count(self.name, setting, getattr(self, setting))
        check_number(self.name, "augment", self.augment, least=0)
        check_number(self.name, "confidence", self.confidence, above=0)
        check_number(self.name, "dropped", self.dropped, least=0)
        if self.confidence > 1:
            raise InputError(
                f"objective {self.name}: confidence={self.confidence!r}: expected at most 1, a probability"
            )
        if self.dropped >= 1:
            raise InputError(f"objective {self.name}: dropped={self.dropped!r}: expected below 1, or no token is left")

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the student does not tell classes apart."""
        check_classes(self.name, student)

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where candidates are missing, no classes, or without the label of their text."""
        self._candidates(student, rows)

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> State:
        """Return what is remembered of each row and each class."""
        ids = np.unique([str(row["beside"]["id"]) for row in rows], return_inverse=True)[1]
        return _Candidates(self._candidates(student, rows), rows, ids, seed).to(student.device)

    def _candidates(self, student: PreTrainedModel, rows: Rows) -> np.ndarray:
        """Which classes are candidates of each row (row, class)."""
        beside = [row.get("beside", {}) for row in rows]
        if any("labels" not in b for b in beside):
            raise InputError(
                f"objective {self.name} needs candidates, the data has none: add a column 'labels', several names a "
                "text with spaces between, or a list"
            )
        classes = classes_of(student, class_count(student))
        found: np.ndarray = several_codes([b["labels"] for b in beside], classes, name_of(student)).astype(bool)
        for i, (b, there) in enumerate(zip(beside, found, strict=True)):
            row = f"objective {self.name}: row {i} of those trained on (id {b['id']!r}) has"
            if not there.any():
                raise InputError(f"{row} no candidate: give it one at least, or leave it out")
            if "label" in b and b["label"] not in b["labels"].split():
                raise InputError(
                    f"{row} the label {b['label']!r}, which is none of its candidates {b['labels']!r}: add it to them, "
                    "or leave the column label out"
                )
        return found

    def alter(self, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Return `views`, the rows of the other views of a batch's texts."""
        state: _Candidates = batch["modules"][self.name]
        if state.epoch < self.warmup:
            return {"views": None}
        generator, index = state.generator(), batch["index"].cpu().numpy()
        taken = another(state.ids, index, generator) if self.translate else index
        special = np.asarray(tokenizer.all_special_ids)
        return {"views": [shortened(state.rows[i], special, self.dropped, generator) for i in taken]}

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch that has `index` and `modules`, times the weight."""
        return self.each(student, teacher, batch).mean()

    def each(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of each text (batch,), times the weight."""
        state: _Candidates = given_module(batch, self.name)
        z, index = given_logits(student, self.name), batch["index"]
        candidates = state.candidates[index]
        known = candidates.sum(1) == 1
        state.choose(self.warmup, self.top_k)
        share = min(1.0, state.epoch / self.ramp)
        said = z.log_softmax(1)
        if state.epoch < self.warmup:
            loss = -(said * candidates).sum(1) / candidates.sum(1)
        else:
            y = torch.where(known, candidates.int().argmax(1), state.chosen[index])
            reliable = (y >= 0) & ~known
            state.learn(z.detach(), y)
            y = torch.where(y >= 0, y, z.detach().masked_fill(~candidates, -math.inf).argmax(1))
            spread = self.augment * share * state.variances(y)
            loss = F.cross_entropy(z + torch.where(reliable[:, None], spread / 2, 0), y, reduction="none")
            target = expected_softmax(z.detach(), self.augment * share * state.covariance[y]) * candidates
            target = target / target.sum(1, keepdim=True)
            views = self._views(student, batch.get("views"), ~known & ~reliable, z)
            others = -(target * views.log_softmax(1)).sum(1) * state.confident(target, index, known, self.confidence)
            loss = torch.where(known, loss, share * torch.where(reliable, loss, others))
        state.see(z.detach(), index)
        return self.weight * (loss + torch.where(known, 0, complementary(z, candidates)))

    def _views(self, student: Pass, views: Any, wanted: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Logits of the other views of the texts that want one; 0 of the others."""
        if not wanted.any() or views is None:
            return torch.zeros_like(like)
        inputs = inputs_by([views[i] for i in wanted.nonzero()[:, 0].tolist()], student.model)
        logits = wide(student.model(**inputs, return_dict=True).logits).to(like)
        return torch.zeros_like(like).index_put((wanted.nonzero()[:, 0],), logits)


class _Candidates(State):
    """What is remembered: of each row its logits and what it was taken for, of each class its logits."""

    candidates: torch.Tensor
    logits: torch.Tensor
    chosen: torch.Tensor
    confidently: torch.Tensor
    texts: torch.Tensor
    last: torch.Tensor
    counts: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor

    def __init__(self, candidates: np.ndarray, rows: Rows, ids: np.ndarray, seed: int) -> None:
        super().__init__(seed)
        count, classes = candidates.shape
        self.rows, self.ids = rows, ids
        self.register_buffer("candidates", torch.from_numpy(candidates), persistent=False)
        self.register_buffer("logits", torch.zeros(count, classes))
        self.register_buffer("chosen", torch.full((count,), -1))  # class of a reliable row
        self.register_buffer("confidently", torch.full((count,), -1))
        self.register_buffer("texts", torch.zeros((), dtype=torch.long))  # so far
        self.register_buffer("last", torch.zeros((), dtype=torch.long))  # the epoch in which rows were chosen
        self.register_buffer("counts", torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(classes, classes))
        self.register_buffer("covariance", torch.zeros(classes, classes, classes))

    @property
    def epoch(self) -> int:
        """How many times all rows were seen."""
        return int(self.texts) // len(self.candidates)

    def see(self, z: torch.Tensor, index: torch.Tensor) -> None:
        """Remember the logits of a batch."""
        self.logits[index] = z.to(self.logits)
        self.texts += len(index)
        self.batches += 1

    def choose(self, warmup: int, top_k: int) -> None:
        """Choose the reliable rows, where an epoch has begun."""
        if self.epoch < warmup or int(self.last) == self.epoch:
            return
        self.last.fill_(self.epoch)
        self.chosen.copy_(reliable_rows(self.logits, self.candidates, top_k))

    def learn(self, z: torch.Tensor, y: torch.Tensor) -> None:
        """Bring mean and covariance of the logits of each class up to date by texts of class y, -1 for none."""
        for c in y.unique().tolist():
            if c < 0:
                continue
            own = z[y == c].to(self.mean)
            n, m = self.counts[c].clone(), len(own)
            mean = own.mean(0)
            apart, centred = self.mean[c] - mean, own - mean
            both = (n * self.covariance[c] + centred.T @ centred) / (n + m)
            self.covariance[c] = both + n * m / (n + m) ** 2 * torch.outer(apart, apart)
            self.mean[c] = (n * self.mean[c] + m * mean) / (n + m)
            self.counts[c] = n + m

    def variances(self, y: torch.Tensor) -> torch.Tensor:
        """Variance of z_c - z_y of the class y of each text (text, class)."""
        return differences(self.covariance)[y, y]

    def confident(
        self, target: torch.Tensor, index: torch.Tensor, known: torch.Tensor, confidence: float
    ) -> torch.Tensor:
        """Whether what is expected of each text is above the bound of its class (text,), as 0 and 1."""
        sure, c = target.max(1)
        self.confidently[index] = torch.where((sure >= confidence) & ~known, c, self.confidently[index])
        found = torch.bincount(self.confidently + 1, minlength=target.shape[1] + 1).float()
        a = found[1:] / found.max()  # the texts that are not yet of a class are one of these counts
        return (sure >= confidence * (a / (2 - a))[c]).to(target)


def reliable_rows(logits: torch.Tensor, candidates: torch.Tensor, top_k: int) -> torch.Tensor:
    """Return the class of each row that is reliable (row,), -1 for the others.

    Reliable is a row of several candidates whose class of the largest z |z - 1| is one of them, and
    of each class the `top_k` by it.

    Example:
        >>> z = torch.tensor([[3.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
        >>> candidates = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
        >>> reliable_rows(z, candidates, top_k=1).tolist()
        [-1, 0, -1]
    """
    score = logits * (logits - 1).abs()
    best, of = score.max(1)
    there = candidates.gather(1, of[:, None])[:, 0] & (candidates.sum(1) > 1)
    out = torch.full_like(of, -1)
    for c in range(logits.shape[1]):
        rows = (there & (of == c)).nonzero()[:, 0]
        out[rows[best[rows].argsort(descending=True, stable=True)[:top_k]]] = c
    return out


def differences(covariance: torch.Tensor) -> torch.Tensor:
    """Return the variance of z_c - z_k (..., c, k) of logits of a covariance (..., class, class)."""
    own = covariance.diagonal(dim1=-2, dim2=-1)
    return (own[..., :, None] + own[..., None, :] - 2 * covariance).clamp_min(0)


def expected_softmax(z: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Return about what is expected of the softmax of normal logits, of mean z (text, class).

    1 / (1 + sum over k of exp(-(z_c - z_k) / sqrt(1 + pi / 8 Var(z_c - z_k)))), brought to the sum 1:
    the softmax itself where the covariance (text, class, class) is 0.

    Example:
        >>> z, covariance = torch.tensor([[2.0, 0.0]]), torch.eye(2)[None]
        >>> [round(float(expected_softmax(z, s * covariance)[0, 0]), 3) for s in (0, 4)]
        [0.881, 0.728]
    """
    scale = (1 + math.pi / 8 * differences(covariance)).sqrt()
    apart = (z[:, None, :] - z[:, :, None]) / scale  # of c: z_k - z_c
    found = (-apart.logsumexp(2)).exp()  # k = c gives the 1
    return found / found.sum(1, keepdim=True)


def complementary(z: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Return -sum log(1 - softmax(z)) over the classes that are no candidates of a text (text,).

    Example:
        >>> round(complementary(torch.zeros(1, 4), torch.tensor([[True, True, True, False]])).item(), 3)
        0.288
    """
    own = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    rest = z[:, None, :].masked_fill(own, -math.inf).logsumexp(2)  # of c: all but it
    return ((z.logsumexp(1, keepdim=True) - rest) * ~candidates).sum(1)


def shortened(
    row: Mapping[str, Any], special: np.ndarray, share: float, generator: np.random.Generator
) -> dict[str, Any]:
    """Return a row without about this share of its tokens, drawn from those that are not special.

    Example:
        >>> row = {"input_ids": [1, 5, 6, 2], "token_type_ids": [0, 0, 0, 0]}
        >>> shortened(row, np.array([1, 2]), 0.99, np.random.default_rng(0))
        {'input_ids': [1, 5, 2], 'token_type_ids': [0, 0, 0]}
    """
    ids = np.asarray(row["input_ids"])
    ordinary = ~np.isin(ids, special)
    kept = ~ordinary | (generator.random(len(ids)) >= share)
    if ordinary.any() and not kept[ordinary].any():  # one stays
        kept[generator.choice(np.flatnonzero(ordinary))] = True
    return {k: np.asarray(row[k])[kept].tolist() for k in ("input_ids", "token_type_ids") if k in row}
