"""Distillation of guided diffusion models: guidance in one pass, then fewer and fewer steps."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from compress.distillation.denoisers import Data, Guided, Read, check_denoiser, fingerprint_of, rows_of
from compress.objectives.base import Objective, is_whole
from compress.objectives.diffusion import SAMPLERS, Denoising, GuidedInOnePass, TwoStepsInOne, check_guidance
from compress.training.settings import DEFAULTS, FIELDS, TrainingSettings, check_names, settings_by
from compress.training.trainer import train_rows
from probes.errors import InputError, check_choice, path_of
from probes.models.fingerprint import weights_fingerprint

_OF_LOOP = ("save_every", "progress", "wait")
_OF_TEXTS = ("max_length", "prompt", "balanced")


def distill_diffusion(
    denoiser: torch.nn.Module,
    data: Data,
    *,
    steps: Sequence[int] = (64, 32, 16, 8, 4),
    guidance: tuple[float, float] = (0.0, 4.0),
    sampler: str = "deterministic",
    updates: int = 1000,
    folder: str | Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> torch.nn.Module:
    """Make a guided denoiser that samples in a few steps of one pass each, in place of many of two.

    First a copy of the denoiser learns what guidance of any weight makes of it, in one pass; then
    one that begins as this learns to go in one step where it goes in two, and so on, each the
    teacher of the next.

    Args:
        denoiser: any module of the form of `Denoiser`; it stays as
            it is. One that this function gave is gone on with from the number of steps that it
            takes.
        data: x (row, ...), about of mean 0 and variance at most 1, and label (row,), as
            scikit-learn has them: what it was trained on.
        steps: of the sampler, each half of the one before. The first is that at which halving
            begins; alone, it is guidance in one pass only.
        guidance: the lowest and the highest weight w that is learned: 0 for what the denoiser says
            of the class, more for (1 + w) times that less w times what it says of no class.
        sampler: that it is to be sampled by, "deterministic" or "stochastic"
            (`compress.objectives.TwoStepsInOne`).
        updates: of the weights, for guidance and for each number of steps after the first.
        folder: where checkpoints go, a folder in it for each number of steps. What was interrupted
            goes on there.
        seed: of rows, levels, noise and weights of guidance.
        settings: of `TrainingSettings`: learning_rate, batch_size, ...; and of
            `compress.training.train`: save_every, progress, wait.

    Returns:
        A module of the same class, with `compression`, what was done to it, and `history`, what was
        logged: a row an update with `steps`, `step` and `loss`.

    Raises:
        InputError: before the first update, where steps do not halve, the range of weights is empty
            or reversed, a label is out of range, or the denoiser does not give a velocity of the
            shape of x, cannot read that there is no class, or takes another number of steps or
            another sampler; what `compress.training.train` raises.

    Notes:
        Meng et al. 2022, arXiv 2210.03142. Differs from it: the noise schedule is the cosine's alone,
        the learning rate falls to 0 in each stage by default, weights are not averaged, and all
        stages take as many updates: those that take more are by a call of their own, which goes on
        from what the last one gave.

    See also:
        `sample_diffusion`, `train_denoiser`, `save_denoiser`, `capture_denoiser`

    Example:
        >>> from sklearn.datasets import make_blobs
        >>> class Small(torch.nn.Module):
        ...     def __init__(self, classes):
        ...         super().__init__()
        ...         self.classes, self.settings = classes, {"classes": classes}
        ...         self.of_label = torch.nn.Embedding(classes + 1, 8)
        ...         self.into, self.out = torch.nn.Linear(8 + 4, 8), torch.nn.Linear(8, 2)
        ...
        ...     def forward(self, x, level, label, guidance):
        ...         read = torch.cat([x, level[:, None], guidance[:, None], self.of_label(label)], 1)
        ...         return self.out(self.into(read).relu())
        >>> data = make_blobs(60, 2, centers=3, center_box=(-1, 1), cluster_std=0.1, random_state=0)
        >>> given = {"updates": 2, "progress": False}
        >>> teacher = train_denoiser(Small(3), data, **given)
        >>> fast = distill_diffusion(teacher, data, steps=[4, 2], **given)
        >>> fast.compression["steps"], fast.history["steps"].tolist()
        ([4, 2], [4, 4, 2, 2])
    """
    numbers, low_high = _check_steps(steps), check_guidance(guidance)
    check_choice("sampler", sampler, SAMPLERS)
    x, label = rows_of(data, check_denoiser(denoiser))
    before = _check_before(denoiser, numbers, low_high, sampler)
    check_denoiser(denoiser, x)
    run = _Run(x, label, updates, folder, seed, settings)
    student, objectives = copy.deepcopy(denoiser), []
    for number in numbers if before is None else numbers[1:]:
        first = before is None and number == numbers[0]
        teacher = Guided(copy.deepcopy(denoiser)) if first else copy.deepcopy(student)
        objective: GuidedInOnePass = TwoStepsInOne(low_high, steps=number, sampler=sampler)
        if first:
            objective = GuidedInOnePass(low_high)
        run.stage(student, objective, number, teacher)
        objectives.append(objective.name)
    what = {"steps": numbers, "guidance": list(low_high), "sampler": sampler if len(numbers) > 1 else None}
    if before is not None:
        what["before"] = before
    return run.recorded(student, denoiser, {"method": "distill_diffusion", **what}, objectives)


def train_denoiser(
    denoiser: torch.nn.Module,
    data: Data,
    *,
    unlabelled: float = 0.1,
    updates: int = 1000,
    folder: str | Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> torch.nn.Module:
    """Train a denoiser on data, of their classes and of none, so that it can be guided.

    Args:
        denoiser: any module of the form of `Denoiser`; it stays as
            it is.
        unlabelled: the share of rows that are of no class, at least 0 and below 1.
        data, updates, folder, seed, settings: as of `distill_diffusion`.

    Returns:
        A module of the same class, with `compression` and `history` as of `distill_diffusion`.

    Raises:
        InputError: what `distill_diffusion` raises of them, or the denoiser was distilled.

    Notes:
        The objective is `compress.objectives.Denoising`: Ho and Salimans 2022, arXiv 2207.12598.

    See also:
        `distill_diffusion`, which has an example
    """
    x, label = rows_of(data, classes := check_denoiser(denoiser))
    if distilled(denoiser) is not None:
        raise InputError(
            f"{type(denoiser).__name__} was distilled to sample in {distilled(denoiser)['steps'][-1]} steps, which "
            "this would undo: train the one that it was made of"
        )
    objective = Denoising(classes, unlabelled)
    check_denoiser(denoiser, x)
    run, student = _Run(x, label, updates, folder, seed, settings), copy.deepcopy(denoiser)
    run.stage(student, objective, None)
    return run.recorded(student, denoiser, {"method": "train_denoiser", "unlabelled": unlabelled}, [objective.name])


def distilled(denoiser: torch.nn.Module) -> Any:
    """Return what is recorded of the distillation that a denoiser comes from; None where none is."""
    found = getattr(denoiser, "compression", None)
    return found if isinstance(found, Mapping) and found.get("method") == "distill_diffusion" else None


class _Run:
    """The trainings of a verb: checked when it is made, run stage by stage, recorded."""

    def __init__(
        self,
        x: torch.Tensor,
        label: torch.Tensor,
        updates: int,
        folder: str | Path | None,
        seed: int,
        settings: Mapping[str, Any],
    ) -> None:
        """Check the settings before any work."""
        check_names(settings, {*FIELDS, *_OF_LOOP} - {*_OF_TEXTS})
        if not is_whole(updates) or updates < 1:
            raise InputError(f"updates={updates!r}: expected a whole number of at least 1")
        self.x, self.label, self.updates, self.seed = x, label, int(updates), seed
        self.folder = None if folder is None else path_of(folder, "folder")
        self.how: TrainingSettings = settings_by({k: v for k, v in settings.items() if k not in _OF_LOOP})
        self.loop = {k: v for k, v in settings.items() if k in _OF_LOOP}
        self.rows = [{"index": i} for i in range(len(x))]
        self.logged: list[pd.DataFrame] = []

    def stage(
        self,
        student: torch.nn.Module,
        objective: Objective,
        steps: int | None,
        teacher: torch.nn.Module | None = None,
    ) -> None:
        """Train a denoiser in place."""
        where = self.folder
        if where is not None and steps is not None:
            where = where / f"steps_{steps}"
        history = train_rows(
            Read(student),
            self.rows,
            self._batch,
            objective=[objective],
            steps=self.updates,
            of={"data": fingerprint_of(self.x, self.label)},
            teacher=None if teacher is None else Read(teacher),
            folder=where,
            seed=self.seed,
            settings=self.how,
            **self.loop,
        )
        self.logged.append(history if steps is None else history.assign(steps=steps))

    def _batch(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        index = torch.tensor([row["index"] for row in rows])
        zero = torch.zeros(len(rows))  # of noise and guidance: objectives draw both
        return {"x": self.x[index], "level": zero, "label": self.label[index], "guidance": zero, "index": index}

    def recorded(
        self, student: torch.nn.Module, parent: torch.nn.Module, what: Mapping[str, Any], objectives: Sequence[str]
    ) -> torch.nn.Module:
        """Keep with a denoiser what was done to it, as `compression`, and what was logged."""
        given = asdict(self.how)
        other = {k: v for k, v in given.items() if v != DEFAULTS[k]}
        about = {"updates": self.updates, "seed": self.seed, "objective": list(dict.fromkeys(objectives))}
        if other:
            about["training"] = json.loads(json.dumps(other))
        versions = {"parent": weights_fingerprint(parent), "torch": torch.__version__}
        history = pd.concat(self.logged, ignore_index=True)
        first = [c for c in ("steps", "step", "loss") if c in history]
        vars(student)["compression"] = {**what, **about, **versions}
        vars(student)["history"] = history[first]
        return student


def _check_steps(steps: Any) -> list[int]:
    """Return the numbers of steps; raise where each is not half of the one before."""
    numbers = list(steps) if isinstance(steps, Sequence) and not isinstance(steps, str) else [steps]
    expected = "expected whole numbers, each half of the one before, as [64, 32, 16, 8, 4]"
    for i, number in enumerate(numbers):
        if not is_whole(number) or number < 1:
            raise InputError(f"steps={steps!r}: {expected}; found {number!r}")
        if i and 2 * number != numbers[i - 1]:
            raise InputError(f"steps={steps!r}: {number} is not half of {numbers[i - 1]}: {expected}")
    if not numbers:
        raise InputError(f"steps={steps!r}: {expected}; found none")
    return [int(number) for number in numbers]


def _check_before(
    denoiser: torch.nn.Module, steps: Sequence[int], guidance: tuple[float, float], sampler: str
) -> dict[str, Any] | None:
    """Return what was done before to a denoiser that goes on; raise where it does not go on so."""
    before = distilled(denoiser)
    if before is None:
        return None
    name, last, (low, high) = type(denoiser).__name__, before["steps"][-1], before["guidance"]
    if steps[0] != last or len(steps) == 1:
        raise InputError(
            f"steps={list(steps)}: {name} was distilled and takes {last} steps: go on from there, as with "
            f"steps={[last, last // 2] if last > 1 else '...: one step is the least'}"
        )
    if guidance[0] < low or guidance[1] > high:
        raise InputError(
            f"guidance={guidance}: {name} was distilled for weights of {low:g} to {high:g}: give a range within them"
        )
    if before["sampler"] not in (None, sampler):
        raise InputError(f"sampler={sampler!r}: {name} was distilled for the {before['sampler']} one: go on with that")
    return dict(before)
