"""Which layers can be fused: parts of a model, pairs of one shape, groups that share already."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

from transformers import PreTrainedModel

from compress.kernels import kernel_matrices
from compress.matrices import block_matrices
from probes.errors import InputError
from probes.models.formats.shared_layers import layer_parameters, shared_of

UNITS = ("matrix", "layer")
_NUMBERED = re.compile(r"^(.*?\.)(\d+)(\..+)?$")


def groups_of(model: PreTrainedModel) -> dict[str, list[list[int]]]:
    """Return which layers share one tensor, by part: the numbers of each group, ascending.

    Example:
        >>> import compress, probes
        >>> fused = compress.fuse(probes.load_checkpoint("bundled")[0], unit="layer", share=0.4)
        >>> groups_of(fused)
        {'encoder.layer.*': [[0, 1, 2]]}

    See also:
        `fuse`.
    """
    shared = shared_of(model)
    groups: dict[str, dict[int, list[int]]] = {}
    for target, source in shared.items():
        (part, number), (_, first) = _split(target), _split(source)
        groups.setdefault(part, {}).setdefault(first, [first]).append(number)
    return {part: [sorted(found) for _, found in sorted(by.items())] for part, by in sorted(groups.items())}


def parts_of(model: PreTrainedModel, unit: str) -> dict[str, list[int]]:
    """The layers of each part of a model, by number: of linear maps, convolutions and LSTMs, whose
    layers are parts too. What has no number is of no layer.
    """
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    modules = [name.removesuffix(".weight") for name in block_matrices(model)]
    for name in kernel_matrices(model):
        owner, _, last = name.rpartition(".")
        layer = re.search(r"_l(\d+)(_reverse)?$", last)
        modules.append(owner if layer is None else f"{owner}.{layer[1]}")
    parts: dict[str, list[int]] = {}
    for name in modules:
        place = _NUMBERED.match(name.removeprefix(prefix))
        if place is None:
            continue
        part, number = _split(place[0])
        part = part if unit == "matrix" else part[: part.index("*") + 1]
        if number not in parts.setdefault(part, []):
            parts[part].append(number)
    return parts


def _split(name: str) -> tuple[str, int]:
    """The part that a module is of, and the number of its layer: the first number in its name."""
    place = _NUMBERED.match(name)
    assert place is not None  # what is fused stands in a list
    return f"{place[1]}*{place[3] or ''}", int(place[2])


def module_name(part: str, number: int) -> str:
    """Return the name of a module: that of its part with the number of its layer."""
    return part.replace("*", str(number), 1)


def pairs_of(model: PreTrainedModel, unit: str) -> dict[str, list[tuple[int, int]]]:
    """The pairs of layers of one shape, by part; raise `InputError` where there are none."""
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    base: Any = model.base_model
    shared, modules = shared_of(model), dict(base.named_modules())
    parts = parts_of(model, unit)
    for name in (*shared, *shared.values()):
        if _split(name)[0] not in parts:
            other = next(u for u in UNITS if u != unit)
            raise InputError(
                f"unit={unit!r}: layers of this model share their tensors by unit={other!r} already (config."
                f"shared_layers names {name!r}). Go on with unit={other!r}, or fuse the model as it was before"
            )
    pairs: dict[str, list[tuple[int, int]]] = {}
    for part, numbers in parts.items():
        shapes = {
            i: {
                n: tuple(base.get_parameter(p).shape)
                for n, p in layer_parameters(modules, module_name(part, i)).items()
            }
            for i in sorted(numbers)
            if module_name(part, i) not in shared
        }
        between = [(i, j) for i, j in combinations(shapes, 2) if shapes[i] == shapes[j]]
        if between:
            pairs[part] = between
    if not pairs:
        count = max((len(numbers) for numbers in parts.values()), default=0)
        if count < 2:
            why = f"has {count} layer{'' if count == 1 else 's'} with weight matrices"
        else:
            why = f"has {count} layers, of which no two have tensors of their own that are of one shape"
        raise InputError(
            f"nothing to fuse: {type(model).__name__} {why}. Expected at least two of one shape, as in a model before "
            "its layers were pruned or fused"
        )
    return pairs
