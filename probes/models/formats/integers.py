"""Weights in integers as GPTQ and AWQ store them -> plain numbers, with no package of theirs.

Their kernels want a GPU; what they compute is (code - zero) * step, which is made here once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from probes.errors import InputError
from probes.forms import check_form
from probes.models.formats.packed import open_safetensors

METHODS = ("gptq", "awq")
_FORM = {"bits": range(2, 9), "group_size?": int, "checkpoint_format?": str, "version?": str, "desc_act?": bool}
# AWQ puts eight codes of a row into one integer, in this order from the lowest bits on.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PARTS = (".qweight", ".qzeros", ".scales", ".g_idx")


def check_integers(said: dict[str, Any], name: str) -> None:
    """Raise `InputError` where a checkpoint of GPTQ or AWQ stores its codes in a way not known
    here.

    Args:
        said: its quantization_config.
        name: what it is called.
    """
    check_form(said, _FORM, f"{name}: config.quantization_config")
    method, bits = said["quant_method"], said["bits"]
    layout = str(said.get("checkpoint_format") or said.get("version") or method).lower()
    known = {"gptq": (("gptq", "gptq_v2"), (2, 3, 4, 8)), "awq": (("awq", "gemm"), (4,))}[method]
    if layout not in known[0] or bits not in known[1]:
        raise InputError(
            f"{name}: quantised by {method} to {bits} bits in the layout {layout!r}: expected "
            f"{' or '.join(map(str, known[1]))} bits in {' or '.join(map(repr, known[0]))}. Save it again in one of "
            "these with the package that made it, or load it yourself and pass the model in its place"
        )


def read_integers(folder: Path, said: dict[str, Any], name: str) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint of GPTQ or AWQ by name, in float32 where they were codes.

    Args:
        folder: where its files are.
        said: its quantization_config, as `check_integers` has checked it.
        name: what it is called.

    Raises:
        InputError: codes, zeros and steps of a matrix do not fit together.
    """
    stored: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with open_safetensors(file) as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dict
                stored[key] = opened.get_tensor(key)
    out = {key: tensor for key, tensor in stored.items() if not key.endswith(_PARTS)}
    for key in stored:
        if not key.endswith(".qweight"):
            continue
        module = key.removesuffix(".qweight")
        try:
            made = (_gptq if said["quant_method"] == "gptq" else _awq)(stored, module, said)
        except (KeyError, RuntimeError, IndexError) as error:  # a part is missing, or of another shape
            raise InputError(
                f"{name}: codes, zeros and steps of {module} do not fit together ({' '.join(str(error).split())}). "
                "Copy or save the checkpoint again"
            ) from error
        out[f"{module}.weight"] = made
    return out


def _gptq(stored: dict[str, torch.Tensor], module: str, said: dict[str, Any]) -> torch.Tensor:
    bits = said["bits"]
    steps = stored[f"{module}.scales"].float()  # (group, output)
    codes = _unpacked(stored[f"{module}.qweight"].T, bits).T  # (input, output)
    zeros = _unpacked(stored[f"{module}.qzeros"], bits)[:, : steps.shape[1]]
    if str(said.get("checkpoint_format", "gptq")).lower() == "gptq":  # one less is stored than is meant
        zeros = (zeros + 1) & (2**bits - 1)
    group = stored.get(f"{module}.g_idx")
    if group is None:
        size = said.get("group_size", -1)
        group = torch.arange(len(codes)) // (size if size > 0 else len(codes))
    if len(group) > len(codes):
        raise RuntimeError(f"{len(group)} inputs have a group and {len(codes)} have codes")
    group = group.long()
    return ((codes[: len(group)] - zeros[group]) * steps[group]).T.contiguous()


def _awq(stored: dict[str, torch.Tensor], module: str, said: dict[str, Any]) -> torch.Tensor:
    steps = stored[f"{module}.scales"].float()
    codes, zeros = (_of_awq(stored[f"{module}.{part}"]) for part in ("qweight", "qzeros"))
    size = len(codes) // len(steps)
    return ((codes - zeros.repeat_interleave(size, 0)) * steps.repeat_interleave(size, 0)).T.contiguous()


def _of_awq(packed: torch.Tensor) -> torch.Tensor:
    """(input, output / 8) integers -> (input, output) codes."""
    found = (packed.unsqueeze(-1) >> (4 * torch.arange(8, dtype=torch.int32))) & 15
    codes = torch.empty_like(found)
    codes[..., list(_AWQ_ORDER)] = found
    return codes.reshape(len(packed), -1)


def _unpacked(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers of 32 bits (row, integer) -> codes (row, code): a row is one string of bits, the
    lowest first, of which three of a code may lie in two integers.
    """
    string = (packed.unsqueeze(-1) >> torch.arange(32, dtype=torch.int32)) & 1
    string = string.reshape(len(packed), -1)
    count = string.shape[1] // bits
    powers = 2 ** torch.arange(bits, dtype=torch.int32)
    return (string[:, : count * bits].reshape(len(packed), count, bits) * powers).sum(-1, dtype=torch.int32)
