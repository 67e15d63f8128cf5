"""Checkpoints of one training, in the order of their steps."""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from probes.errors import InputError, LayerscopeWarning
from probes.forms import read_json
from probes.models.checkpoint import check_checkpoint

_MOST_NAMED = 5  # steps that a warning lists


@dataclass(frozen=True)
class Series:
    """Checkpoints by step, as `series` gives them to `compare`."""

    steps: Mapping[int, Any]


def series(
    source: str | Path | Sequence[str | Path | tuple[int, Any]] | Mapping[int, Any], *, allow_pickle: bool = False
) -> Series:
    """Return the checkpoints of a training in the order of their steps, for `compare`.

    They are run one after the other, never two at once, where they are folders or names.

    Args:
        source: a pattern of folders, as "runs/finetune/checkpoint-*"; a list of folders or of names
            on the hub, whose last number is the step; or pairs (step, model), of anything that
            `compare` takes. Of a folder without a number `trainer_state.json` tells the step.
        allow_pickle: as in `load_checkpoint`.

    Returns:
        A `Series`; its `steps` are step -> checkpoint.

    Raises:
        InputError: nothing is found; a step is not known; two checkpoints are of one step.

    Warns:
        LayerscopeWarning: checkpoints cannot be read and are left out; steps are missing between
            others that are evenly spaced.

    See also:
        `compare`, `Comparison.steps`, `Comparison.since`, `Comparison.plot_steps`.

    Example:
        >>> import probes
        >>> run = probes.series([(0, "bundled"), (100, "bundled")])
        >>> list(run.steps)
        [0, 100]
    """
    if isinstance(source, Mapping):
        pairs = list(source.items())
    elif isinstance(source, str | Path):
        found = sorted(glob.glob(str(source)))
        if not found:
            raise InputError(f"series {str(source)!r}: expected folders that the pattern names, found none")
        pairs = [(_step_of(path), Path(path)) for path in found if Path(path).is_dir()]
        if not pairs:
            raise InputError(f"series {str(source)!r}: expected folders, found files alone, as {found[0]!r}")
    else:
        pairs = [one if isinstance(one, tuple) else (_step_of(one), one) for one in source]
    steps: dict[int, Any] = {}
    broken: list[str] = []
    for step, model in pairs:
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise InputError(f"series: {step!r} is no step: expected a whole number of at least 0 beside each model")
        if step in steps:
            raise InputError(f"series: {_called(steps[step])} and {_called(model)} are both of step {step}. Give one")
        if isinstance(model, str | Path):
            try:
                check_checkpoint(model, allow_pickle=allow_pickle)
            except InputError as error:
                broken.append(f"step {step} ({error})")
                continue
        steps[step] = model
    if not steps:
        raise InputError(f"series: no checkpoint can be read: {'; '.join(broken[:_MOST_NAMED]) or 'there is none'}")
    if broken:
        _warn(f"series: {_listed(broken)} left out: cannot be read")
    ordered = dict(sorted(steps.items()))
    if missing := _missing(list(ordered)):
        _warn(f"series: no checkpoint of step {_listed(list(map(str, missing)))}, between others that are there")
    return Series(ordered)


def spread(models: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """Return models with each step of a series as one, named by its series and step; and the steps
    of every series by these names.

    Raises:
        InputError: a model is called as a step of a series is.

    Example:
        >>> spread({"base": "a", "run": Series({0: "b", 10: "c"})})
        ({'base': 'a', 'run 0': 'b', 'run 10': 'c'}, {'run': {'run 0': 0, 'run 10': 10}})
    """
    out: dict[str, Any] = {}
    steps: dict[str, dict[str, int]] = {}
    for name, model in models.items():
        own = (
            {f"{name} {step}": one for step, one in model.steps.items()} if isinstance(model, Series) else {name: model}
        )
        if twice := out.keys() & own.keys():
            raise InputError(f"a model is called {min(twice)!r}, as is a step of a series. Give it another name")
        out |= own
        if isinstance(model, Series):
            steps[name] = dict(zip(own, model.steps, strict=True))
    return out, steps


def _step_of(path: str | Path) -> int:
    name = Path(path).name if isinstance(path, Path) or Path(path).is_dir() else str(path)
    if numbers := re.findall(r"\d+", name):
        return int(numbers[-1])
    state = Path(path) / "trainer_state.json"
    if state.is_file():
        return int(read_json(state, {"global_step": int})["global_step"])
    raise InputError(
        f"series: the step of {str(path)!r} is not known: expected a number in its name or trainer_state.json in it. "
        "Give pairs (step, path)"
    )


def _missing(steps: list[int]) -> list[int]:
    """The steps that lack between evenly spaced ones; none where they are not evenly spaced."""
    gaps = [b - a for a, b in pairwise(steps)]
    even = min(gaps, default=0)
    if not even or any(gap % even for gap in gaps) or gaps.count(even) < len(gaps) / 2:
        return []
    return [s for s in range(steps[0], steps[-1], even) if s not in steps]


def _called(model: Any) -> str:
    return repr(str(model)) if isinstance(model, str | Path) else type(model).__name__


def _listed(said: list[str]) -> str:
    more = f" and {len(said) - _MOST_NAMED} more" if len(said) > _MOST_NAMED else ""
    return ", ".join(said[:_MOST_NAMED]) + more


def _warn(text: str) -> None:
    warnings.warn(text, LayerscopeWarning, stacklevel=3)
