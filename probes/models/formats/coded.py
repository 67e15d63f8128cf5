"""Weights that another package stores by codes: read where it is installed, and left as they are by
every verb.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from probes.errors import needed
from probes.models.facts import name_of
from probes.models.formats.format import Format, Verb


def is_coded(model: Any) -> bool:
    """Whether the weights of a model are stored by codes of another package.

    Example:
        >>> import probes
        >>> is_coded(probes.load_checkpoint("bundled")[0])
        False
    """
    return CODED.promised(model.config)


def check_installed(config: PreTrainedConfig, name: str) -> None:
    """Raise `DependencyError` where the package that has quantised a model is not installed."""
    quantized = getattr(config, CODED.key, None)
    if isinstance(quantized, dict) and quantized.get("quant_method") == "torchao":
        needed("torchao", f"{name}: a model quantised by torchao")


def _forbidden(model: PreTrainedModel, verb: Verb) -> str:
    name = name_of(model)
    if verb == "save packed":  # what undoes the codes lies in the metadata of their own file
        return (
            f"{name}: expected weights that are plain numbers, found quantised ones (config.{CODED.key}). Save it "
            "without packed=True"
        )
    return f"{name}: its weights are quantised already (config.{CODED.key}). Give the model that it was made from"


CODED = Format("quantization_config", "weights stored by codes", dict, check=check_installed, forbids=_forbidden)
