"""What a denoiser is, what it is trained on, and how it is kept: any module that takes noise off x of a class."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import ModelOutput

from compress.objectives.base import is_whole
from compress.saving import check_new
from probes.errors import InputError, path_of
from probes.files import beside, check_space, locked, named, remove
from probes.forms import read_json
from probes.models.weights import stored_bytes
from probes.states.running import evaluating

Data = tuple[npt.ArrayLike, npt.ArrayLike]
_DONE = {"method": str, "steps?": [range(1, 2**31)], "guidance?": [float], "sampler?": (str, None)}
_FILE = {"module": str, "settings": dict, "compression?": (_DONE, None)}
_NAMES = ("denoiser.json", "model.safetensors", "history.csv")


class Denoiser(Protocol):
    """What a `torch.nn.Module` has to be so that it is trained, distilled and sampled from here.

    `forward(x, level, label, guidance)` reads rows: x (row, ...) with noise, their noise `level`
    (row,) in 0 to 1, their `label` (row,), the number of a class, and a weight of `guidance` (row,);
    and returns the velocity, of the shape of x: with a = pi / 2 * level, x = cos(a) x0 + sin(a) e
    of x0 without noise and noise e of variance 1, the velocity is cos(a) e - sin(a) x0. The label
    `classes`, one more than there are, is no class. What has not been distilled is asked at a
    guidance of 0 only, for what it says of the class itself.

    Attributes:
        classes: how many there are.
        settings: to be saved: the keyword arguments that it was made by, as JSON can have them.

    Notes:
        What predicts noise e, or x0, follows from that: v = (e - sin(a) x) / cos(a), which has no
        value at level 1, and v = (cos(a) x - x0) / sin(a), none at level 0. Velocities as in
        Salimans and Ho 2022, arXiv 2202.00512.

    Example:
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
        >>> one = torch.ones(1)
        >>> Small(classes=3)(torch.zeros(1, 2), one, torch.tensor([3]), 0 * one).shape
        torch.Size([1, 2])
    """

    classes: int
    settings: dict[str, Any]

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, label: torch.Tensor, guidance: torch.Tensor
    ) -> torch.Tensor:
        """Return the velocity of rows."""


class Guided(torch.nn.Module):
    """A denoiser with guidance, in two passes: (1 + w) times what it says of a class, less w times
    what it says of none.

    Example:
        >>> class Label(torch.nn.Module):
        ...     classes = 2
        ...
        ...     def forward(self, x, level, label, guidance):
        ...         return x * label[:, None]
        >>> one = torch.ones(1)
        >>> Guided(Label())(one[:, None], one, torch.tensor([1]), 3 * one)  # 4 * 1 - 3 * 2
        tensor([[-2.]])
    """

    def __init__(self, denoiser: torch.nn.Module) -> None:
        """Guide what was not distilled."""
        super().__init__()
        self.denoiser, self.classes = denoiser, check_denoiser(denoiser)

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, label: torch.Tensor, guidance: torch.Tensor
    ) -> torch.Tensor:
        """Return the velocity of rows."""
        labels = torch.cat([label, torch.full_like(label, self.classes)])
        zero = torch.zeros_like(torch.cat([guidance, guidance]))
        said, said_of_none = self.denoiser(torch.cat([x, x]), torch.cat([level, level]), labels, zero).chunk(2)
        w = guidance.reshape(-1, *[1] * (x.ndim - 1))
        return (1 + w) * said - w * said_of_none


class Read(torch.nn.Module):
    """A denoiser as the training loop runs one: what it says is the output's `logits`."""

    def __init__(self, denoiser: torch.nn.Module) -> None:
        """Keep the denoiser, in its mode."""
        super().__init__()
        self.denoiser = denoiser
        self.train(denoiser.training)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, label: torch.Tensor, guidance: torch.Tensor, **_: Any
    ) -> ModelOutput:
        """Return the velocity of rows as `logits`."""
        return ModelOutput(logits=self.denoiser(x, level, label, guidance))


