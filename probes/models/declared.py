"""Is what a checkpoint says of itself borne out by its weights? Asked before anything is made.

Of a folder: which files its index names, how many layers and numbers its configuration describes,
which attention it
asks for. Names on the hub are downloaded by transformers: of those, only what the configuration
says is checked.
"""

from __future__ import annotations

import copy
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from probes.errors import InputError
from probes.forms import check_form, read_json
from probes.models.formats.extensions import FORMATS, shaped_class
from probes.models.formats.packed import PACKED, check_packed, open_safetensors
from probes.models.heads import missing_in_files

INDEX = "model.safetensors.index.json"
# Of transformers itself; any other name is that of code on a hub.
_ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", None)
_EXPERTS = ("eager", "batched_mm", "grouped_mm", None)
# What was done to a model, and before that; of each verb what it says itself.
_COMPRESSION = {"method?": str, "parent?": str, "torch?": str, "transformers?": str, "before?": dict}
_COUNTS = re.compile(r"(layers?|blocks|groups|group_num|experts|stages|depth|labels)$")
# So many modules and numbers a configuration may describe beyond what is stored: heads that are not saved.
_FREE_MODULES, _FREE_NUMBERS = 256, 10**7


def check_index(folder: Path) -> None:
    """Raise `InputError` where an index names anything but files of weights that lie beside it.

    Raises:
        InputError: it is no index; it names a path, a pickle, a link to elsewhere, or a file that
            is not there.
    """
    path = folder / INDEX
    if not path.is_file() or (folder / "model.safetensors").is_file():  # which is what is loaded then
        return
    index = read_json(path, {"weight_map": {str: str}})
    for name in sorted(set(index["weight_map"].values())):
        bare = Path(name).name == name and name.endswith(".safetensors") and "\0" not in name
        if not bare:
            raise InputError(
                f"{path} names the file {name!r}: expected names of *.safetensors files of its own folder only. "
                "Convert the model with model.save_pretrained(...)"
            )
        if not os.path.isfile(folder / name):  # also of a name that no file can have
            raise InputError(f"{path} names the file {name!r}, which is not there. Copy the folder again")


def check_said(said: Mapping[str, Any], name: str, tensors: int | None = None) -> None:
    """Raise `InputError` where a configuration counts more than can be, asks for code from a hub,
    or has a key
    of ours of another form.

    Args:
        said: what config.json holds, before a configuration is made of it.
        name: what the checkpoint is called.
        tensors: how many its files hold, where that is known.
    """
    for known in FORMATS:
        if said.get(known.key):  # what is empty promises nothing
            check_form(said[known.key], known.form, f"{name}: config.{known.key}")
    for key, form in {"architectures": [str], "compression": _COMPRESSION}.items():
        check_form(said.get(key), (form, None), f"{name}: config.{key}")
    most = _FREE_MODULES + (2**14 if tensors is None else tensors)
    for place, value in _values(said, ""):
        key = place.rpartition(".")[2]
        own = _ATTENTION if "attn_implementation" in place else _EXPERTS if "experts_implementation" in place else ()
        if own and value not in own:
            raise InputError(
                f"{name}: config.json asks for {key}={value!r}, which is none of transformers' own: code from a hub is "
                "never run. Take the key out of config.json"
            )
        if "transformers_weights" in key:
            raise InputError(
                f"{name}: config.json names its weights itself (transformers_weights={value!r}). Take the key out: "
                "weights are model.safetensors, or what its index names"
            )
        if _COUNTS.search(key) and type(value) is int and value > max(most, 2**14 if key.endswith("labels") else 0):
            raise InputError(
                f"{name}: config.json says {key}={value:,}"
                + ("" if tensors is None else f", and its files hold {tensors:,} tensors")
                + ": configuration and weights do not belong together"
            )


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in the files of a folder, by name, from their headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with open_safetensors(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - not a dict
                shapes[name] = tuple(opened.get_slice(name).get_shape())
        if file.name == PACKED:
            shapes |= {name: tuple(shape) for name, shape in check_packed(file).items()}
    return shapes


def stored_types(source: str | Path) -> tuple[list[str], Counter[str]] | None:
    """Return the files of weights of a folder, and how many tensors have which type, from their
    headers; None where there are none.
    """
    files = sorted(Path(source).glob("*.safetensors"))
    types: Counter[str] = Counter()
    for file in files:
        with open_safetensors(file) as opened:
            types.update(opened.get_slice(name).get_dtype() for name in opened.keys())  # noqa: SIM118 - not a dict
    return ([file.name for file in files], types) if files else None


def check_sizes(kind: Any, config: PreTrainedConfig, folder: Path, name: str) -> list[str]:
    """Raise `InputError` where a model would be far larger than the weights of its folder; return
    which weights that its head reads are not there.

    Args:
        kind: the class of the model, or `AutoModel`.
        config: its configuration; it is left as it is.
        folder: where its weights are.
        name: what the checkpoint is called.
    """
    shapes = stored_shapes(folder)
    made = shaped_class(kind, config)
    make = made.from_config if hasattr(made, "from_config") else made._from_config
    with torch.device("meta"):  # modules without numbers
        model = make(copy.deepcopy(config))
    prefix = f"{model.base_model_prefix}."
    bare = {stored.removeprefix(prefix): shape for stored, shape in shapes.items()}
    shared = tuple(f"{target}." for target in getattr(config, "shared_layers", None) or ())
    coded = bool(getattr(config, "quantization_config", None))
    stored = sum(map(_count, shapes.values())) * (8 if coded else 1)  # of codes, several numbers in one
    largest, beyond = ("", 0), 0
    for own, tensor in [*model.named_parameters(), *model.named_buffers()]:
        own = own.removeprefix(prefix)
        if own.startswith(shared):
            continue
        more = tensor.numel() - (_count(bare[own]) if own in bare else 0)
        beyond += max(0, more)
        largest = max(largest, (own, more), key=lambda found: found[1])
    if beyond > stored + _FREE_NUMBERS:
        raise InputError(
            f"{name}: config.json describes {beyond:,} numbers that its files, of {stored:,}, do not hold, most of "
            f"them in {largest[0]}: configuration and weights do not belong together"
        )
    return missing_in_files(model, shapes)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _values(said: Any, place: str) -> list[tuple[str, Any]]:
    """Everything in a nested object of JSON, with the keys that lead to it."""
    if isinstance(said, Mapping):
        return [found for key, value in said.items() for found in _values(value, f"{place}.{key}")]
    return [(place, said)]
