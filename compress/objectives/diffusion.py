"""What a denoiser should come close to: what noise was added, its guided teacher, two steps in one.

Noise of a level in 0 to 1 turns x by an angle, z = cos(a) x + sin(a) e with a = pi / 2 * level, and
what a denoiser gives is the velocity of that turn, v = cos(a) e - sin(a) x. A step of DDIM from one
level to another turns z back by the angle between them, along v.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from compress.objectives.base import (
    Pass,
    Rows,
    State,
    check_number,
    given_entry,
    given_logits,
    given_teacher,
    is_number,
    is_whole,
)
from probes.errors import InputError, check_choice

SAMPLERS = ("deterministic", "stochastic")


def noised(x: torch.Tensor, level: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return x with noise of some levels: all of x at 0, all noise at 1.

    Args:
        x, noise: (batch, ...).
        level: (batch,), in 0 to 1.

    Example:
        >>> noised(torch.ones(3, 1), torch.tensor([0.0, 0.5, 1.0]), torch.zeros(3, 1)).abs().round(decimals=3)[:, 0]
        tensor([1.0000, 0.7070, 0.0000])
    """
    cos, sin = _turn(level, x)
    return cos * x + sin * noise


def stepped(z: torch.Tensor, velocity: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return where a step of DDIM from one noise level to another leads.

    Args:
        z, velocity: (batch, ...), what there is at level `start`, and what a denoiser gives there.
        start, end: (batch,), levels; to a higher one it leads back.

    Notes:
        Song, Meng and Ermon 2020, arXiv 2010.02502, in the form of Salimans and Ho 2022, arXiv
        2202.00512, appendix D.

    Example:
        >>> x, noise, one = torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.ones(1)
        >>> stepped(noised(x, 0.5 * one, noise), 0.5**0.5 * (noise - x), 0.5 * one, 0 * one).round(decimals=4)
        tensor([[2.]])
    """
    cos, sin = _turn(start - end, z)
    return cos * z - sin * velocity


def velocity_between(z: torch.Tensor, last: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return the velocity by which one step of DDIM leads from what there is at one level to what
    there is at a lower one: what `stepped` undoes.

    Example:
        >>> z, v, start, end = torch.tensor([[1.0]]), torch.tensor([[0.4]]), torch.ones(1), torch.zeros(1)
        >>> velocity_between(z, stepped(z, v, start, end), start, end)
        tensor([[0.4000]])
    """
    cos, sin = _turn(start - end, z)
    return (cos * z - last) / sin


def noised_further(z: torch.Tensor, noise: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return z of one level with as much new noise as there is more at a higher one.

    Example:
        >>> z, half, one = torch.ones(1, 1), torch.full((1,), 0.5), torch.ones(1)
        >>> noised_further(z, 7 * torch.ones(1, 1), half, one).round(decimals=4)  # nothing is left of z
        tensor([[7.]])
    """
    (cos, sin), (cos_end, sin_end) = _turn(start, z), _turn(end, z)
    kept = cos_end / cos
    return kept * z + (sin_end**2 - (kept * sin) ** 2).clamp_min(0).sqrt() * noise


def _turn(level: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosine and sine of the angles of levels, to multiply rows by; of a quarter turn exactly."""
    angle = (level.double() * (math.pi / 2)).reshape(-1, *[1] * (like.ndim - 1))
    cos = torch.where(angle == math.pi / 2, 0.0, angle.cos())
    return cos.to(like), angle.sin().to(like)


def by_level(given: torch.Tensor, target: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Return the mean over rows of the squared distance of two estimates of x, each counted by its
    signal to noise, at least 1, a mean over the numbers of x.

    Args:
        given, target: (batch, ...), the velocities that they follow from.
        level: (batch,), where.

    Notes:
        Two estimates of x at one z are sin(a) times as far apart as their velocities, and the ratio
        of signal to noise is the square of cos(a) / sin(a): so the weight of velocities is the
        larger square of the two, between 1/2 and 1.
    """
    cos, sin = _turn(level, given)
    return (torch.maximum(cos**2, sin**2) * (given - target) ** 2).mean()


class _Noised:
    """What the objectives share: they draw levels and noise, and compare velocities."""

    name: str
    weight: float

    def prepare(self, student: Any, teacher: Any, rows: Rows, seed: int) -> State:
        """Return the count of batches, by which levels and noise are drawn."""
        return State(seed)

    def alter(self, batch: Mapping[str, Any], tokenizer: Any = None) -> dict[str, torch.Tensor]:
        """Return what the models read in place of a batch's `x`, `level`, `label` and `guidance`,
        and `velocity`, which leads back to `x`.
        """
        x, generator = batch["x"], batch["modules"][self.name].generator()
        level = torch.from_numpy(self._levels(generator, len(x))).to(x)
        noise = torch.from_numpy(generator.standard_normal(x.shape)).to(x)
        cos, sin = _turn(level, x)
        out = {"x": noised(x, level, noise), "level": level, "velocity": cos * noise - sin * x}
        return out | self._asked(batch, generator)

    def _levels(self, generator: np.random.Generator, count: int) -> np.ndarray:
        return generator.uniform(size=count)

    def _asked(self, batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, torch.Tensor]:
        """What is asked for beside: `label` or `guidance`, where it is drawn."""
        raise NotImplementedError

    def _loss(self, student: Pass, target: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        given = given_logits(student, self.name)
        if given.shape != target.shape:
            raise InputError(
                f"objective {self.name}: expected a velocity of shape {tuple(target.shape)}, as x has it, found "
                f"{tuple(given.shape)}"
            )
        batch["modules"][self.name].batches += 1
        return self.weight * by_level(given, target.to(given), given_entry(batch, "level", self.name))


@dataclass(frozen=True)
class Denoising(_Noised):
    """Squared distance of a denoiser's x to the x that noise was added to, at any level, of a class
    or of none.

    Args:
        classes: how many there are; the label of this number is none.
        unlabelled: the share of rows that are of no class, at least 0 and below 1.
        weight: what the loss is multiplied by.
        name: what it is logged under.

    Raises:
        InputError: a setting is out of its range.

    Notes:
        Each row is counted by its signal to noise, at least 1 (Salimans and Ho 2022, arXiv
        2202.00512); labels are left out as in Ho and Salimans 2022, arXiv 2207.12598.

    See also:
        `train_denoiser`.

    Example:
        >>> batch = {"level": torch.tensor([0.5, 1.0]), "velocity": torch.ones(2, 3)}
        >>> batch["modules"] = {"denoising": State()}
        >>> round(float(Denoising(classes=10)(Pass(None, torch.zeros(2, 3)), None, batch)), 4)  # (1/2 + 1) / 2
        0.75
    """

    classes: int
    unlabelled: float = 0.1
    weight: float = 1.0
    name: str = "denoising"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        if not is_number(self.unlabelled) or not 0 <= self.unlabelled < 1:
            raise InputError(
                f"objective {self.name}: unlabelled={self.unlabelled!r}: expected a share of at least 0 and below 1"
            )

    def _asked(self, batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, torch.Tensor]:
        label = batch["label"]
        left_out = torch.from_numpy(generator.uniform(size=len(label)) < self.unlabelled).to(label.device)
        return {"label": torch.where(left_out, self.classes, label)}

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `level` and `velocity`, times the weight."""
        return self._loss(student, given_entry(batch, "velocity", self.name), batch)


@dataclass(frozen=True)
class GuidedInOnePass(_Noised):
    """Squared distance of a denoiser's x to that of its guided teacher, for any weight of guidance.

    The teacher at weight w says (1 + w) times what it says of the class, less w times what it says
    of none: two passes. The student reads w, and says the same in one.

    Args:
        guidance: the lowest and the highest weight, of which each row draws one.
        weight: what the loss is multiplied by.
        name: what it is logged under.

    Raises:
        InputError: the range of weights is empty or reversed, or begins below 0.

    Notes:
        Meng et al. 2022, arXiv 2210.03142, stage one. Rows are counted as in `Denoising`.

    See also:
        `distill_diffusion`.

    Example:
        >>> GuidedInOnePass(guidance=(4, 0))
        Traceback (most recent call last):
        probes.errors.InputError: guidance=(4, 0): expected the lowest and the highest weight, ...
    """

    guidance: tuple[float, float] = (0.0, 4.0)
    weight: float = 1.0
    name: str = "guided_in_one_pass"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})

    def __post_init__(self) -> None:
        check_number(self.name, "weight", self.weight, least=0)
        object.__setattr__(self, "guidance", check_guidance(self.guidance))

    def _asked(self, batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, torch.Tensor]:
        drawn = generator.uniform(*self.guidance, size=len(batch["label"]))
        return {"guidance": torch.from_numpy(drawn).to(batch["guidance"])}

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `level`, times the weight."""
        return self._loss(student, given_logits(given_teacher(teacher, self.name), self.name), batch)


@dataclass(frozen=True)
class TwoStepsInOne(GuidedInOnePass):
    """Squared distance of a denoiser's x to the x by which one step leads where two of its teacher
    lead, at the levels and by the steps of a sampler.

    Args:
        steps: of the student, half of its teacher's, at least 1.
        guidance: as of `GuidedInOnePass`.
        sampler: "deterministic", which goes from level i / steps to the next lower one; or
            "stochastic", which goes twice as far and half of it back by new noise.
        weight: what the loss is multiplied by.
        name: what it is logged under.

    Raises:
        InputError: a setting is out of its range.

    Notes:
        Salimans and Ho 2022, arXiv 2202.00512, and stage two of Meng et al. 2022, arXiv 2210.03142.
        From the lowest level the stochastic sampler goes down as the deterministic one, and the
        target is one step of the teacher, whose own double step that is.

    See also:
        `distill_diffusion`, `sample_diffusion`

    Example:
        >>> TwoStepsInOne(steps=0)
        Traceback (most recent call last):
        probes.errors.InputError: objective two_steps_in_one: steps=0: expected a whole number of at least 1
    """

    steps: int = 4
    sampler: str = "deterministic"
    name: str = "two_steps_in_one"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.steps) or self.steps < 1:
            raise InputError(f"objective {self.name}: steps={self.steps!r}: expected a whole number of at least 1")
        check_choice("sampler", self.sampler, SAMPLERS)

    def _levels(self, generator: np.random.Generator, count: int) -> np.ndarray:
        return generator.integers(1, self.steps + 1, size=count) / self.steps

    def ends(self, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the levels (batch,) to which the teacher's first and second step lead."""
        one = (0.5 if self.sampler == "deterministic" else 1.0) / self.steps
        middle, last = level - one, level - 2 * one
        return middle.clamp_min(0), last.clamp_min(0)

    def target(self, teacher: Pass, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the velocity (batch, ...) by which one step leads where two of the teacher lead."""
        z, level = batch["x"], batch["level"]
        middle, last = self.ends(level)
        given = {k: batch[k] for k in ("label", "guidance")}
        with torch.no_grad():
            half = stepped(z, given_logits(teacher, self.name), level, middle)
            there = given_logits(Pass(teacher.model, teacher.model(half, middle, **given).logits), self.name)
            return velocity_between(z, stepped(half, there, middle, last), level, last)

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch that a denoiser reads, times the weight."""
        return self._loss(student, self.target(given_teacher(teacher, self.name), batch), batch)


def check_guidance(guidance: Any) -> tuple[float, float]:
    """Return the lowest and the highest weight of guidance; raise where they are no range."""
    try:
        low, high = guidance
    except (TypeError, ValueError):
        low = high = None
    if not (is_number(low) and is_number(high) and 0 <= low < high and math.isfinite(high)):
        raise InputError(
            f"guidance={guidance!r}: expected the lowest and the highest weight, as (0, 4): the first at least 0, the "
            "second above it"
        )
    return float(low), float(high)