def rows_of(data: Any, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (row, ...) in float32 and labels (row,); raise `InputError` where data are not that."""
    try:
        x, label = data
    except (TypeError, ValueError) as error:
        raise InputError(f"data: expected a pair of arrays, x (row, ...) and label (row,); {error}") from error
    values = numbers_of(x, "data: x")
    return values, labels_of(label, len(values), classes)


def numbers_of(x: npt.ArrayLike, what: str) -> torch.Tensor:
    """Return (row, ...) in float32; raise `InputError` where they are no finite numbers of rows."""
    try:
        values = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # numpy's and torch's
        raise InputError(f"{what}: expected finite numbers of shape (row, ...); {error}") from error
    numbers = values.dtype.kind in "fiub"
    if values.ndim < 2 or 0 in values.shape or not numbers or not np.isfinite(values).all():
        spoilt = ", some of them not finite" if numbers and not np.isfinite(values).all() else ""
        raise InputError(
            f"{what}: expected finite numbers of shape (row, ...), none of these 0; found {values.dtype} of shape "
            f"{values.shape}{spoilt}"
        )
    return torch.from_numpy(values.astype(np.float32))


def labels_of(label: npt.ArrayLike, count: int, classes: int, none: bool = False) -> torch.Tensor:
    """Return labels (row,); raise `InputError` where they are no numbers of classes, or, where
    `none` may be asked for, of none.
    """
    values = np.asarray(label)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise InputError(
            f"label: expected {count} whole numbers, one a row of x; found {values.dtype} of shape {values.shape}"
        )
    wrong = np.flatnonzero((values < 0) | (values >= classes + none))
    if len(wrong):
        last = f"{classes - 1}, or {classes} for none" if none else f"{classes - 1}"
        raise InputError(
            f"label: row {wrong[0]} has {values[wrong[0]]}: expected 0 to {last}, as the denoiser has {classes} classes"
        )
    return torch.from_numpy(values.astype(np.int64))


def fingerprint_of(x: torch.Tensor, label: torch.Tensor) -> str:
    """Return a hash of what is trained on."""
    digest = hashlib.sha256(f"{tuple(x.shape)}".encode())
    for values in (x, label):
        digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def check_denoiser(denoiser: Any, x: torch.Tensor | None = None) -> int:
    """Return how many classes a denoiser has; raise `InputError` where it is none, also as it reads
    two rows of x, one of which is of no class.
    """
    name = type(denoiser).__name__
    if not isinstance(denoiser, torch.nn.Module):
        raise InputError(f"{name} is no torch.nn.Module: expected one with forward(x, level, label, guidance)")
    classes: Any = getattr(denoiser, "classes", None)
    if not is_whole(classes) or classes < 1:
        raise InputError(
            f"{name}: expected an attribute classes, how many there are, found {classes!r}. The label of that number "
            "stands for none"
        )
    if x is None:
        return int(classes)
    two = x[[0, -1]]
    device = next((p.device for p in denoiser.parameters()), torch.device("cpu"))
    zero = torch.zeros(2, device=device)
    try:
        with evaluating(denoiser, device), torch.no_grad():
            given = denoiser(two.to(device), zero + 0.5, torch.tensor([0, int(classes)], device=device), zero)
    except InputError:
        raise
    except Exception as error:  # whatever a module of others raises
        raise InputError(
            f"{name}: forward(x, level, label, guidance) fails on two rows of shape {tuple(two.shape)}, labels 0 and "
            f"{classes} (none): {type(error).__name__}: {error}"
        ) from error
    found = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
    if found != tuple(two.shape):
        raise InputError(
            f"{name}: expected a velocity of the shape of x, {tuple(two.shape)}, found {found}: see compress.Denoiser"
        )
    return int(classes)


def save_denoiser(denoiser: torch.nn.Module, folder: str | Path, *, wait: bool = True) -> Path:
    """Save a denoiser: its weights as `model.safetensors`, how it is made and what was done to it as
    `denoiser.json`, what was logged as `history.csv`.

    Args:
        denoiser: with `settings`, see `Denoiser`.
        folder: where to; new or empty.
        wait: where another process writes into the folder, wait until it is done, and say so; False
            to be refused.

    Returns:
        The folder.

    Raises:
        InputError: the folder is not empty, or cannot be written to; its disk has not room for the
            weights; the denoiser does not say by which settings it is made, or is not of the shape
            that they make.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> class Least(torch.nn.Linear):
        ...     def __init__(self, width):
        ...         super().__init__(width, width)
        ...         self.classes, self.settings = 1, {"width": width}
        >>> with TemporaryDirectory() as folder:
        ...     out = save_denoiser(Least(3), f"{folder}/small")
        ...     load_denoiser(out, Least).in_features
        3

    See also:
        `load_denoiser`, `distill_diffusion`
    """
    check_denoiser(denoiser)
    name, settings = type(denoiser).__name__, getattr(denoiser, "settings", None)
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in denoiser.state_dict().items()}
    try:
        if not isinstance(settings, Mapping) or json.loads(json.dumps(settings)) != settings:
            raise TypeError(f"found {settings!r}")
        made = type(denoiser)(**settings)
    except Exception as error:  # whatever a module of others raises
        raise InputError(
            f"{name}: expected an attribute settings, the keyword arguments that make such a module, as JSON can have "
            f"them ({type(error).__name__}: {error})"
        ) from error
    _check_fits(made, weights, f"{name}: its settings make another module")
    what = {"module": name, "settings": settings, "compression": getattr(denoiser, "compression", None)}
    place = Path(os.path.realpath(path_of(folder, "folder")))
    partial = beside(place, "partial")
    with locked(place, wait=wait), named(place):
        check_new(place)
        check_space(place, stored_bytes(denoiser), "the weights")
        try:
            remove(partial)  # of a saving that was killed
            partial.mkdir(parents=True)
            (partial / _NAMES[0]).write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
            save_file(weights, partial / _NAMES[1])
            if isinstance(history := getattr(denoiser, "history", None), pd.DataFrame):
                history.to_csv(partial / _NAMES[2], index=False)
            if place.exists():
                place.rmdir()
            partial.rename(place)
        finally:
            remove(partial)
    return Path(folder)


def load_denoiser(folder: str | Path, make: Callable[..., torch.nn.Module]) -> torch.nn.Module:
    """Load what `save_denoiser` wrote, in evaluation mode: with `compression`, what was done to it.

    Args:
        folder: that it wrote.
        make: the class that the denoiser was of: nothing in the folder is run.

    Raises:
        InputError: there is no denoiser, or one of another class; the weights are not those of what
            the settings make.

    Example:
        >>> load_denoiser("nowhere", torch.nn.Linear)
        Traceback (most recent call last):
        probes.errors.InputError: nowhere/denoiser.json: not readable as JSON ...

    See also:
        `save_denoiser`
    """
    place = path_of(folder, "folder")
    what = read_json(place / _NAMES[0], _FILE)
    try:
        denoiser = make(**what["settings"])
    except Exception as error:  # whatever a module of others raises
        raise InputError(
            f"{place}: {getattr(make, '__name__', make)} cannot be made by the settings {what['settings']} "
            f"({type(error).__name__}: {error}). Give the class {what['module']} that was saved"
        ) from error
    if type(denoiser).__name__ != what["module"]:
        raise InputError(
            f"{place} is of a {what['module']}, and make= gives a {type(denoiser).__name__}: give the class that was "
            "saved"
        )
    file = place / _NAMES[1]
    try:
        weights = load_file(file)
    except Exception as error:  # of safetensors and the system, several kinds
        raise InputError(f"{file}: the weights cannot be read ({type(error).__name__}: {error})") from error
    _check_fits(denoiser, weights, f"{file} does not fit {what['module']}, as its settings make it")
    denoiser.load_state_dict(weights)
    vars(denoiser)["compression"] = what.get("compression")
    return denoiser.eval()


def _check_fits(made: torch.nn.Module, weights: Mapping[str, torch.Tensor], begin: str) -> None:
    """Raise where weights are not by name and shape those of a module."""
    expected, found = ({k: tuple(v.shape) for k, v in x.items()} for x in (made.state_dict(), weights))
    for key in [*expected, *found]:
        if expected.get(key) != found.get(key):
            raise InputError(
                f"{begin}: {key}: expected {expected.get(key, 'no such weight')}, found {found.get(key, 'none')}"
            )
