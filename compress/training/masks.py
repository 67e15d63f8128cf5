"""Gradients kept from the weights, as a rule says, the same in every process and from every checkpoint.

Whether an entry is dropped depends on the seed, the update or epoch, and its place alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.matrices import block_of
from compress.training.gradients import Gradients, Now, said_of
from probes.errors import InputError

_OF_RULES = ("strict", "never", "draw", "shares")
_FINE = 2**16  # of so many parts a share is one
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


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
        self.masked: list[tuple[torch.nn.Parameter, _Place]] = []
        self.places: dict[str, _Place] = {}
        self.parts: list[Part] = []
        self.drawn: tuple[int, Sequence[int]] | None = None
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
        kept = [round(share * _FINE) for share in self.rule.shares(now)]
        if any(0 < count < _FINE for count in kept):
            self._draw(self.rule.draw(now), kept)
        for name, parameter in self.student.named_parameters():
            if name not in self.layers or parameter.grad is None:
                continue
            count = kept[self.layers[name]]
            if count == 0 and self.rule.strict:
                parameter.grad = None  # which the optimizer passes over
            elif count == 0:
                parameter.grad.zero_()
            elif count < _FINE:
                place = self.places[name]
                parameter.grad.view(place.mask.dtype).bitwise_and_(place.mask)
                self.masked.append((parameter, place))

    def strictly(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer leave strictly masked entries of weights and moments as they are.

        In an update there is 0 in their place, as there is in the gradient. AdamW leaves a weight as
        it is, but for its decay, where gradient and moments are 0, and 0 as it is anyway.
        """
        if self.rule is None or not self.rule.strict:
            return
        aside: list[tuple[torch.Tensor, torch.Tensor]] = []

        def put(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            decaying = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
            for parameter, place in self.masked:
                if id(parameter) in decaying:
                    aside.append(_without(parameter.detach().view(place.mask.dtype), place.mask, None))
                place.part.lay(parameter, place, optimizer.state.get(parameter, {}))
            for part in self.parts if self.masked else ():
                aside.extend(part.put())

        def back(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            with torch.no_grad():
                for now, was in aside:
                    now.bitwise_or_(was)
            aside.clear()

        optimizer.register_step_pre_hook(put)
        optimizer.register_step_post_hook(back)

    def _now(self, step: int) -> Now:
        return Now(step, step // self.per_epoch, self.epochs, self.depth, self.seed)

    def _draw(self, draw: int, kept: Sequence[int]) -> None:
        """Draw the masks: all bits of the entries that are trained, none of the others."""
        if self.drawn == (draw, kept):
            return
        self.drawn = (draw, kept)
        if not self.parts:
            self._lay_out()
        for number, part in enumerate(self.parts):
            part.draw([self.seed, draw, number], kept)

    def _lay_out(self) -> None:
        """Make room for the masks of all parameters, those of one device and type side by side."""
        alike: dict[tuple[torch.device, int], list[tuple[str, torch.nn.Parameter]]] = {}
        for name, parameter in self.student.named_parameters():
            if name in self.layers:
                alike.setdefault((parameter.device, parameter.element_size()), []).append((name, parameter))
        for (device, size), members in alike.items():
            part = Part(device, size, sum(parameter.numel() for _, parameter in members))
            self.parts.append(part)
            start = 0
            for layer, together in groupby(members, key=lambda member: self.layers[member[0]]):
                begin = start
                for name, parameter in together:
                    end = start + parameter.numel()
                    self.places[name] = _Place(part, start, end, part.masks[start:end].view(parameter.shape))
                    start = end
                part.runs.append((layer, begin, start))


@dataclass(frozen=True)
class _Place:
    """Where a parameter stands in its part, and its mask there."""

    part: Part
    start: int
    end: int
    mask: torch.Tensor


class Part:
    """The masks of all parameters of one device and type, side by side, and what an optimizer remembers.

    In few pieces, in memory that is there: parameter by parameter it takes three times as long.

    Args:
        device: of the parameters.
        size: of an entry, in bytes.
        total: how many entries there are.
    """

    def __init__(self, device: torch.device, size: int, total: int) -> None:
        """Make room."""
        self.bits = torch.empty(-(-total // 4), dtype=torch.int64, device=device)
        self.masks = torch.zeros(total, dtype=_INTEGERS[size], device=device)
        self.runs: list[tuple[int, int, int]] = []  # of a layer, from here to there
        self.spans: list[tuple[int, int, int]] = []  # of as many entries that are trained
        self.moments: dict[str, torch.Tensor] = {}
        self.aside: dict[str, torch.Tensor] = {}
        self.views: dict[tuple[str, int], torch.Tensor] = {}

    def draw(self, seeds: Sequence[int], kept: Sequence[int]) -> None:
        """Draw the masks of layers of which a share is trained: all bits of an entry, or none."""
        drawn = self._random(np.random.SeedSequence(seeds)).view(torch.int16)  # of each four draws
        self.spans = []
        for layer, start, end in self.runs:
            if not 0 < kept[layer] < _FINE:
                continue
            if self.spans and self.spans[-1][0] == kept[layer] and self.spans[-1][2] == start:
                start = self.spans.pop()[1]
            self.spans.append((kept[layer], start, end))
        for count, start, end in self.spans:
            masks = self.masks[start:end]
            if masks.element_size() == 2:  # which has no room for the difference
                torch.lt(drawn[start:end], count - _FINE // 2, out=masks).neg_()
            else:  # the sign of the difference, in all bits; quicker than to compare
                masks.copy_(drawn[start:end]).sub_(count - _FINE // 2)
                masks.bitwise_right_shift_(8 * masks.element_size() - 1)

    def _random(self, seeds: np.random.SeedSequence) -> torch.Tensor:
        if self.bits.device.type == "cpu":  # twice as fast as torch
            return torch.from_numpy(np.random.SFC64(seeds).random_raw(len(self.bits)).view(np.int64))
        seed = int(seeds.generate_state(1, np.uint64)[0] >> 1)
        return self.bits.random_(-(2**63), None, generator=torch.Generator(self.bits.device).manual_seed(seed))

    def lay(self, parameter: torch.Tensor, place: _Place, state: dict[str, Any]) -> None:
        """Have what an optimizer remembers of each entry of a parameter stand beside that of the others."""
        for name, moment in state.items():
            key = name, place.start
            if name == "step" or moment is self.views.get(key) or not isinstance(moment, torch.Tensor):
                continue
            if moment.shape == parameter.shape and moment.dtype == parameter.dtype:
                whole = self.moments.setdefault(name, torch.zeros_like(self.masks))
                view = whole[place.start : place.end].view(moment.dtype).view(moment.shape)
                self.views[key] = state[name] = view.copy_(moment)

    def put(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Take the entries that are not trained out of what an optimizer remembers; give what is left, and them."""
        for name, whole in self.moments.items():
            room = self.aside.setdefault(name, torch.empty_like(whole))
            for _, start, end in self.spans:
                yield _without(whole[start:end], self.masks[start:end], room[start:end])


def _without(now: torch.Tensor, mask: torch.Tensor, room: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Put 0 where a mask has none of its bits; return the tensor, and what was there alone."""
    was = now.clone() if room is None else room.copy_(now)
    return now, was.bitwise_xor_(now.bitwise_and_(mask))


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
