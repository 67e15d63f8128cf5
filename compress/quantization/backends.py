"""The backends that run a model in fewer bits, and which models they take."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from compress.matrices import block_matrices, check_plain, joined_in_files
from probes.errors import InputError, check_choice, needed
from probes.models.facts import check_reads_text, name_of
from probes.models.formats.extensions import check_allowed

_PACKAGES = {"onnxruntime": ("onnxruntime", "onnx"), "torchao": ("torchao",)}
BACKENDS = tuple(_PACKAGES)


def check_backend(model: PreTrainedModel, backend: str) -> None:
    """Raise `InputError` where a backend has not what a model consists of, or is not installed."""
    check_choice("backend", backend, BACKENDS)
    check_plain(model)
    check_reads_text(model)
    check_allowed(model, "onnxruntime" if backend == "onnxruntime" else "torchao")
    for package in _PACKAGES[backend]:
        needed(package, f"backend={backend!r}")
    for name in block_matrices(model) if backend == "torchao" else ():
        module = model.get_submodule(name.removesuffix(".weight"))
        if not isinstance(module, torch.nn.Linear) or type(module).forward is not torch.nn.Linear.forward:
            raise InputError(
                f"{name.removesuffix('.weight')}: backend='torchao' quantises torch.nn.Linear, found "
                f"{type(module).__name__}. Take backend='onnxruntime'"
            )
        for together in joined_in_files(model):
            if name.removesuffix(".weight").endswith(together):
                raise InputError(
                    f"{name_of(model)} ({model.config.model_type}): its file keeps {', '.join(together)} as one "
                    "tensor, which backend='torchao', that quantises while weights are loaded, does not take apart. "
                    "Take backend='onnxruntime', or leave backend= out to simulate"
                )
