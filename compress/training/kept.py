"""What lies beside a checkpoint: what was logged, what objectives learned, and the settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from compress.objectives.base import Objective
from compress.training.checkpoints import AGAIN, checkpoint_of, readable
from probes.errors import InputError
from probes.files import write_whole
from probes.forms import read_json
from probes.states.running import evaluating

_HISTORY = "history.json"
_LEARNED = "objectives.safetensors"
STAMP = "training.json"
_SETTINGS = {
    **dict.fromkeys(("student?", "corpus?"), str),
    "teacher?": (str, None),
    "objective?": [str],
    **dict.fromkeys(("steps?", "batch_size?", "accumulate?", "seed?"), int),
    **dict.fromkeys(("learning_rate?", "warmup?", "weight_decay?", "epsilon?"), float),
    **dict.fromkeys(("scheduler?", "precision?"), str),
    "betas?": [float],
    "max_grad_norm?": (float, None),
    "max_length?": (int, None),
    "prompt?": (str, None),
    "balanced?": (str, None),
}
# Of the Trainer's state, what it takes as it is.
_STATE = {"log_history": [dict], "stateful_callbacks": {"TrainerControl": dict, str: (dict, [dict])}}
_CHANGED = ("pad_token_id", "bos_token_id", "eos_token_id", "use_cache")  # of a configuration, by the Trainer


def settings_of(objective: Objective) -> dict[str, Any]:
    """Return the numbers, words, and maps and tuples of them that an objective was given, beside its
    name, and of an objective that it was given the same.
    """
    names = [f.name for f in dataclasses.fields(objective)] if dataclasses.is_dataclass(objective) else ["weight"]
    out: dict[str, Any] = {}
    for name in names:
        value: Any = getattr(objective, name)
        if isinstance(value, tuple):
            value = dict(enumerate(value))
        elif hasattr(value, "needs") and hasattr(value, "name"):
            out |= {f"{k} of its {value.name}": v for k, v in settings_of(value).items()}
        parts = {str(k): v for k, v in (value if isinstance(value, Mapping) else {"": value}).items()}
        parts = {k: v.item() if isinstance(v, np.generic) else v for k, v in parts.items()}
        if name != "name" and all(isinstance(v, str | int | float | None) for v in parts.values()):
            out[name] = parts if isinstance(value, Mapping) else parts[""]
    return out


@contextmanager
def configuration_kept(model: PreTrainedModel) -> Iterator[None]:
    """Put back what the Trainer takes from the tokenizer: positions may follow the own tokens."""
    every = (model.config, model.config.get_text_config(), getattr(model, "generation_config", None))
    configs = [vars(config) for config in every if config is not None]
    before = [{name: config[name] for name in _CHANGED if name in config} for config in configs]
    try:
        yield
    finally:
        for config, kept in zip(configs, before, strict=True):
            for name in set(_CHANGED) - set(kept):
                config.pop(name, None)
            config.update(kept)


def check_same(folder: Path, begun: bool, stamp: Mapping[str, Any], unsaid: Mapping[str, Any]) -> None:
    """Raise where a folder holds checkpoints of a training by other settings.

    Args:
        folder: that of the training.
        begun: whether there are any.
        stamp: all that decides what comes out.
        unsaid: what holds where a folder does not say.
    """
    if not begun:
        return
    file = folder / STAMP
    try:
        was = read_json(file, _SETTINGS) if file.is_file() else {}
    except InputError as error:
        raise InputError(
            f"{error}. What training the checkpoints beside it are of is not known: give another folder"
        ) from error
    here, there = json.loads(json.dumps(stamp)), {**json.loads(json.dumps(unsaid)), **was}
    for name in [*here, *(name for name in there if name not in here)]:
        if there.get(name) != here.get(name):
            raise InputError(
                f"{folder} holds checkpoints of another training: {name} is {here.get(name)!r} here and was "
                f"{there.get(name)!r} there. Give the same to go on with it, or another folder"
            )


def steps_of(checkpoint: Path) -> int:
    """Return after how many updates a checkpoint was written.

    Raises:
        InputError: its state cannot be read, or is that of another step than its name says.
    """
    with readable(checkpoint):
        steps = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).global_step
        read_json(checkpoint / TRAINER_STATE_NAME, _STATE)
        if checkpoint != checkpoint_of(checkpoint.parent, steps):
            raise ValueError(f"{TRAINER_STATE_NAME} is that of step {steps!r}")
    return steps


class Keeps(TrainerCallback):
    """A callback that keeps something beside every checkpoint, for a training that goes on.

    It is written before the checkpoint is marked as whole, and read when a training goes on from it,
    which is refused where it is not there.

    Attributes:
        file: the name of the file; nothing where there is nothing to keep.
        sharded: whether it needs no more of a student in shards than to read and write its weights
            (`compress.training.sharded`).
    """

    file: str = ""
    sharded: bool = False

    def size(self, student: PreTrainedModel) -> int:
        """Return about how many bytes it has at most: the disk must have room for them."""
        return 0

    def write(self, path: Path) -> None:
        """Write what is kept."""
        raise NotImplementedError

    def read(self, path: Path) -> None:
        """Take up what was kept; the model has the weights of the checkpoint already."""
        raise NotImplementedError

    def check(self, checkpoint: Path, files: Collection[str]) -> None:
        """Raise where a checkpoint of these files is none to go on from, before anything changes."""
        if self.file and self.file not in files:
            raise InputError(f"{checkpoint} has no {self.file}, without which this training does not go on. {AGAIN}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write what is kept beside the checkpoint, in one process."""
        if self.file and state.is_world_process_zero:
            self.write(checkpoint_of(args.output_dir, state.global_step) / self.file)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up what lies beside the checkpoint that a training goes on from."""
        if self.file and state.global_step:
            self.read(checkpoint_of(args.output_dir, state.global_step) / self.file)


class Log(Keeps):
    """What is logged."""

    file = _HISTORY

    def __init__(self) -> None:
        """Begin with nothing."""
        self.rows: list[dict[str, Any]] = []
        self.parts: list[dict[str, float]] = []
        self.noted: list[dict[str, float]] = []

    def add(self, parts: dict[str, float], noted: dict[str, float] | None = None) -> None:
        """Take up the losses of one batch, by the name of the objective, and what else is noted of it."""
        self.parts.append(parts)
        self.noted.append(noted or {})

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make a row of the batches of one update."""
        mean, noted = (
            {k: float(np.mean([p[k] for p in parts])) for k in parts[0]} for parts in (self.parts, self.noted)
        )
        self.rows.append({"step": state.global_step + 1, **mean, "loss": sum(mean.values()), **noted})
        self.parts, self.noted = [], []

    def write(self, path: Path) -> None:
        """Write the rows so far."""
        write_whole(path, json.dumps(self.rows) + "\n")

    def read(self, path: Path) -> None:
        """Take up the rows that were logged until a checkpoint."""
        self.rows = read_json(path, [dict])

    def check(self, checkpoint: Path, files: Collection[str]) -> None:
        """Raise where the rows are not those of all updates until the checkpoint."""
        super().check(checkpoint, files)
        rows = read_json(checkpoint / _HISTORY, [dict])
        found = [row.get("step") for row in rows if "when" not in row]  # the others are of what was measured
        steps = steps_of(checkpoint)
        if found != list(range(1, steps + 1)):
            raise InputError(
                f"{checkpoint / _HISTORY}: expected a row for each of {steps} updates, found {len(found)}. "
                "Give another folder"
            )


