"""What contrastive objectives remember: banks of latents, and which rows may be negatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from compress.objectives.base import State, check_count, check_number, check_softened, given_entry
from probes.errors import InputError

# Draws k negatives of each row, (row, k), and says how many of them, the first ones, are of the most similar.
Draw = Callable[[np.random.Generator, np.ndarray, int], tuple[np.ndarray, int]]


class Memory(State):
    """What a contrastive objective learns and remembers; a training loop optimises and saves it.

    Args:
        widths: features of what is projected, of student and teacher, or of the student alone.
        size: features of a latent.
        rows: rows of the banks, those that are trained on.
        sides: which banks there are, of "student" and "teacher".
        draw: draws the negatives of some rows, and says how many of them, the first ones, are the
            similar ones.
        seed: of the projections and banks as they begin, and of the draws.

    Attributes:
        student, teacher: linear maps to latents.
        student_bank, teacher_bank: the latents of every row (row, feature), where there are such
            banks.
        log_z: logarithms of Z, of the student against the teacher's bank and the reverse, set by
            the first batch.
    """

    student_bank: torch.Tensor
    teacher_bank: torch.Tensor
    log_z: torch.Tensor
    like: Callable[[np.random.Generator, np.ndarray], np.ndarray]  # another row of each row's class, where it is asked

    def __init__(
        self, widths: Sequence[int], size: int, rows: int, sides: Sequence[str], draw: Draw, seed: int
    ) -> None:
        """Make projections and banks; the random numbers of PyTorch are left as they were."""
        super().__init__(seed)
        self.draw, self.count = draw, rows
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for side, width in zip(("student", "teacher"), widths, strict=False):
                self.add_module(side, torch.nn.Linear(width, size))
            spread = math.sqrt(3 / size)
            for side in sides:
                self.register_buffer(f"{side}_bank", torch.empty(rows, size).uniform_(-spread, spread))
        self.register_buffer("log_z", torch.zeros(2))

    def latents(self, side: str, x: torch.Tensor) -> torch.Tensor:
        """Project (text, feature) of one model to latents of length 1 (text, size)."""
        linear = getattr(self, side)
        if x.shape[1] != linear.in_features:
            raise InputError(
                f"the projection of the {side} was prepared for {linear.in_features} features a text, found "
                f"{x.shape[1]}: prepare the objective with the models that are trained"
            )
        return F.normalize(linear(x.to(linear.weight.dtype)), dim=1)

    def remember(self, side: str, index: torch.Tensor, latents: torch.Tensor, momentum: float) -> None:
        """Move the latents of some rows towards new ones."""
        bank = self.get_buffer(f"{side}_bank")
        with torch.no_grad():
            bank[index] = F.normalize(momentum * bank[index] + (1 - momentum) * latents, dim=1)

    def rows(self, batch: Mapping[str, Any], name: str) -> np.ndarray:
        """Return the numbers of the rows of a batch."""
        index, count = given_entry(batch, "index", name).cpu().numpy(), self.count
        if (beyond := index[(index < 0) | (index >= count)]).size:
            raise InputError(
                f"objective {name}: the batch has row {beyond[0]}, the memory bank holds {count}: prepare the "
                "objective with the rows that are trained on"
            )
        return index


def check_banked(name: str, weight: float, temperature: float, momentum: float, k: int, size: int) -> None:
    """Raise where a setting that contrastive objectives share is outside its range."""
    check_softened(name, weight, temperature)
    check_number(name, "momentum", momentum, least=0)
    if momentum >= 1:
        raise InputError(f"objective {name}: momentum={momentum!r}: expected below 1, or nothing is kept")
    check_count(name, "k", k)
    check_count(name, "size", size)


@dataclass(frozen=True)
class Pools:
    """Which rows may be negatives of a row: those of other classes; without labels all others."""

    of: np.ndarray  # the number of each row's class
    classes: np.ndarray  # their labels
    order: np.ndarray  # rows sorted by class
    starts: np.ndarray  # where in `order` a class begins
    counts: np.ndarray  # its rows
    labelled: bool

    def others(self, generator: np.random.Generator, rows: np.ndarray, k: int) -> np.ndarray:
        """Draw k rows of other classes for each row, twice only where there are fewer."""
        drawn = np.empty((len(rows), k), np.int64)
        for i, c in enumerate(self.of[rows]):
            there = len(self.of) - self.counts[c]
            places = generator.choice(there, k, replace=k > there, shuffle=False)
            drawn[i] = np.where(places < self.starts[c], places, places + self.counts[c])
        return self.order[drawn]

    def draw(self, generator: np.random.Generator, rows: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        """Draw k rows of other classes for each row, all alike."""
        return self.others(generator, rows, k), k

    def like(self, generator: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        """Draw another row of each row's class; itself, where it is the only one."""
        of = self.of[rows]
        sizes, places = self.counts[of], np.empty(len(self.of), np.int64)
        places[self.order] = np.arange(len(self.of)) - self.starts[self.of[self.order]]
        drawn = generator.integers(np.maximum(sizes - 1, 1))
        drawn = np.where(sizes > 1, drawn + (drawn >= places[rows]), 0)
        return self.order[self.starts[of] + drawn]


