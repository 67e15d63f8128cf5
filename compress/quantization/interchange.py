"""Rounded weights saved by their codes, in a layout that other tools open."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import block_matrices, check_plain
from compress.saving import check_new, save
from probes.errors import InputError, needed, path_of
from probes.models.facts import name_of
from probes.silence import quiet


def save_codes(model: PreTrainedModel, folder: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """Save a quantised model by the codes of its weights, in the layout of compressed-tensors.

    Plain transformers, vLLM and `probes.load_checkpoint` open it, with the same weights bit for
    bit; it takes on disk about what `compress.footprint` says.

    Args:
        model: what `quantize` returned, by any method: weights alone (activation_bits=None), with
            grids that are symmetric.
        folder: where to; new or empty.
        tokenizer: is saved beside the model.

    Returns:
        The folder.

    Raises:
        InputError: the model was not quantised, or its inputs are rounded too, or its grids have
            zero points; a matrix is not of a
            `torch.nn.Linear`; weights no longer lie on a grid of so many bits, as after a training;
            the folder exists and is not empty.
        DependencyError: the package compressed-tensors is not installed (extra "formats").

    Notes:
        The grid is read off the weights: of each group the coarsest step of which all values are
        multiples. So it does not matter by which method they came there, nor whether the model was
        saved and loaded in between.

    Example:
        >>> import compress, probes
        >>> from tempfile import TemporaryDirectory
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> rounded = compress.quantize(model, bits=4, group=32, activation_bits=None)
        >>> with TemporaryDirectory() as folder:
        ...     out = save_codes(rounded, f"{folder}/w4", tokenizer)
        ...     back, _ = probes.load_checkpoint(out)
        >>> back.config.dequantized
        'compressed-tensors'

    See also:
        `save`, `quantize`.
    """
    check_plain(model)
    done = _check(model)
    check_new(path_of(folder, "folder"))
    library = needed("compressed_tensors.quantization", "save_codes", extra="formats")
    compressors = needed("compressed_tensors.compressors", "save_codes", extra="formats")
    out = copy.deepcopy(model)
    bits = {name: done["bits"][name] if isinstance(done["bits"], dict) else done["bits"] for name in done["quantized"]}
    grids = {name: grid_in(out.get_parameter(name).detach(), bits[name], done["group"], name) for name in bits}
    groups = {}
    for each in sorted(set(bits.values())):
        names = [name.removesuffix(".weight") for name in bits if bits[name] == each]
        groups[f"group_{each}"] = library.QuantizationScheme(
            targets=[f"re:^{name.replace('.', chr(92) + '.')}$" for name in names],
            weights=_arguments(library, each, done["group"]),
        )
    others = [
        name for name, m in out.named_modules() if isinstance(m, torch.nn.Linear) and f"{name}.weight" not in bits
    ]
    with quiet():
        library.apply_quantization_config(
            out, library.QuantizationConfig(config_groups=groups, ignore=others, format="pack-quantized")
        )
        for name, scale in grids.items():
            module: Any = out.get_submodule(name.removesuffix(".weight"))
            module.weight_scale.data = scale.reshape(module.weight_scale.shape).to(module.weight_scale.dtype)
            module.quantization_status = library.QuantizationStatus.FROZEN
        compressor = compressors.ModelCompressor.from_pretrained_model(out)
        compressor.compress_model(out)
    said = compressor.quantization_config.model_dump(mode="json", exclude=["quant_method"])
    out.config.quantization_config = {"quant_method": "compressed-tensors", **said}
    return save(out, folder, tokenizer)


def grid_in(weight: torch.Tensor, bits: int, group: str | int, name: str) -> torch.Tensor:
    """Return the steps of the coarsest grids, symmetric about 0, that rounded weights lie on.

    Args:
        weight: (unit, input), as `compress.quantization.quantizers.dequantize` gives it.
        bits, group: how it was rounded.
        name: what the matrix is called in messages.

    Returns:
        Of each stretch that has one grid, in their order, the step, in float32.

    Raises:
        InputError: the weights lie on no grid of so many bits.

    Example:
        >>> grid_in(torch.tensor([[-1.5, 0.0, 1.0]]), 3, "channel", "w")
        tensor([0.5000])
    """
    rows = {"tensor": 1, "channel": len(weight)}[group] if isinstance(group, str) else weight.numel() // group
    values = weight.double().cpu().numpy().reshape(rows, -1)
    mantissa, exponent = np.frexp(values)
    whole = (mantissa * 2**24).astype(np.int64)  # float32 has 24 bits
    lowest = np.where(whole == 0, 1, whole & -whole)
    last = np.where(whole == 0, 2**15, exponent - 24 + np.log2(lowest).astype(np.int64)).min(1)
    last = np.where(last == 2**15, 0, last)
    spread = exponent.max(1, where=whole != 0, initial=-(2**15)) - last
    if (spread > 40).any():
        raise InputError(_off(name, bits))
    multiples = np.ldexp(values, -last[:, None]).astype(np.int64)
    common = np.maximum(np.gcd.reduce(multiples, axis=1), 1)
    if np.abs(multiples // common[:, None]).max() >= 2 ** (bits - 1):
        raise InputError(_off(name, bits))
    return torch.from_numpy(np.ldexp(common.astype(np.float64), last)).float().to(weight.device)


def _off(name: str, bits: int) -> str:
    return (
        f"{name}: its weights lie on no grid of {bits} bits, as config.compression says they do. Quantise the model "
        "anew, after all else was done to it"
    )


def _arguments(library: Any, bits: int, group: str | int) -> Any:
    kind = group if isinstance(group, str) else "group"
    size = group if isinstance(group, int) else None
    return library.QuantizationArgs(num_bits=bits, symmetric=True, strategy=kind, group_size=size)


def _check(model: PreTrainedModel) -> dict[str, Any]:
    """Return what was done to a model; raise `InputError` where that has no codes."""
    done = cast("dict[str, Any] | None", getattr(model.config, "compression", None)) or {}
    if done.get("method") != "quantize" or "backend" in done:
        raise InputError(
            f"{name_of(model)}: expected what compress.quantize returned, found {done.get('method', 'a plain model')}. "
            "Save it by compress.save"
        )
    if done["activation_bits"] is not None:
        raise InputError(
            f"{name_of(model)}: its inputs are rounded to {done['activation_bits']} bits, and codes are of weights "
            "alone. Quantise it with activation_bits=None, or save it by compress.save"
        )
    if not done["symmetric"]:
        raise InputError(
            f"{name_of(model)}: its grids have zero points, which plain transformers does not open in this layout. "
            "Quantise it with symmetric=True, or save it by compress.save"
        )
    given = done["bits"].values() if isinstance(done["bits"], dict) else [done["bits"]]
    if 1 in given:
        raise InputError(
            f"{name_of(model)}: it has weights of 1 bit, which have no 0, and the layout holds grids that do. Quantise "
            "it to 2 bits or more, or save it by compress.save"
        )
    linear = {
        name
        for name in block_matrices(model)
        if isinstance(model.get_submodule(name.removesuffix(".weight")), torch.nn.Linear)
    }
    for name in done["quantized"]:
        if name not in linear:
            raise InputError(
                f"{name_of(model)}: the layout has codes of torch.nn.Linear in blocks alone, and {name} is none. "
                "Quantise without it, by only=, or save it by compress.save"
            )
    return done
