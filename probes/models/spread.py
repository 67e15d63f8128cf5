"""Models that are in several places: over devices, in memory, on disk (`device_map` of transformers)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import align_module_device

from probes.errors import InputError


def places_of(model: torch.nn.Module) -> list[str]:
    """Return where the parts of a model lie, where that is more than one place or the disk; else
    nothing.

    Example:
        >>> places_of(torch.nn.Linear(2, 2))
        []
    """
    return places_for(getattr(model, "hf_device_map", None))


def places_for(device_map: object) -> list[str]:
    """Return the places that a `device_map` names, where they are several or the disk; else nothing.
    What "auto" comes to is known once the model is loaded.

    Example:
        >>> places_for({"model.embed_tokens": "cpu", "model.layers": "disk"}), places_for({"": "cpu"})
        (['cpu', 'disk'], [])
    """
    named = device_map.values() if isinstance(device_map, Mapping) else ["disk"] if device_map == "disk" else []
    found = list(dict.fromkeys(map(str, named)))
    return found if len(found) > 1 or "disk" in found else []


def runs_on(model: torch.nn.Module) -> torch.device:
    """Return the device that a model of several places reads its inputs on: the first that computes."""
    for module in model.modules():
        for hook in _hooks(module):
            if getattr(hook, "execution_device", None) is not None:
                return torch.device(hook.execution_device)
    return next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))


def weights_in(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield what a model's `state_dict` holds, by name; of what lies elsewhere one tensor at a time.

    Example:
        >>> [name for name, _ in weights_in(torch.nn.Linear(2, 2))]
        ['bias', 'weight']
    """
    for name, value in sorted(model.state_dict().items()):
        yield name, weight_in(model, name) if isinstance(value, torch.Tensor) and value.is_meta else value


def weight_in(model: torch.nn.Module, name: str) -> torch.Tensor:
    """Return a parameter or buffer of a model by its name, read from where it lies.

    Example:
        >>> weight_in(torch.nn.Linear(2, 3), "weight").shape
        torch.Size([3, 2])
    """
    place, _, own = name.rpartition(".")
    module = model.get_submodule(place)
    with align_module_device(module, "cpu") if _hooks(module) else nullcontext():
        found: torch.Tensor = getattr(module, own).detach()
        return found


def check_whole(model: torch.nn.Module, what: str) -> None:
    """Raise `InputError` where a model that has to be in one place is in several."""
    check_one_place(places_of(model), what)


def check_one_place(places: Sequence[str], what: str) -> None:
    """Raise `InputError` where there are places that a model is, or will be, spread over."""
    if places:
        raise InputError(
            f"{what} needs the model whole, and it is spread over {', '.join(places)}. Load it without device_map, or, "
            "where one device has room, with device_map={'': 'cuda:0'}"
        )


def _hooks(module: torch.nn.Module) -> list[Any]:
    """What accelerate does around the forward pass of a module."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))
