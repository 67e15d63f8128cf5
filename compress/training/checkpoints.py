"""Which checkpoint a training goes on from: the newest that is whole, as a marker written last says.

transformers' Trainer writes a checkpoint in place, file by file, and callbacks write theirs after it.
The marker holds size and hash of every file, and is there only when all of them are.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from probes.errors import InputError
from probes.files import check_space, named, write_whole
from probes.forms import read_json
from probes.models.weights import stored_bytes

MARKER = "complete.json"
_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-([1-9]\d*)")
_MARKED = {"checkpoint": str, "files": {str: {"bytes": range(2**63), "sha256": str}}}
_RANDOM = "rng_state"  # what the files of random states begin with, one a process


def checkpoint_of(folder: str | Path, step: int) -> Path:
    """Return where the checkpoint of a step lies, as the Trainer has it."""
    return Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def checkpoints_in(folder: str | Path) -> dict[int, Path]:
    """Return the checkpoints of a folder by their steps, the newest first, whole or not."""
    paths = Path(folder).iterdir() if Path(folder).is_dir() else ()
    found = {int(m[1]): path for path in paths if (m := _NAME.fullmatch(path.name)) and path.is_dir()}
    return dict(sorted(found.items(), reverse=True))


def newest_whole(folder: str | Path) -> tuple[Path | None, list[str]]:
    """Return the checkpoint that a training goes on from, and what is wrong with newer ones.

    Args:
        folder: that of the training.

    Returns:
        The newest checkpoint that is whole, None without one; and a message for each newer one.
    """
    wrong: dict[Path, str] = {}
    whole: Path | None = None
    for path in checkpoints_in(folder).values():
        if damage := damage_of(path):
            wrong[path] = damage
        else:
            whole = path
            break
    then = "begins anew" if whole is None else f"goes on from {whole.name}"
    return whole, [f"{p} is passed over, it is not whole: {why}. The training {then}" for p, why in wrong.items()]


def check_room(folder: Path, student: torch.nn.Module, done: int, steps: int, every: int, more: int = 0) -> None:
    """Raise `InputError` where the disk has not room for the checkpoints of a training.

    Args:
        folder: that of the training.
        student: what is trained: a checkpoint holds its weights, and of those that are trained two
            means each.
        done: the updates until the checkpoint that the training goes on from, 0 without one.
        steps, every: updates in all, and from one checkpoint to the next.
        more: bytes that callbacks keep beside each.
    """
    if done >= steps:
        return
    to_come = math.ceil(steps / every) - done // every
    there = sum((path / MARKER).is_file() for path in checkpoints_in(folder).values())
    trained = sum(p.numel() * p.element_size() for p in student.parameters() if p.requires_grad)
    # Two are kept, and a third is whole before the oldest goes.
    count = min(to_come, 3 - min(there, 2))
    check_space(folder, count * (stored_bytes(student) + 2 * trained + more), "the checkpoints")


@contextmanager
def written_whole(folder: Path) -> Iterator[None]:
    """Name the folder of a training where the system refuses, and leave nothing in part."""
    new = not folder.exists()
    try:
        with named(folder):
            yield
    except Exception as error:
        for path in checkpoints_in(folder).values() if isinstance(error, OSError) else ():
            if not (path / MARKER).is_file():
                remove(path)
        with suppress(OSError):  # it is not empty
            if new:
                folder.rmdir()
        raise


def damage_of(checkpoint: Path) -> str:
    """Say what is wrong with a checkpoint, by the name of a file; nothing where it is whole."""
    if not (checkpoint / MARKER).is_file():
        return f"{MARKER}, which is written last, is missing"
    try:
        files = files_of(checkpoint)
    except InputError as error:
        return str(error)
    for name, (size, digest) in files.items():
        file = checkpoint / name
        if not os.path.isfile(file):  # also of a name that no file can have
            return f"{name} is missing"
        if (found := file.stat().st_size) != size:
            return f"{name} has {found:,} bytes and was written with {size:,}"
        if _digest(file) != digest:
            return f"{name} is not what was written"
    return ""


def files_of(checkpoint: Path) -> dict[str, tuple[int, str]]:
    """Return size and hash of the files of a checkpoint by their names, as its marker has them.

    Raises:
        InputError: the marker is not one, or is that of another step.
    """
    try:
        marker = read_json(checkpoint / MARKER, _MARKED)
    except InputError as error:
        raise InputError(f"{MARKER} does not give size and hash of each file ({error})") from error
    files = marker["files"]
    for path in map(PurePosixPath, files):
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise InputError(f"{MARKER} names the file {str(path)!r}, which is none of the checkpoint")
    if marker["checkpoint"] != checkpoint.name:
        raise InputError(f"{MARKER} is that of {marker['checkpoint']!r}")
    return {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}


@contextmanager
def readable(checkpoint: str | Path | None) -> Iterator[None]:
    """Raise `InputError` where a checkpoint whose marker is right holds what no training wrote."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of torch, safetensors, json and transformers, several kinds each
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{checkpoint}: a training cannot go on from what lies there ({type(error).__name__}: {said}). {AGAIN}"
        ) from error


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint; raise `InputError` where they cannot be read."""
    with readable(checkpoint):
        return load_file(checkpoint / SAFE_WEIGHTS_NAME)


class GoesOn(Trainer):
    """Transformers' Trainer, which says in one sentence what of a checkpoint it cannot read."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with readable(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_rng_state(checkpoint)


