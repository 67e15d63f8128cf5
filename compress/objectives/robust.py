"""Training for the worst mixture of texts: any objective with a loss a text, and what says which texts are hard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import (
    Objective,
    Pass,
    Rows,
    check_choice,
    check_count,
    check_number,
    given_module,
)
from compress.objectives.robust_adversaries import Generator, Ratios
from compress.objectives.robust_weights import (
    Groups,
    InBatch,
    Weights,
    chi_square_weights,
    exponential_weights,
    kl_weights,
    tail_weights,
)
from probes.errors import InputError

METHODS = ("rp-dro", "p-dro", "group-dro", "kl", "chi2", "cvar")
# Which methods a setting is of, and what it is where it is not given.
_SETTINGS: dict[str, dict[str, Any]] = {
    "temperature": {"rp-dro": 0.01, "p-dro": 0.01, "kl": None},
    "bound": {"kl": None, "chi2": 1.0},
    "share": {"cvar": 0.5},
    "groups": {"group-dro": "language"},
    "rate": {"group-dro": 0.1},
    "penalty": {"rp-dro": None},
    "fitted": {"p-dro": 300},
    "learning_rate": {"rp-dro": None, "p-dro": 1e-4},
}
_FOLLOWED = ("kinds", "labels_of", "words", "apart")  # what the loop reads of an objective


@dataclass(frozen=True)
class Robust:
    """The loss of another objective on the mixture of texts that is worst for the student.

    The mean over texts of r * loss, with r at least 0 and, where nothing else is said, 1 on average
    over the batch; no gradient flows through r. By `method`:

        "rp-dro"     r = n softmax(log r), log r by a network of the student's kind, which learns
                     by -mean(r * loss) + temperature * mean(r log r)
        "p-dro"      r = q / q at the start, q a small language model of text and label, which
                     learns by the cross-entropy with what is proportional to exp(loss /
                     temperature)
        "group-dro"  each group g of a batch counts q_g, its texts alike; q_g becomes proportional
                     to q_g exp(rate * mean loss of g) at each batch
        "kl"         proportional to exp(loss / temperature), or the worst r with mean(r log r) of
                     at most `bound`
        "chi2"       the worst r with mean((r - 1)^2) / 2 of at most `bound`
        "cvar"       1 / share for this share of the texts, those of the largest losses

    Args:
        objective: what gives a loss a text: `CrossEntropy`, `SoftLabels`, `SquaredError`,
            `LanguageModel`, `CandidateLabels`, or any other with a method `each`.
        method: one of those above.
        weight: what the loss is multiplied by.
        temperature: in units of the loss, above 0: the larger, the more alike texts count. By
            default 0.01 of "rp-dro" and "p-dro", 1 of "kl" without a bound.
        bound: at least 0; 0 is plain training. By default 1 of "chi2".
        share: above 0 and at most 1, which is plain training. By default a half.
        groups: the column of the corpus that names the group of a text: "language", which it is by
            default, "label" or any other, of two groups at least, of two texts at least each.
        rate: above 0, by default 0.1.
        penalty: what (log mean r)^2 counts, for an r that is not normalised over the batch; by
            default it is.
        fitted: updates in which q is fitted to the text before the training, by default 300.
        learning_rate: of the adversary; by default 1e-4 of "p-dro", and that of the training of
            "rp-dro".
        name: what it is logged under.

    Raises:
        InputError: the objective gives no loss a text; a setting is not of the method, or out of its
            range; before a training: there is no such column, there is one group, or one of a single
            text, or text to generate is missing.

    Notes:
        Michel, Hashimoto and Neubig 2021 (P-DRO), arXiv 2103.10282, and 2022 (RP-DRO), arXiv
        2204.06340, with their baselines; Group-DRO is of Sagawa et al. 2019, arXiv 1911.08731.
        Choices made here: adversaries learn by AdamW, as all that is learned; the ratio's network
        is a copy of the student's body, whose map begins at zero; groups that a batch lacks count
        nothing in it. The reference page says more. Adversaries are gone after the training.

    See also:
        `compress.training.MinmaxValidation`, `compress.recipes.rp_dro`, `compress.recipes.p_dro`

    Example:
        >>> import compress, torch
        >>> objective = Robust(compress.CrossEntropy(), method="cvar", share=0.5)
        >>> student = Pass(None, torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
        >>> batch = {"labels": torch.tensor([0, 0]), "modules": {}}
        >>> batch["modules"]["robust"] = objective.prepare(None, None, [], seed=0)
        >>> round(float(objective(student, None, batch)), 3)  # log 2, of the first alone
        0.693
    """

    objective: Objective
    method: Literal["rp-dro", "p-dro", "group-dro", "kl", "chi2", "cvar"] = "rp-dro"
    weight: float = 1.0
    temperature: float | None = None
    bound: float | None = None
    share: float | None = None
    groups: str | None = None
    rate: float | None = None
    penalty: float | None = None
    fitted: int | None = None
    learning_rate: float | None = None
    name: str = "robust"

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        check_choice(self.name, "method", self.method, METHODS)
        if not hasattr(self.objective, "each"):
            named = getattr(self.objective, "name", type(self.objective).__name__)
            raise InputError(
                f"objective {self.name}: {named} gives no loss for each text, so that none can count more: give one "
                "with a method each, as CrossEntropy"
            )
        if getattr(self.objective, "packed", False):
            raise InputError(
                f"objective {self.name}: {self.objective.name} packs several texts into a row, and texts are to count "
                "apart: give packed=False"
            )
        for setting, methods in _SETTINGS.items():
            if self.method in methods:
                if getattr(self, setting) is None:
                    object.__setattr__(self, setting, methods[self.method])
            elif getattr(self, setting) is not None:
                given = getattr(self, setting)
                raise InputError(
                    f"objective {self.name}: {setting}={given!r} is of method={' or '.join(map(repr, methods))}, found "
                    f"method={self.method!r}: leave it out"
                )
        if self.method == "kl":
            if self.temperature is not None and self.bound is not None:
                raise InputError(
                    f"objective {self.name}: temperature={self.temperature!r} and bound={self.bound!r}: give one; each "
                    "says how far the weights may go"
                )
            if self.bound is None and self.temperature is None:
                object.__setattr__(self, "temperature", 1.0)
        for setting in ("temperature", "rate", "share", "learning_rate"):
            if (value := getattr(self, setting)) is not None:
                check_number(self.name, setting, value, above=0)
        for setting in ("bound", "penalty"):
            if (value := getattr(self, setting)) is not None:
                check_number(self.name, setting, value, least=0)
        if self.share is not None and self.share > 1:
            raise InputError(f"objective {self.name}: share={self.share!r}: expected at most 1, all of the texts")
        if self.fitted is not None:
            check_count(self.name, "fitted", self.fitted)
        for what in _FOLLOWED:
            if hasattr(self.objective, what):
                object.__setattr__(self, what, getattr(self.objective, what))
        if hasattr(self.objective, "alter"):
            object.__setattr__(self, "alter", self._altered)

    @property
    def needs(self) -> frozenset[str]:
        """What the objective needs."""
        return self.objective.needs

    @property
    def columns(self) -> tuple[str, ...]:
        """What the objective reads of the corpus, and the groups."""
        read = tuple(getattr(self.objective, "columns", ()))
        return read if self.groups is None else (*read, self.groups)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        """Raise `InputError` where the objective cannot work with the models."""
        if (own := getattr(self.objective, "check", None)) is not None:
            own(student, teacher)

    def check_text(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> None:
        """Raise `InputError` where groups or text are not what the method needs."""
        if (own := getattr(self.objective, "check_text", None)) is not None:
            own(student, tokenizer, rows)
        if self.groups is not None:
            Groups(0, None, self._groups(rows), 1.0, self.name)
        special = set(tokenizer.all_special_ids)
        if self.method == "p-dro" and all(special.issuperset(row["input_ids"]) for row in rows):
            raise InputError(
                f'objective {self.name}: method="p-dro" has an adversary that generates text, and no text has a token '
                'that is not special: give text, or method="rp-dro"'
            )

    def prepare(self, student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Rows, seed: int) -> Weights:
        """Return what says how much texts count, with what the objective itself learns."""
        prepare = getattr(self.objective, "prepare", None)
        inner = None if prepare is None else prepare(student, teacher, rows, seed)
        return _MADE[self.method](self, student, rows, seed, inner)

    def _groups(self, rows: Rows) -> list[object]:
        """The group of each row."""
        assert self.groups is not None
        found = [row.get("beside", {}).get(self.groups) for row in rows]
        if any(group is None for group in found):
            at = found.index(None)
            what = "is null" if any(self.groups in row.get("beside", {}) for row in rows) else "is missing"
            raise InputError(
                f"objective {self.name}: groups={self.groups!r}: the column {what} in row {at} of those trained on: "
                "give each text its group, or name another column of the corpus"
            )
        return found

    def _within(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """A batch as the objective takes it, with what it learns under its own name."""
        inner = given_module(batch, self.name).inner
        return batch if inner is None else {**batch, "modules": {**batch["modules"], self.objective.name: inner}}

    def _altered(self, batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        changed: dict[str, Any] = self.objective.alter(self._within(batch), tokenizer)  # type: ignore[attr-defined]
        return changed

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch that has `index` and `modules`, times the weight."""
        weights: Weights = given_module(batch, self.name)
        losses = self.objective.each(student, teacher, self._within(batch))  # type: ignore[attr-defined]
        r, own = weights.weigh(losses.detach(), batch, student.model)
        weights.batches += 1
        loss: torch.Tensor = self.weight * (r.detach() * losses).mean()
        # What an adversary learns by has a gradient here, and is no part of what the student is told.
        return loss if own is None else loss + (own - own.detach()).to(loss)


def _by(objective: Any, student: Any, rows: Rows, seed: int, inner: torch.nn.Module | None) -> InBatch:
    if objective.method == "cvar":
        of = partial(tail_weights, share=objective.share)
    elif objective.method == "chi2":
        of = partial(chi_square_weights, bound=objective.bound)
    elif objective.bound is not None:
        of = partial(kl_weights, bound=objective.bound)
    else:
        of = partial(exponential_weights, temperature=objective.temperature)
    return InBatch(seed, inner, of)


def _groups(objective: Any, student: Any, rows: Rows, seed: int, inner: torch.nn.Module | None) -> Groups:
    return Groups(seed, inner, objective._groups(rows), objective.rate, objective.name)


def _generator(objective: Any, student: Any, rows: Rows, seed: int, inner: torch.nn.Module | None) -> Generator:
    return Generator(seed, inner, rows, objective.temperature, objective.fitted, student.device)


def _ratios(objective: Any, student: Any, rows: Rows, seed: int, inner: torch.nn.Module | None) -> Ratios:
    return Ratios(seed, inner, rows, student, objective.temperature, objective.penalty)


_MADE = {
    "rp-dro": _ratios,
    "p-dro": _generator,
    "group-dro": _groups,
    "kl": _by,
    "chi2": _by,
    "cvar": _by,
}
