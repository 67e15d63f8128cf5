"""Which gradients reach the weights: dropped at random, unfrozen layer by layer, of some layers alone.

A rule says, for every update and layer, which share of the entries is trained; `Masks` does it,
the same in every process and from every checkpoint: an entry is drawn by the seed, the update or
epoch, and its place alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.matrices import block_of
from compress.objectives.base import is_number
from probes.errors import InputError, check_choice

_PER = ("step", "epoch", "layer")
_OF_RULES = ("strict", "never", "draw", "shares")
_FINE = 2**16  # of so many parts a share is one
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


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


class Masks:
    """Keeps gradients of a student from its weights, as a rule says.

    Args:
        rule: which; None for no rule: then nothing is done.
        student: what is trained.
        seed: of the training.
        steps, per_epoch: updates of the training, and of one time through its rows.

    Raises:
        InputError: the rule does not fit the student or the training; nothing is left to train.
    """

    def __init__(self, rule: Gradients | None, student: PreTrainedModel, seed: int, steps: int, per_epoch: int) -> None:
        """Check what can be before any work."""
        self.rule, self.student, self.seed, self.per_epoch = rule, student, seed, per_epoch
        self.epochs = math.ceil(steps / per_epoch)
        self.layers: Mapping[str, int] = {}
        self.depth, self.frozen = 0, list[torch.nn.Parameter]()
        self.masked: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self.drawn: dict[str, tuple[tuple[int, int], torch.Tensor]] = {}
        if rule is None:
            return
        if not is_dataclass(rule) or not all(hasattr(rule, name) for name in _OF_RULES):
            raise InputError(
                f"gradients={rule!r}: expected compress.GradDrop(...), GradualUnfreezing() or TrainedLayers(...)"
            )
        self.layers, self.depth = layer_numbers(student)
        never = set(rule.never(self.depth))
        rule.shares(self._now(0))  # raises where it does not fit the training
        self.frozen = [p for n, p in student.named_parameters() if self.layers.get(n) in never and p.requires_grad]
        if all(self.layers.get(n) in never or not p.requires_grad for n, p in student.named_parameters()):
            raise InputError(
                f"gradients={rule!r} leaves nothing to train: {type(student).__name__} has no head, and all of its "
                "layers are frozen. Give a model with a head, or train a layer"
            )

    def stamp(self) -> dict[str, Any]:
        """Return what is kept with a training: the rule; nothing without one."""
        return {} if self.rule is None else {"gradients": said_of(self.rule)}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Freeze what is never trained, and leave the student as it was found."""
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self.frozen:
                parameter.requires_grad_(True)

    def apply(self, step: int) -> None:
        """Take out the gradients that an update is not to see, after so many updates."""
        if self.rule is None:
            return
        now, self.masked = self._now(step), []
        shares, draw = self.rule.shares(now), self.rule.draw(now)
        for place, (name, parameter) in enumerate(self.student.named_parameters()):
            layer = self.layers.get(name)
            if layer is None or parameter.grad is None:
                continue
            kept = round(shares[layer] * _FINE)
            if kept == 0 and self.rule.strict:
                parameter.grad = None  # which the optimizer passes over
            elif kept == 0:
                parameter.grad.zero_()
            elif kept < _FINE:
                mask = self._mask(name, parameter, (draw, kept), place)
                parameter.grad.view(mask.dtype).bitwise_and_(mask)
                self.masked.append((parameter, mask))

    def strictly(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer leave strictly masked entries of weights and moments as they are."""
        if self.rule is None or not self.rule.strict:
            return
        before: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

        def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            for parameter, mask in self.masked:
                moments = [m for m in optimizer.state.get(parameter, {}).values() if _like(m, parameter)]
                before.extend((x, x.detach().clone(), mask) for x in (parameter, *moments))

        def restore(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            known = {id(x) for x, _, _ in before}
            with torch.no_grad():
                for x, old, mask in before:
                    now, was = x.detach().view(mask.dtype), old.view(mask.dtype)
                    now.bitwise_xor_(was).bitwise_and_(mask).bitwise_xor_(was)
                for parameter, mask in self.masked:  # moments that began with this update began at 0
                    for moment in optimizer.state.get(parameter, {}).values():
                        if _like(moment, parameter) and id(moment) not in known:
                            moment.view(mask.dtype).bitwise_and_(mask)
            before.clear()

        optimizer.register_step_pre_hook(note)
        optimizer.register_step_post_hook(restore)

    def _now(self, step: int) -> Now:
        return Now(step, step // self.per_epoch, self.epochs, self.depth, self.seed)

    def _mask(self, name: str, parameter: torch.nn.Parameter, key: tuple[int, int], place: int) -> torch.Tensor:
        """All bits of the entries that are trained, none of the others."""
        if name in self.drawn and self.drawn[name][0] == key:
            return self.drawn[name][1]
        draw, kept = key
        seed = int(np.random.SeedSequence([self.seed, draw, place]).generate_state(1, np.uint64)[0] >> 1)
        generator = torch.Generator(parameter.device).manual_seed(seed)
        # Four draws of 16 bits in one of 64: to draw takes most of the time.
        bits = torch.empty(-(-parameter.numel() // 4), dtype=torch.int64, device=parameter.device)
        drawn = bits.random_(-(2**63), None, generator=generator).view(torch.int16)[: parameter.numel()]
        mask = (drawn < kept - _FINE // 2).to(_INTEGERS[parameter.element_size()]).neg_().view(parameter.shape)
        self.drawn[name] = (key, mask)
        return mask


def _like(moment: Any, parameter: torch.Tensor) -> bool:
    return isinstance(moment, torch.Tensor) and moment.shape == parameter.shape and moment.dtype == parameter.dtype


def said_of(rule: Gradients) -> dict[str, Any]:
    """Return a rule as it is written beside a checkpoint and into a record: its name and fields."""
    return {"rule": type(rule).__name__, **asdict(rule)}  # type: ignore[call-overload]


def layer_numbers(model: PreTrainedModel) -> tuple[dict[str, int], int]:
    """Return the layer of each parameter but those of the head, and the number of the last layer.

    Layer 0 are the embeddings, the others the blocks, those of a decoder after those of its
    encoder. What stands outside, as a last norm, is of the last layer; a pooler is of the head. Of
    layers that share their weights, the parameter is of the lowest; one block run many times is one
    layer.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> layers, depth = layer_numbers(model)
        >>> depth, layers["bert.encoder.layer.5.output.dense.weight"], "classifier.weight" in layers
        (6, 6, False)
    """
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    table, said = model.get_input_embeddings(), model.get_output_embeddings()
    embeds = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    embeds |= {id(p) for p in table.parameters()}
    heads = {id(p) for p in ([] if said is None else said.parameters())} - embeds
    inside = {n: p for n, p in model.named_parameters() if n.startswith(prefix) and id(p) not in heads}
    inside = {n: p for n, p in inside.items() if "pooler" not in n.removeprefix(prefix).split(".")}
    blocks = {n: found for n in inside if (found := block_of(n.removeprefix(prefix))) is not None}
    # Lists side by side, as in XLM, are parts of the same blocks.
    stacks: dict[str, int] = {}
    for found in blocks.values():
        stack, number = _stack(found)
        stacks[stack] = max(stacks.get(stack, 0), number + 1)
    first = dict(zip(stacks, np.cumsum([1, *stacks.values()]).tolist(), strict=False))
    depth = max(1, sum(stacks.values()))
    out: dict[str, int] = {}
    for name, parameter in inside.items():
        if name in blocks:
            stack, number = _stack(blocks[name])
            out[name] = first[stack] + number
        else:
            out[name] = 0 if id(parameter) in embeds or "emb" in name.lower() else depth
    return out, depth


def _stack(block: str) -> tuple[str, int]:
    """The module that holds the list of a block, and the number of the block in it."""
    path, _, number = block.rpartition(".")
    return path.rpartition(".")[0], int(number)