def check_needed(checkpoint: Path, files: Mapping[str, Any], arguments: TrainingArguments) -> None:
    """Raise where a checkpoint has not what the Trainer would go on without, and not as it was.

    Raises:
        InputError: optimiser, schedule, state or random states are not among its files.
    """
    for name in (OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME):
        if name not in files:
            raise InputError(f"{checkpoint} has no {name}, without which a training does not go on as it was. {AGAIN}")
    count = arguments.world_size
    wanted = {f"{_RANDOM}{'' if count == 1 else f'_{i}'}.pth" for i in range(count)}
    found = {name for name in files if name.startswith(_RANDOM)}
    if wanted != found:
        raise InputError(
            f"{checkpoint} does not have the random states of {count} process{'es' if count > 1 else ''}: expected "
            f"{', '.join(sorted(wanted))}, found {', '.join(sorted(found)) or 'none'}. Train by as many processes as "
            "before, or give another folder"
        )


AGAIN = "Give the settings that it was written by, or another folder"


class Marks(TrainerCallback):
    """Marks each checkpoint as whole, and only then removes older ones; the last of the callbacks."""

    def __init__(self) -> None:
        """Begin without processes to wait for: `accelerator` is set once there are."""
        self.accelerator: Accelerator | None = None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the marker of a checkpoint to which nothing is added any more."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()  # each process writes its random states
        if state.is_world_process_zero:
            mark(checkpoint_of(args.output_dir, state.global_step))
            remove_older(args.output_dir, state.global_step, newer=True)


def mark(checkpoint: Path) -> None:
    """Write beside the files of a checkpoint that they are all there, with size and hash of each."""
    files = {
        path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
    write_whole(checkpoint / MARKER, json.dumps({"checkpoint": checkpoint.name, "files": files}, indent=1) + "\n")


def remove_older(folder: str | Path, step: int, newer: bool = False) -> None:
    """Remove all checkpoints but that of a step, which is whole, and the one before it.

    Args:
        folder: that of the training.
        step: of the newest checkpoint that is whole.
        newer: also those of later steps, which were passed over.
    """
    found = checkpoints_in(folder)
    before = [s for s, path in found.items() if s < step and (path / MARKER).is_file()]
    for s, path in found.items():
        if s not in (step, *before[:1]) and (s < step or newer):
            remove(path)


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint, its marker first: it counts for nothing from then on."""
    with suppress(IsADirectoryError):  # not one of ours
        (checkpoint / MARKER).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
