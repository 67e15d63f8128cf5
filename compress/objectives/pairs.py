"""Contrast of pairs of texts: the two of a pair come together, and apart from those of other pairs."""

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
    attended_tokens,
    check_count,
    check_number,
    check_softened,
    given_layers,
    given_module,
    pooled,
)
from compress.objectives.by_text import inputs_by, last_states
from probes.errors import InputError
from probes.models.facts import size_of


@dataclass(frozen=True)
class PairSupCon:
    """Contrast of pairs, hard negatives counting more, and which pairs belong together.

    Of a corpus with `text_pair` the pairs are its rows, and positive where the label is `positive`,
    or there is none; of another one each text is paired with one of its translations, drawn from
    the other rows of its id. With e the mean last state of a text and z a learned map of it, divided
    by its length, the loss of each text i of a positive pair with the other i' is, in nats,

        -log [ e_ii' / (e_ii' + sum_j a_ij e_ij) ], e_ij = exp(z_i.z_j / temperature)

    where j runs over the texts of the other positive pairs of the batch, but for those of the same
    id, and a_ij is e_ij over its mean over j. The mean over these texts is added to `classify` times
    the cross-entropy of a linear classifier of [e_1, e_2, |e_1 - e_2|] with whether a pair is
    positive, the mean over all pairs that have a label.

    Args:
        weight: what the loss is multiplied by.
        temperature: above 0.
        hard: whether hard negatives count more; without it all a_ij are 1, as for InfoNCE.
        classify: what the classifier of pairs counts, at least 0.
        positive: the label of pairs that belong together.
        size: features of z.
        learning_rate: of the maps; by default that of the training.
        name: what it is logged under.

    Raises:
        InputError: a number is outside its range; before a training: no row has the label
            `positive`, or a row has neither a second text nor a translation; at the call, hidden
            states, row numbers or the module are missing.

    Notes:
        Zhang, Li, Xiao, Zhu, Nallapati, Arnold and Xiang 2021, arXiv 2109.05424, by its released
        code: there pairs are of SNLI and MNLI without the neutral ones, and the maps learn 100
        times as fast. Gradients flow through a_ij, as by the formula. The second texts take a
        forward pass of their own.

    See also:
        `compress.recipes.pair_sup_con`, `SupCLSeq`

    Example:
        >>> import probes, torch
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> rows = [{"input_ids": [1, 2 + i], "index": i, "beside": {"id": i // 2}} for i in range(4)]
        >>> objective = PairSupCon()
        >>> batch = {"index": torch.tensor([0, 2]), "attention_mask": torch.ones(2, 1)}
        >>> batch["modules"] = {objective.name: objective.prepare(model, None, rows, seed=0)}
        >>> given = Pass(model, None, hidden_states=(torch.ones(2, 1, 128),))
        >>> objective(given, None, batch).shape
        torch.Size([])
    """

    weight: float = 1.0
    temperature: float = 0.05
    hard: bool = True
    classify: float = 1.0
    positive: str = "entailment"
    size: int = 128
    learning_rate: float | None = None
    name: str = "pair_sup_con"
    needs: ClassVar[frozenset[str]] = frozenset({"hidden_states"})
    columns: ClassVar[tuple[str, ...]] = ("id", "label", "text_pair")
    apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_softened(self.name, self.weight, self.temperature)
        check_number(self.name, "classify", self.classify, least=0)
        check_count(self.name, "size", self.size)
        if self.learning_rate is not None:
            check_number(self.name, "learning_rate", self.learning_rate, above=0)

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where rows have no pairs, or none of them is positive."""
        if "pair" not in rows[0]["beside"]:
            ids, counts = np.unique([str(row["beside"]["id"]) for row in rows], return_counts=True)
            if counts.min() < 2:
                raise InputError(
                    f"objective {self.name}: there is no column text_pair, and id {str(ids[counts.argmin()])!r} has no "
                    f"translation, nor have {int((counts < 2).sum()) - 1} more: give pairs of texts, or leave out rows "
                    "without a translation"
                )
            return
        labels = sorted({row["beside"]["label"] for row in rows if "label" in row["beside"]})
        if labels and self.positive not in labels:
            raise InputError(
                f"objective {self.name}: no pair has the label {self.positive!r}, found "
                f"{', '.join(map(repr, labels[:5]))}: say with positive=... which pairs belong together"
            )

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> State:
        """Return the maps, and what remembers the rows and draws translations."""
        return _Pairs(rows, size_of(student, "hidden_size"), self.size, self.positive, seed).to(student.device)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch that has `index` and `modules`, times the weight."""
        pairs: _Pairs = given_module(batch, self.name)
        last = given_layers(student, "hidden_states", self.name)[-1]
        first = pooled(last, attended_tokens(batch, last, self.name), "mean")
        index = batch["index"].cpu().numpy()
        inputs = inputs_by(pairs.others(index), student.model)
        second = pooled(last_states(student.model, inputs).to(first), inputs["attention_mask"].bool(), "mean")
        pairs.batches += 1
        with torch.autocast(first.device.type, enabled=False):  # which would round the scores to three digits
            return self.weight * self._loss(pairs, first, second, index)

    def _loss(self, pairs: _Pairs, first: torch.Tensor, second: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        positive = torch.from_numpy(pairs.positive[index]).to(first.device)
        dtype = pairs.contrast[0].weight.dtype
        z = F.normalize(pairs.contrast(torch.cat([first[positive], second[positive]]).to(dtype)), dim=1)
        groups = torch.from_numpy(pairs.groups[index]).to(first.device)[positive]
        loss = pair_contrast(z @ z.T / self.temperature, torch.cat([groups, groups]), self.hard)
        if pairs.classifier is None or not self.classify:
            return loss
        said = pairs.classifier(torch.cat([first, second, (first - second).abs()], 1).to(dtype))
        return loss + self.classify * F.cross_entropy(said, positive.long())


class _Pairs(State):
    """The maps, the second text of each row or its translations, and which pairs are positive."""

    def __init__(self, rows: Rows, width: int, size: int, positive: str, seed: int) -> None:
        super().__init__(seed)
        beside = [row["beside"] for row in rows]
        labelled = "pair" in beside[0] and "label" in beside[0]
        self.contrast: Any = torch.nn.Sequential(
            torch.nn.Linear(width, width, bias=False), torch.nn.ReLU(), torch.nn.Linear(width, size, bias=False)
        )
        self.classifier = torch.nn.Linear(3 * width, 2, bias=False) if labelled else None
        self.positive = np.array([not labelled or b["label"] == positive for b in beside])
        self.groups = np.unique([str(b["id"]) for b in beside], return_inverse=True)[1]
        self.rows: list[dict[str, Any]] = [
            {"input_ids": b["pair"]} if "pair" in b else dict(row) for b, row in zip(beside, rows, strict=True)
        ]
        self.paired = "pair" in beside[0]

    def others(self, index: np.ndarray) -> list[dict[str, Any]]:
        """Return the second text of each of some rows, or a translation, drawn."""
        if self.paired:
            return [self.rows[i] for i in index]
        return [self.rows[i] for i in another(self.groups, index, self.generator())]


def another(groups: np.ndarray, index: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return for each of some rows another one of its group, drawn alike; the row where it is alone.

    Example:
        >>> another(np.array([0, 1, 0]), np.array([0, 1, 2]), np.random.default_rng(0)).tolist()
        [2, 1, 0]
    """
    order = np.argsort(groups, kind="stable")
    place, counts = np.argsort(order), np.bincount(groups)
    group = groups[index]
    first = (np.cumsum(counts) - counts)[group]
    step = generator.integers(1, np.maximum(counts[group], 2))
    found: np.ndarray = order[first + (place[index] - first + step) % counts[group]]
    return found


def pair_contrast(scores: torch.Tensor, groups: torch.Tensor, hard: bool) -> torch.Tensor:
    """Return the contrast of pairs, the mean over texts, from their scores.

    Args:
        scores: (text, text), the first texts of all pairs before the second ones.
        groups: of texts (text,); those of one group are no negatives of each other.
        hard: whether a negative counts by exp(score) over its mean.

    Returns:
        A scalar; a text without a negative adds 0.

    Example:
        >>> scores = torch.zeros(4, 4)  # of two pairs: nothing is told apart from two negatives
        >>> round(float(pair_contrast(scores, torch.tensor([0, 1, 0, 1]), hard=True)), 3)  # log 3
        1.099
    """
    count = len(scores)
    if not count:
        return scores.sum()
    of = torch.arange(count, device=scores.device)
    wanted = scores[of, (of + count // 2) % count]
    negative = groups[:, None] != groups
    told = negative.any(1)
    scores, negative, wanted = scores[told], negative[told], wanted[told]
    barred = scores.masked_fill(~negative, -math.inf)
    against = barred.logsumexp(1)
    if hard:
        against = (2 * barred).logsumexp(1) - against + negative.sum(1).to(scores).log()
    return F.softplus(against - wanted).sum() / count
