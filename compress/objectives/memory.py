"""What contrastive objectives remember: banks of latents, and which rows may be negatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from compress.objectives.base import State, given_entry
from probes.errors import InputError

_BLOCK = 2**24  # most similarities in memory at once
# Draws k negatives of each row, (row, k), and says how many of them, the first ones, are of the most similar.
Draw = Callable[[np.random.Generator, np.ndarray, int], tuple[np.ndarray, int]]


class Memory(State):
    """What a contrastive objective learns and remembers; a training loop optimises and saves it.

    Args:
        widths: features of what is projected, of student and teacher.
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

    def __init__(
        self, widths: Sequence[int], size: int, rows: int, sides: Sequence[str], draw: Draw, seed: int
    ) -> None:
        """Make projections and banks; the random numbers of PyTorch are left as they were."""
        super().__init__(seed)
        self.draw = draw
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.student, self.teacher = (torch.nn.Linear(width, size) for width in widths)
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
        index, count = given_entry(batch, "index", name).cpu().numpy(), len(self.teacher_bank)
        if (beyond := index[(index < 0) | (index >= count)]).size:
            raise InputError(
                f"objective {name}: the batch has row {beyond[0]}, the memory bank holds {count}: prepare the "
                "objective with the rows that are trained on"
            )
        return index


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


def nearest_rows(z: torch.Tensor, of: np.ndarray, near: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's most similar rows of other classes (row, near), and log probabilities."""
    z = F.normalize(z, dim=1)
    classes = torch.from_numpy(of).to(z.device)
    block = max(1, _BLOCK // len(z))
    found = []
    for own, own_classes in zip(z.split(block), classes.split(block), strict=True):
        cosines = (own @ z.T).masked_fill(own_classes[:, None] == classes, -math.inf)
        values, rows = cosines.topk(near, dim=1)
        found.append(((values / sharpness).log_softmax(1).cpu(), rows.cpu()))
    logs, rows = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return rows, logs


def confused_classes(
    pools: Pools, probabilities: torch.Tensor, near: int, sharpness: float, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes a class is most taken for, and the probability of each: (class, near)."""
    given = probabilities.double().cpu().numpy()
    if pools.classes.min() < 0 or pools.classes.max() >= given.shape[1]:
        raise InputError(
            f"objective {name}: rows have labels from {pools.classes.min()} to {pools.classes.max()}, the teacher has "
            f"{given.shape[1]} classes: expected labels of the teacher's classes"
        )
    count = len(pools.classes)
    means = np.stack([given[pools.of == c].mean(0) for c in range(count)])[:, pools.classes]
    means[np.eye(count, dtype=bool)] = 0
    total = means.sum(1, keepdims=True)
    similar = np.divide(means, total, out=np.zeros_like(means), where=total > 0)
    similar[np.eye(count, dtype=bool)] = -1  # never one of the nearest
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :near]
    taken = np.take_along_axis(similar, nearest, 1)
    # Less the largest, so that however sharp one chance is not 0.
    chances = np.exp((taken - taken.max(1, keepdims=True)) / sharpness)
    return nearest, chances / chances.sum(1, keepdims=True)
