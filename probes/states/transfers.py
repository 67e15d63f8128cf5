"""States on their way between main memory and a GPU: copied while it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

Key = TypeVar("Key")


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; on a GPU from memory that stays in its place (pinned), so that
    nobody waits for the copy.

    Example:
        >>> sent(torch.ones(2), torch.device("cpu"))
        tensor([1., 1.])
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def landed(
    made: Iterable[tuple[Key, Mapping[str, torch.Tensor]]],
) -> Iterator[tuple[Key, dict[str, np.ndarray]]]:
    """Yield what is computed of one batch after another as float32 in main memory, each batch once
    the next one is under way.

    Args:
        made: of each batch what it is called, and its tensors on whichever device.

    Example:
        >>> [(name, values["x"]) for name, values in landed([("first", {"x": torch.ones(1)})])]
        [('first', array([1.], dtype=float32))]
    """
    before: tuple[Key, dict[str, Callable[[], np.ndarray]]] | None = None
    for key, values in made:
        leaving = {name: _leaving(value) for name, value in values.items()}
        if before is not None:
            yield before[0], {name: wait() for name, wait in before[1].items()}
        before = key, leaving
    if before is not None:
        yield before[0], {name: wait() for name, wait in before[1].items()}


def _leaving(value: torch.Tensor) -> Callable[[], np.ndarray]:
    """Begin to copy a tensor to main memory, and return what waits for it."""
    if not _on_gpu(value):
        there = value.float().cpu().numpy()
        return lambda: there
    copy, ready = _begun(value)

    def wait() -> np.ndarray:
        ready.synchronize()
        return copy.float().numpy()

    return wait


def _on_gpu(value: torch.Tensor) -> bool:
    return value.is_cuda


def _begun(value: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """A copy of a tensor that a GPU begins to fill, and the event after which it is whole."""
    copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)  # bfloat16 travels as that
    copy.copy_(value, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(value.device))
    return copy, ready
