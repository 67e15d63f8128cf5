"""How much each text of a batch counts where the worst mixture of them is trained on, by their losses alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from compress.objectives.base import State
from probes.errors import InputError

_HALVINGS = 100  # of an interval that is searched


class Weights(State):
    """What says how much the texts of a batch count.

    Args:
        seed: of what is drawn.
        inner: what the objective learns or remembers whose losses they are; None for nothing.
    """

    def __init__(self, seed: int, inner: torch.nn.Module | None) -> None:
        """Begin with no batch."""
        super().__init__(seed)
        self.inner = inner

    def weigh(self, losses: torch.Tensor, batch: Any, model: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return how much each text counts (text,), 1 on average, and what an adversary learns by."""
        raise NotImplementedError


class InBatch(Weights):
    """The worst mixture within the batch, by a function of its losses."""

    def __init__(self, seed: int, inner: torch.nn.Module | None, of: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Weigh by a function of losses (text,)."""
        super().__init__(seed, inner)
        self.of = of

    def weigh(self, losses: torch.Tensor, batch: Any, model: Any) -> tuple[torch.Tensor, None]:
        """Return how much each text counts; nothing is learned."""
        return self.of(losses), None


class Groups(Weights):
    """How much each group counts, by its losses so far: q_g exp(rate * loss_g) at each batch."""

    q: torch.Tensor
    of: torch.Tensor

    def __init__(
        self, seed: int, inner: torch.nn.Module | None, groups: Sequence[object], rate: float, name: str
    ) -> None:
        """Begin with all alike, of groups by row."""
        super().__init__(seed, inner)
        self.rate = rate
        names, of, counts = np.unique(np.asarray(groups, str), return_inverse=True, return_counts=True)
        if len(names) < 2:
            raise InputError(
                f"objective {name}: all {len(groups)} texts are of the group {str(names[0])!r}: expected at least two "
                "groups; give another column with groups=..."
            )
        if counts.min() < 2:
            alone = str(names[counts.argmin()])
            raise InputError(
                f"objective {name}: the group {alone!r} has one text, whose loss is no mean: give texts of it, or "
                "join it with another group"
            )
        self.register_buffer("q", torch.full((len(names),), 1 / len(names)))
        self.register_buffer("of", torch.from_numpy(of), persistent=False)

    def weigh(self, losses: torch.Tensor, batch: Any, model: Any) -> tuple[torch.Tensor, None]:
        """Bring the groups of a batch up to date, and return how much each text counts."""
        group = self.of[batch["index"]]
        counts = torch.bincount(group, minlength=len(self.q)).to(self.q)
        sums = torch.zeros_like(self.q).index_add_(0, group, losses.to(self.q))
        logs = self.q.log() + self.rate * sums / counts.clamp_min(1)
        self.q.copy_(logs.softmax(0))
        # Groups that are not in the batch have no loss to count: the others count in proportion.
        there = self.q * (counts > 0)
        return (len(losses) * (there / there.sum() / counts.clamp_min(1))[group]).to(losses), None


def exponential_weights(losses: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return weights proportional to exp(loss / temperature), 1 on average.

    Example:
        >>> exponential_weights(torch.tensor([0.0, 1.0]), 1e9).tolist()
        [1.0, 1.0]
    """
    return len(losses) * (losses.cpu().double() / temperature).softmax(0).to(losses)


def kl_weights(losses: torch.Tensor, bound: float) -> torch.Tensor:
    """Return the weights r, 1 on average, of the largest mean of r * loss with mean r log r <= bound.

    They are `exponential_weights` at the temperature, from 1e-10 to 1e10, where the bound is met.
    """

    def spent(log_temperature: float) -> float:
        r = exponential_weights(losses.cpu().double(), 10**log_temperature)
        return float(torch.special.xlogy(r, r).mean())

    return exponential_weights(losses, 10 ** _bisected(lambda x: spent(x) > bound, -10, 10))


def chi_square_weights(losses: torch.Tensor, bound: float) -> torch.Tensor:
    """Return the weights r, 1 on average, of the largest mean of r * loss with mean (r - 1)^2 / 2 <=
    bound: proportional to max(loss - eta, 0).

    Example:
        >>> found = chi_square_weights(torch.tensor([0.0, 1.0, 2.0]), 0.5)
        >>> [round(r, 3) for r in found.tolist()], round(float((found - 1).square().mean()), 3)
        ([0.0, 0.634, 2.366], 1.0)
    """
    x = losses.cpu().double()
    spread = float(x.max() - x.min())
    if spread == 0:
        return torch.ones_like(losses)

    def weights(log_distance: float) -> torch.Tensor:
        above = (x - x.max() + spread * 10**log_distance).clamp_min(0)
        return len(x) * above / above.sum()

    found = weights(_bisected(lambda at: float((weights(at) - 1).square().mean()) / 2 > bound, -8, 8))
    return found.to(losses)


def tail_weights(losses: torch.Tensor, share: float) -> torch.Tensor:
    """Return weights of 1 / share for this share of the texts, those of the largest losses, 0 for the
    others; a text at the border counts in part.

    Example:
        >>> tail_weights(torch.tensor([1.0, 3.0, 2.0]), 0.5).tolist()
        [0.0, 2.0, 1.0]
    """
    order = losses.argsort(descending=True, stable=True)
    places = torch.arange(len(losses), device=losses.device)
    out = torch.empty_like(losses)
    out[order] = ((share * len(losses) - places).clamp(0, 1) / share).to(losses)
    return out


def _bisected(too_small: Callable[[float], bool], low: float, high: float) -> float:
    """Return where what holds below holds no more."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
        if math.isclose(low, high, rel_tol=1e-12, abs_tol=1e-12):
            break
    return high