def pools_of(rows: Sequence[Mapping[str, Any]], name: str) -> Pools:
    """Sort rows by label; raise where there are none, or a row would have no negatives."""
    if not rows:
        raise InputError(f"objective {name}: the memory bank is empty, there are no rows: give rows to train on")
    labels = [row.get("labels") for row in rows]
    labelled = labels[0] is not None
    for i, label in enumerate(labels):
        if (label is not None) != labelled:
            raise InputError(
                f"objective {name}: rows 0 and {i}: one has a label, the other none: label all rows or none"
            )
        if labelled and not isinstance(label, int | np.integer):
            raise InputError(
                f"objective {name}: row {i} has the label {label!r}: expected one whole number to a text: negatives "
                "are texts of other labels"
            )
    classes, of = np.unique(np.asarray(labels if labelled else range(len(rows))), return_inverse=True)
    if len(classes) < 2:
        one = f"all {len(rows)} rows have the label {classes[0]}" if labelled else "there is one row"
        raise InputError(
            f"objective {name}: {one}, so that no text has a negative: expected rows of at least two labels, or at "
            "least two rows without labels"
        )
    counts = np.bincount(of)
    return Pools(of, classes, np.argsort(of, kind="stable"), counts.cumsum() - counts, counts, labelled)


def draw_of_instances(pools: Pools, nearest: np.ndarray, logs: np.ndarray) -> Draw:
    """Return what draws from the nearest rows (row, near) by log probabilities, then from all."""

    def draw(generator: np.random.Generator, rows: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        near = min(nearest.shape[1], k)
        # The largest of log probabilities plus Gumbel noise are a draw without replacement.
        keys = logs[rows] + generator.gumbel(size=(len(rows), nearest.shape[1]))
        first = np.argsort(-keys, axis=1)[:, :near]
        rest = pools.others(generator, rows, k - near)
        return np.hstack([np.take_along_axis(nearest[rows], first, 1), rest]), near

    return draw


def draw_of_classes(pools: Pools, nearest: np.ndarray, chances: np.ndarray) -> Draw:
    """Return what draws a near class of a row's class (class, near), and any row of it."""
    ends = chances.cumsum(1)[:, None, :-1]

    def draw(generator: np.random.Generator, rows: np.ndarray, k: int) -> tuple[np.ndarray, int]:
        of = pools.of[rows]
        which = (generator.random((len(rows), k, 1)) >= ends[of]).sum(2)
        classes = nearest[of[:, None], which]
        return pools.order[pools.starts[classes] + generator.integers(pools.counts[classes])], k

    return draw
