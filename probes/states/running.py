"""Where and how a model runs: device, precision, evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.hooks import RemovableHandle

from probes.errors import InputError, check_choice
from probes.states.pooling import POOLINGS


def check_settings(
    pooling: str | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    *,
    prompt: str | None = None,
    dimensions: int | None = None,
    **_: object,
) -> torch.device:
    """Return the device to run on; raise `InputError` where a setting of `capture` that needs no
    model is wrong.
    """
    if pooling is not None:
        check_choice("pooling", pooling, POOLINGS)
    if prompt is not None and not isinstance(prompt, str):
        raise InputError(f"prompt={prompt!r}: expected a text, as 'query: '")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise InputError(f"dimensions={dimensions!r}: expected a whole number, at least 1")
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    if batch_size < 1 or batch_tokens < 1:
        raise InputError(f"expected batch_size and batch_tokens of at least 1; found {batch_size} and {batch_tokens}")
    return device_of(device)


def device_of(wanted: str | torch.device | None) -> torch.device:
    """Return the device asked for, or the first there is of CUDA, MPS and the CPU."""
    if wanted is not None:
        if str(wanted).startswith("meta"):
            raise InputError("device='meta' holds no numbers; choose 'cuda', 'mps' or 'cpu'")
        try:
            return torch.empty(0, device=wanted).device
        except (RuntimeError, AssertionError) as error:  # unknown to torch, or not on this machine
            raise InputError(f"device={str(wanted)!r} cannot be used here ({str(error).splitlines()[0]})") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def precision(device: torch.device, dtype: str) -> torch.autocast:
    """Return the context in which a model runs in bfloat16 where that is asked for."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


@contextmanager
def removed(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Take hooks away again, whatever happens while they are there.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> with removed([model.register_forward_hook(lambda *_: print("run"))]):
        ...     _ = model(torch.zeros(1, 2))
        run
        >>> _ = model(torch.zeros(1, 2))
    """
    hooks = list(hooks)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def evaluating(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Run in evaluation mode on a device, and leave the model as it was found."""
    training = [module for module in model.modules() if module.training]
    home = next((p.device for p in model.parameters()), device)
    model.eval()
    try:
        if home != device:
            model.to(device)
        yield
    finally:
        if home != device:
            model.to(home)
        for module in training:
            module.training = True
