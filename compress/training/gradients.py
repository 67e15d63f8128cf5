"""Which gradients reach the weights: dropped at random, unfrozen layer by layer, of some layers alone.

A rule says, for every update and layer, which share of the entries is trained; `Masks` of
`compress.training.masks` does it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from compress.objectives.base import is_number
from probes.errors import InputError, check_choice

_PER = ("step", "epoch", "layer")


@dataclass(frozen=True)
class Now:
    """Where a training is: what a rule reads.

    Attributes:
        step: updates done.
        epoch, epochs: times through the rows, done and in all.
        depth: of the student: its layers are 0, the embeddings, to this number.
        seed: of the training.
    """

    step: int
    epoch: int
    epochs: int
    depth: int
    seed: int


class Gradients(Protocol):
    """What a training asks of a rule; those here are dataclasses, whose fields are kept with it.

    See also:
        `GradDrop`, `GradualUnfreezing`, `TrainedLayers`
    """

    @property
    def strict(self) -> bool:
        """Whether what is masked stays as it is, weights and moments alike; else its gradient is 0."""

    def never(self, depth: int) -> Collection[int]:
        """Return the layers that are never trained; raise `InputError` where it does not fit."""

    def draw(self, now: Now) -> int:
        """Return the number of the draw: entries are drawn anew where it changes."""

    def shares(self, now: Now) -> Sequence[float]:
        """Return for each layer, from 0, the share of its entries that is trained."""


@dataclass(frozen=True)
class GradDrop:
    """Drop gradients at random, so that pretrained weights are moved less often, or later.

    The head is always trained. A layer is its block, 0 the embeddings; what stands outside both, as
    a last norm, goes with the last block.

    Args:
        p: share that is dropped, 0 to 1; or one a layer, from the embeddings on. Rounded to 1 of
            65,536.
        per: "step": entries are drawn anew for every update. "epoch": for every time through the
            rows, in the first of which the head alone is trained. "layer": each update trains a
            layer whole or not at all.
        accumulating: with per="epoch": entries that are trained once stay so, from none in the first
            epoch to all but the share p in the last, equally many more in each.
        falling: p at the embeddings, less by equal steps in each layer, 0 in the last one.
        strict: what is dropped stays exactly as it is, weights and AdamW's means alike. Otherwise
            its gradient is 0: it moves by what AdamW remembers, and decays.
        inverted: with per="epoch": the first epoch trains all, and entries that are drawn are
            dropped.

    Raises:
        InputError: a share outside 0 to 1, not as many as layers; a word is not known;
            `accumulating` or `inverted` without per="epoch", or a training of one epoch with it.

    Notes:
        O' Neill and Dutta 2023, GradDrop, the variants as recalled. Choices made here: no factor
        1 / (1 - p); masked before the gradient is clipped; AdamW counts all updates, also of
        entries that strictly have fewer; the linear rise of `accumulating`. At p = 1 nothing but
        the head moves. What several layers share goes with the lowest of them.

    Example:
        >>> rule = GradDrop(0.3, per="layer", falling=True)
        >>> [round(rule.dropped(layer, 6), 2) for layer in range(7)]
        [0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.0]

    See also:
        `GradualUnfreezing`, `TrainedLayers`, `compress.recipes.graddrop`
    """

    p: float | Sequence[float]
    per: Literal["step", "epoch", "layer"] = "step"
    accumulating: bool = False
    falling: bool = False
    strict: bool = False
    inverted: bool = False

    def __post_init__(self) -> None:
        check_choice("per", self.per, _PER)
        several = isinstance(self.p, Sequence | np.ndarray) and not isinstance(self.p, str)
        given: Sequence[Any] = self.p if several else [self.p]  # type: ignore[assignment]
        for number in given:
            if not is_number(number) or not 0 <= number <= 1:
                raise InputError(f"p={number!r}: expected a share of the gradients that is dropped, 0 to 1")
        kept: Any = [float(number) for number in given]
        object.__setattr__(self, "p", kept if several else kept[0])  # as it is written beside a checkpoint
        for name in ("accumulating", "inverted"):
            if getattr(self, name) and self.per != "epoch":
                raise InputError(f"{name}=True is about epochs, and per={self.per!r}: give per='epoch'")
        if self.falling and several:
            raise InputError("falling=True makes of one p those of all layers, and several are given: leave it out")

    def dropped(self, layer: int, depth: int) -> float:
        """Return the share that is dropped in a layer."""
        if isinstance(self.p, Sequence):
            return self.p[layer]
        return self.p * (1 - layer / depth) if self.falling else self.p

    def never(self, depth: int) -> Collection[int]:
        """Return the layers of which all is dropped."""
        if isinstance(self.p, Sequence) and len(self.p) != depth + 1:
            raise InputError(
                f"p has {len(self.p)} shares: expected {depth + 1}, one for the embeddings and one for each of the "
                f"{depth} layers"
            )
        return [] if self.inverted else [layer for layer in range(depth + 1) if self.dropped(layer, depth) == 1]

    def draw(self, now: Now) -> int:
        """Return the update, the epoch, or 0 where what is drawn once is added to."""
        return 0 if self.accumulating else now.epoch if self.per == "epoch" else now.step

    def shares(self, now: Now) -> Sequence[float]:
        """Return the share that is trained of each layer."""
        kept = np.array([1 - self.dropped(layer, now.depth) for layer in range(now.depth + 1)])
        if self.per == "layer":
            return (np.random.default_rng([now.seed, now.step]).random(len(kept)) < kept).astype(float).tolist()
        if self.per == "step":
            return kept.tolist()
        _check_epochs(now.epochs, f"GradDrop(per='epoch', inverted={self.inverted})")
        done = now.epoch / (now.epochs - 1) if self.accumulating else float(now.epoch > 0)
        if not self.inverted:
            return (kept * done).tolist()
        return (1 - (kept if self.accumulating else 1 - kept) * done).tolist()


@dataclass(frozen=True)
class GradualUnfreezing:
    """Train the head alone in the first epoch, and from each further one on one more layer, from
    the last one down to the embeddings.

    Layers that are not trained yet stay exactly as they are.

    Notes:
        Howard and Ruder 2018, arXiv 1801.06146, whose first epoch trains the head and what stands
        right below it; here the head alone. A training with fewer epochs than layers and 2 leaves
        the lowest ones as they are.

    Example:
        >>> GradualUnfreezing().shares(Now(step=40, epoch=2, epochs=8, depth=6, seed=0))
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]

    See also:
        `GradDrop`, `compress.recipes.gradual_unfreezing`
    """

    strict: ClassVar[bool] = True

    def never(self, depth: int) -> Collection[int]:
        """Return no layer: how many epochs there are is not known yet."""
        return []

    def draw(self, now: Now) -> int:
        """Return 0: nothing is drawn."""
        return 0

    def shares(self, now: Now) -> Sequence[float]:
        """Return 1 for the layers that are trained by now."""
        _check_epochs(now.epochs, "GradualUnfreezing")
        return [float(now.depth - layer < now.epoch) for layer in range(now.depth + 1)]


@dataclass(frozen=True)
class TrainedLayers:
    """Train some layers and the head alone; without any the whole encoder is frozen.

    All others stay exactly as they are, and no gradient is computed for what stands below all that
    is trained.

    Args:
        layers: their numbers, 0 the embeddings, i what makes hidden state i.

    Raises:
        InputError: a layer that is not there; nothing is left to train.

    Example:
        >>> TrainedLayers([5, 6]).never(6)
        [0, 1, 2, 3, 4]

    See also:
        `GradualUnfreezing`; `finetune(layers=...)`, which also chooses them
    """

    layers: Sequence[int] = ()
    strict: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.layers, str) or not isinstance(self.layers, Sequence | np.ndarray):
            raise InputError(f"layers={self.layers!r}: expected numbers of layers, as in [5, 6]; [] for none")
        for number in self.layers:
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
                raise InputError(f"layer {number!r}: expected a whole number of at least 0, the embeddings")
        object.__setattr__(self, "layers", sorted({int(number) for number in self.layers}))

    def never(self, depth: int) -> Collection[int]:
        """Return all other layers."""
        for number in self.layers:
            if number > depth:
                raise InputError(
                    f"layer {number} is not there: the model has the layers 0, its embeddings, to {depth}, the last one"
                )
        return [layer for layer in range(depth + 1) if layer not in self.layers]

    def draw(self, now: Now) -> int:
        """Return 0: nothing is drawn."""
        return 0

    def shares(self, now: Now) -> Sequence[float]:
        """Return 1 for its layers."""
        return [float(layer in self.layers) for layer in range(now.depth + 1)]


def _check_epochs(epochs: int, name: str) -> None:
    if epochs < 2:
        raise InputError(
            f"{name} changes from epoch to epoch, and these steps are one at most: give more steps, or fewer rows"
        )


def said_of(rule: Gradients) -> dict[str, Any]:
    """Return a rule as it is written beside a checkpoint and into a record: its name and fields."""
    return {"rule": type(rule).__name__, **asdict(rule)}  # type: ignore[call-overload]
