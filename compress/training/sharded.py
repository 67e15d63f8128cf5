"""A student in shards, by accelerate's FSDP: processes train parts of a copy, verbs work on the whole.

Where accelerate is asked for FSDP, each process has its shards of a copy on its device, and the
student itself, whole, in the memory of its host. What callbacks change at a step they change in the
whole one, which is put together before and cut up after.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback

from compress.training.kept import Keeps
from probes.errors import InputError

_NO = "A student in shards (FSDP) is trained"
_EARLY = ("on_init_end", "on_pre_optimizer_step", "on_optimizer_step")
_EVENTS = (
    *("on_train_begin", "on_epoch_begin", "on_step_begin", "on_substep_end", "on_pre_optimizer_step"),
    *("on_optimizer_step", "on_step_end", "on_epoch_end", "on_train_end"),
)


def asked() -> bool:
    """Return whether accelerate is asked for FSDP, as `accelerate launch` tells processes.

    Example:
        >>> asked()
        False
    """
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_shardable(
    student: torch.nn.Module, callbacks: Sequence[TrainerCallback], folder: Path | None, more: Mapping[str, object]
) -> None:
    """Raise where a training cannot be one of shards, before any work.

    Args:
        student: what is trained.
        callbacks: what changes it or looks at it.
        folder: for checkpoints.
        more: other settings by name, which are None where nothing is asked for.

    Raises:
        InputError: by the name of what needs the whole student in a pass, or its gradients.
    """
    if folder is not None:
        raise InputError(
            f"{_NO} in one go: its checkpoints are not gone on from. Leave folder out, or train without FSDP"
        )
    for name, value in more.items():
        if value is not None:
            raise InputError(f"{_NO} without {name}, which needs it whole. Leave it out, or train without FSDP")
    for callback in callbacks:
        whole = getattr(callback, "sharded", None)
        early = [event for event in _EARLY if _has(callback, event)]
        if whole is False or (whole is None and (isinstance(callback, Keeps) or early)):
            raise InputError(
                f"{_NO} by verbs that change its weights alone, and {type(callback).__name__} needs more of it. "
                "Prune by magnitude, quantise to a grid, distil or finetune, or train without FSDP"
            )
    for name, module in student.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise InputError(
                f"{_NO} without hooks, and one is on {name or type(student).__name__}, as of inputs that are rounded. "
                "Give activation_bits=None, or train without FSDP"
            )


def check_learned(modules: Mapping[str, torch.nn.Module]) -> None:
    """Raise `InputError` where an objective learns something of its own."""
    for name, module in modules.items():
        if any(True for _ in module.parameters()):
            raise InputError(
                f"{_NO} by objectives that learn nothing themselves, and {name!r} does. Leave it out, or train "
                "without FSDP"
            )


def check_sharding(accelerator: Accelerator) -> None:
    """Raise `InputError` where accelerate does not do what it is asked for."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        raise InputError(
            f"accelerate is asked for FSDP and does not shard on {accelerator.device.type} in "
            f"{accelerator.num_processes} processes: each of them would train all of the student. Start several on "
            "GPUs, or leave FSDP out"
        )
    if plugin.fsdp_version != 2:
        raise InputError(
            f"expected FSDP 2, found FSDP {plugin.fsdp_version}: set fsdp_version: 2 in the configuration of accelerate"
        )


class Sharded:
    """The copy of a student that is cut into shards, and the whole one beside it.

    Args:
        student: the whole one; it stays where it is.

    Attributes:
        copy: what is trained.
    """

    def __init__(self, student: Any) -> None:
        """Make the copy, whole as yet."""
        self.student, self.copy = student, copy.deepcopy(student)

    @torch.no_grad()
    def gather(self) -> None:
        """Give the whole student the weights of the shards."""
        for own, part in zip(self.student.parameters(), self.copy.parameters(), strict=True):
            own.copy_(part.full_tensor() if isinstance(part, DTensor) else part)

    @torch.no_grad()
    def scatter(self) -> None:
        """Give the shards the weights of the whole student."""
        for own, part in zip(self.student.parameters(), self.copy.parameters(), strict=True):
            if isinstance(part, DTensor):
                part.copy_(distribute_tensor(own.to(part.device), part.device_mesh, part.placements))
            else:
                part.copy_(own)

    def whole(self, callback: TrainerCallback) -> TrainerCallback:
        """Return a callback that sees and changes the whole student."""
        return _Whole(callback, self)


class _Whole(TrainerCallback):
    """Hands a callback the whole student; `_EVENTS` are made below."""

    def __init__(self, callback: TrainerCallback, shards: Sharded) -> None:
        self.callback, self.shards = callback, shards


def _event(name: str) -> Callable[..., Any]:
    def on(self: _Whole, args: Any, state: Any, control: Any, **given: Any) -> Any:
        if not _has(self.callback, name):
            return None
        self.shards.gather()
        answer = getattr(self.callback, name)(args, state, control, **given | {"model": self.shards.student})
        self.shards.scatter()
        return answer

    return on


for _name in _EVENTS:
    setattr(_Whole, _name, _event(_name))


def _has(callback: TrainerCallback, event: str) -> bool:
    return getattr(type(callback), event) is not getattr(TrainerCallback, event)
