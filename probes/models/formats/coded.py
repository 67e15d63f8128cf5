"""Weights that another package stores by codes: kept as they are and left alone by every verb, or
made plain numbers while they are loaded, which the configuration then says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from transformers import PreTrainedConfig, PreTrainedModel

from probes.errors import InputError, needed
from probes.models.facts import name_of
from probes.models.formats.format import Format, Verb
from probes.models.formats.integers import METHODS, check_integers, read_integers


def is_coded(model: Any) -> bool:
    """Whether the weights of a model are stored by codes of another package.

    Example:
        >>> import probes
        >>> is_coded(probes.load_checkpoint("bundled")[0])
        False
    """
    return CODED.promised(model.config)


# What runs here as its package runs it, and what is loaded as plain numbers, with the package that does so.
_KEPT = {"torchao": ("torchao", "deploy"), "bitsandbytes": ("bitsandbytes", "formats")}
_MADE_PLAIN = {"compressed-tensors": ("compressed_tensors", "formats"), "fp8": None, "gptq": None, "awq": None}
PLAIN = "dequantized"


def method_of(config: Any) -> str:
    """Return by which method the weights of a configuration are stored, "" where they are plain.

    Example:
        >>> from transformers import BertConfig
        >>> method_of(BertConfig(quantization_config={"quant_method": "gptq", "bits": 4}))
        'gptq'
    """
    found: Any = getattr(config, CODED.key, None) or {}
    said = found if isinstance(found, dict) else found.to_dict()
    method = said.get("quant_method") or ""
    method = str(getattr(method, "value", method)).lower()
    return "bitsandbytes" if method.startswith("bitsandbytes") or said.get("load_in_8bit") else method


def check_installed(config: PreTrainedConfig, name: str) -> None:
    """Raise `InputError` where codes cannot be read here, `DependencyError` where the package that
    reads them is not installed.
    """
    method = method_of(config)
    package = {**_KEPT, **_MADE_PLAIN}.get(method)
    if package is not None:
        needed(package[0], f"{name}: a model quantised by {method}", extra=package[1])
    if method in METHODS:
        check_integers(getattr(config, CODED.key), name)
    if method == "hqq":
        raise InputError(
            f"{name}: a model quantised by HQQ, which transformers {transformers.__version__} does not load. Make its "
            "weights plain with the package hqq (layer.dequantize()) and save that, or pass the model in its place"
        )


def read_plain(folder: Path, config: PreTrainedConfig, name: str) -> dict[str, torch.Tensor] | None:
    """Return the weights of a folder that are read here, not by transformers; None where there are
    none. The configuration then has no codes.
    """
    if method_of(config) not in METHODS:
        return None
    if not folder.is_dir():  # a name on the hub
        folder = Path(snapshot_download(name, allow_patterns=["*.safetensors"]))
    weights = read_integers(folder, getattr(config, CODED.key), name)
    say_plain(config)
    delattr(config, CODED.key)
    return weights


def say_plain(config: PreTrainedConfig, method: str = "") -> None:
    """Let a configuration say from which codes the weights of its model were made plain."""
    method = method or method_of(config)
    if method in _MADE_PLAIN or method == "gguf":
        setattr(config, PLAIN, method)
    if method == "compressed-tensors":  # which would else do so at the first forward pass
        getattr(config, CODED.key)["dequantize"] = True


def _forbidden(model: PreTrainedModel, verb: Verb) -> str:
    name = name_of(model)
    if verb == "save packed":  # what undoes the codes lies in the metadata of their own file
        return (
            f"{name}: expected weights that are plain numbers, found quantised ones (config.{CODED.key}). Save it "
            "without packed=True"
        )
    return f"{name}: its weights are quantised already (config.{CODED.key}). Give the model that it was made from"


CODED = Format("quantization_config", "weights stored by codes", dict, check=check_installed, forbids=_forbidden)