class Learned(Keeps):
    """What objectives learn or remember, by their name."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.modules: dict[str, torch.nn.Module] = {}

    def of(self, objective: Objective) -> torch.nn.Module:
        """Return the module of an objective; an empty one where it learns nothing."""
        return self.modules.get(objective.name, torch.nn.Module())

    def prepare(
        self,
        accelerator: Accelerator,
        objective: Sequence[Objective],
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        rows: Sequence[Mapping[str, Any]],
        seed: int,
    ) -> None:
        """Ask each objective for its module, the same in every process, drawn apart."""
        self.accelerator, device = accelerator, accelerator.device
        for o in objective:
            if (prepare := getattr(o, "prepare", None)) is None:
                continue
            with evaluating(student, device), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(seed)
                module = prepare(student, teacher, rows, seed).to(device).train()
            if self.accelerator.num_processes > 1:
                for tensor in module.state_dict().values():
                    broadcast(tensor)
            self.modules[o.name] = module
        self.file = _LEARNED if self.state() else ""

    def size(self, student: PreTrainedModel) -> int:
        """Return the bytes of what was learned, with two means of each number that is trained."""
        modules = self.modules.values()
        trained = sum(p.numel() * p.element_size() for m in modules for p in m.parameters() if p.requires_grad)
        return sum(v.numel() * v.element_size() for v in self.state().values()) + 2 * trained

    def state(self) -> dict[str, torch.Tensor]:
        """Return all that was learned, by the name of the objective and its own."""
        return {f"{name}/{k}": v for name, module in self.modules.items() for k, v in module.state_dict().items()}

    def check(self, checkpoint: Path, files: Collection[str]) -> None:
        """Raise where something else was learned until a checkpoint."""
        kept = load_file(checkpoint / _LEARNED) if _LEARNED in files else {}
        shapes, found = ({k: tuple(v.shape) for k, v in x.items()} for x in (self.state(), kept))
        if shapes != found:
            raise InputError(
                f"{checkpoint} was written by a training whose objectives learn something else: expected "
                f"{shapes or 'nothing'}, found {found or 'nothing'}. Give the same objectives, or another folder"
            )

    def write(self, path: Path) -> None:
        """Write what was learned."""
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in self.state().items()}, path)

    def read(self, path: Path) -> None:
        """Put back what was learned until a checkpoint."""
        kept = load_file(path)
        for k, tensor in self.state().items():
            tensor.copy_(kept[k])

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Give every process the same gradients."""
        if self.accelerator.num_processes > 1:  # equal up to rounding on devices that round as they please; now exactly
            for parameter in self._parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the gradients of this update."""
        for parameter in self._parameters():  # the Trainer does so for the student alone
            parameter.grad = None

    def _parameters(self) -> Iterator[torch.nn.Parameter]:
        return (p for module in self.modules.values() for p in module.parameters())


class Measure(TrainerCallback):
    """Measures the student at some steps, before the callbacks that change it or after."""

    def __init__(
        self,
        when: str,
        evaluate: Callable[[PreTrainedModel], Mapping[str, float]] | None,
        steps: Collection[int],
        log: Log,
    ) -> None:
        """Measure by `evaluate` after the updates of these numbers."""
        self.when, self.evaluate, self.steps, self.log = when, evaluate, steps, log

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measure, where it is time."""
        if self.evaluate is None or state.global_step not in self.steps:
            return
        # Neither dropout nor the random numbers of the training are touched.
        with evaluating(model, model.device), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            found = dict(self.evaluate(model))
        self.log.rows.append({"step": state.global_step, "when": self.when, **found})
