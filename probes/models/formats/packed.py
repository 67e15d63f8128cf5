"""Weights with many zeros on less disk: a bit for each number, and in full only those that are not
zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from probes.errors import InputError
from probes.forms import check_form, parse_json

PACKED = "packed.safetensors"
_VERSION = 1
_PARTS = ("mask", "values", "signs")
# Bytes that one tensor takes in the header of a file beside its name, counted generously.
_ENTRY = 128
# The most bytes of a list of tensors, of which 100,000 take 15 MB; read, it takes twenty times as many.
_LIST = 25 * 10**6
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def pack(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return tensors, with the zeros of each left out where that is smaller, and the metadata to
    save beside them.

    Args:
        state: tensors by name, of any dtype that safetensors holds.

    Returns:
        What `safetensors.torch.save_file` takes. A tensor `name` with few zeros is in it as it was;
        any other is in it as `name.mask` (a bit for each number, eight to a byte, the first in the
        highest bit, set where the number is not zero), `name.values` (the numbers that are not
        zero, in order) and, where some zeros are negative, `name.signs` (a bit for each zero, set
        where it is negative). The metadata has one key, "packed": JSON with the version of this
        form and the shapes of the tensors that are in parts.

    Notes:
        A tensor of n numbers of b bytes, k of them not zero, takes k b + n / 8 bytes, and (n - k) /
        8 more where some zeros are negative, as a product of weights and a mask leaves them. Zero
        is a matter of bits: all 0, or all but the highest; so `unpack` gives back every bit, of NaN
        too. This form is a choice made here.

    Example:
        >>> tensors, metadata = pack({"weight": torch.eye(100)})
        >>> {name: len(tensor) for name, tensor in tensors.items()}
        {'weight.mask': 1250, 'weight.values': 100}
        >>> metadata
        {'packed': '{"version": 1, "shapes": {"weight": [100, 100]}}'}
    """
    tensors: dict[str, torch.Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in state.items():
        parts = _parts(tensor)
        # The names of parts can be those of other tensors; such a tensor stays whole.
        free = not any(f"{name}.{part}" in state for part in _PARTS)
        if free and sum(p.nbytes + _ENTRY + len(name) for p in parts.values()) < tensor.nbytes:
            tensors |= {f"{name}.{part}": value for part, value in parts.items()}
            shapes[name] = list(tensor.shape)
        else:
            tensors[name] = tensor
    # One key: the order of several would differ from file to file.
    return tensors, {"packed": json.dumps({"version": _VERSION, "shapes": shapes})}


def unpack(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that was saved from what `pack` returned, bit for bit as they
    were.

    Raises:
        InputError: the file is no such file, is cut short, or its parts do not fit together.
    """
    shapes = check_packed(file)
    state: dict[str, torch.Tensor] = {}
    with open_safetensors(file) as opened:
        parts = {f"{name}.{part}" for name in shapes for part in _PARTS}
        for name in opened.keys():  # noqa: SIM118 - not a dict
            if name not in parts:
                state[name] = opened.get_tensor(name).clone()  # what is returned must not hang on the file
        for name, shape in shapes.items():
            values = opened.get_tensor(f"{name}.values")
            bits = _bits(values)
            numbers = np.zeros(math.prod(shape), bits.dtype)
            mask = _unpacked(opened.get_tensor(f"{name}.mask"), len(numbers))
            kept = int(np.count_nonzero(mask))
            if len(bits) != kept:
                raise _misfit(file, name, f"as many values as its mask has bits set, {kept:,}", f"{len(bits):,}")
            numbers[mask] = bits
            if f"{name}.signs" in opened.keys():  # noqa: SIM118
                zeros = len(numbers) - kept
                signs = opened.get_tensor(f"{name}.signs")
                if len(signs) != math.ceil(zeros / 8):
                    raise _misfit(file, name, f"{math.ceil(zeros / 8):,} bytes of signs", f"{len(signs):,}")
                np.logical_not(mask, out=mask)
                numbers[mask] = _unpacked(signs, zeros) * _top_bit(bits)
            whole = torch.from_numpy(numbers.view(f"i{bits.itemsize}" if bits.itemsize > 1 else "u1"))
            state[name] = whole.view(values.dtype).reshape(shape)
    return state


def pack_weights(folder: Path) -> Path:
    """Pack the weights that `save_pretrained` wrote into a folder, and return their file."""
    written = sorted(folder.glob("model*.safetensors*"))  # also those in several files, and their index
    state: dict[str, torch.Tensor] = {}
    for file in written:
        if file.suffix == ".safetensors":
            state |= load_file(file)
    tensors, metadata = pack(state)
    save_file(tensors, folder / PACKED, metadata)
    for file in written:
        file.unlink()
    return folder / PACKED


def saved_by_packing(state: Mapping[str, torch.Tensor]) -> int:
    """Return how many bytes `pack` leaves out of tensors, those that share their numbers once.

    Example:
        >>> saved_by_packing({"weight": torch.eye(100)})  # 100 of 10,000 numbers, and a bit for each
        38350
    """
    own = {(tensor.data_ptr(), tensor.shape): name for name, tensor in reversed(list(state.items()))}
    saved = 0
    for name in own.values():
        tensor = state[name]
        bits = _bits(tensor)
        zeros = len(bits) - int(np.count_nonzero(bits))
        negative = int(np.count_nonzero(bits == _top_bit(bits))) if tensor.is_floating_point() else 0
        signs = math.ceil((zeros + negative) / 8) if negative else 0
        kept = (len(bits) - zeros - negative) * tensor.element_size() + math.ceil(len(bits) / 8) + signs
        parts = 3 if negative else 2
        if kept + parts * (_ENTRY + len(name)) < tensor.nbytes:
            saved += tensor.nbytes - kept
    return saved


def check_packed(file: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors that are in parts in a file, having checked all that can be
    without weights.

    Raises:
        InputError: as `unpack`, but for a number of values or of signs that differs from what the
            mask says.
    """
    with open_safetensors(file) as opened:
        shapes = _shapes(opened.metadata(), file)
        names = set(opened.keys())
        for name, shape in shapes.items():
            if name in names:
                raise _misfit(file, name, "a tensor whole or in parts", "both")
            for part in ("mask", "values"):
                if f"{name}.{part}" not in names:
                    raise _misfit(file, name, f"its {part} in the file", "none")
            for part in _PARTS:
                if f"{name}.{part}" not in names:
                    continue
                found = opened.get_slice(f"{name}.{part}")
                if len(found.get_shape()) != 1:
                    raise _misfit(file, name, f"{part} in one dimension", f"{len(found.get_shape())}")
                if part != "values" and found.get_dtype() != "U8":
                    raise _misfit(file, name, f"{part} of dtype U8", found.get_dtype())
            (length,) = opened.get_slice(f"{name}.mask").get_shape()
            expected = math.ceil(math.prod(shape) / 8)
            if length != expected:
                raise _misfit(file, name, f"a mask of {expected:,} bytes for the shape {shape}", f"{length:,}")
    return shapes


def open_safetensors(file: Path) -> Any:
    """Open a file of weights for reading; raise `InputError` where it is cut short or something
    else, or lists more tensors than any model has.
    """
    try:
        with file.open("rb") as raw:
            listed = int.from_bytes(raw.read(8), "little")
        if _LIST < listed < file.stat().st_size:
            raise ValueError(f"its list of tensors alone takes {listed:,} bytes, and that of a model at most {_LIST:,}")
        return safe_open(file, framework="pt")
    except Exception as error:  # one kind for the user, several in safetensors
        raise InputError(
            f"{file}: not readable as safetensors ({' '.join(str(error).split())}). Copy or save it again"
        ) from error


def _shapes(metadata: dict[str, str] | None, file: Path) -> dict[str, list[int]]:
    where = f"{file}: its metadata"
    said = parse_json((metadata or {}).get("packed", "{}"), {"version": int, "shapes": dict}, where)
    if said["version"] != _VERSION:
        raise InputError(
            f"{file}: expected packed weights of version {_VERSION}, found {said['version']!r}. "
            "Read it with the version of layerscope that wrote it"
        )
    shapes: dict[str, list[int]] = said["shapes"]
    check_form(shapes, {str: [range(1, 2**63)]}, where)
    for name, shape in shapes.items():
        if math.prod(shape) >= 2**63:
            raise _misfit(file, name, "fewer than 2**63 numbers", f"{math.prod(shape):,}")
    return shapes


def _misfit(file: Path, name: str, expected: str, found: str) -> InputError:
    return InputError(
        f"{file}: {name}: its parts do not fit together: expected {expected}, found {found}. Copy or save it again"
    )


def _parts(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    bits = _bits(tensor)
    zero = bits == 0
    negative = bits == _top_bit(bits)
    signed = bool(negative.any())
    if signed:
        signs = np.packbits(negative[zero | negative])
        zero |= negative
    mask = ~zero
    values = torch.from_numpy(bits[mask].view(f"i{bits.itemsize}" if bits.itemsize > 1 else "u1")).view(tensor.dtype)
    parts = {"mask": torch.from_numpy(np.packbits(mask)), "values": values}
    return parts | ({"signs": torch.from_numpy(signs)} if signed else {})


def _bits(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor in a row as unsigned integers: numpy does not know every dtype,
    bfloat16 for one.
    """
    size = tensor.element_size()
    row = tensor.detach().cpu().contiguous().reshape(-1)
    return row.view(_INTEGERS[size]).numpy().view(f"u{size}")


def _top_bit(bits: np.ndarray) -> np.generic:
    """Negative zero, by its bits."""
    return bits.dtype.type(1 << (8 * bits.itemsize - 1))


def _unpacked(mask: torch.Tensor, count: int) -> np.ndarray:
    return np.unpackbits(mask.numpy(), count=count).view(bool)
