"""One hash for one function: of a model's weights, and of how a tokenizer makes tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import torch
from transformers import (
    PreTrainedTokenizerBase,
)

from probes.models.spread import weights_in

# What a configuration says of where and when a model was saved, not of what it computes.
_NOT_COMPUTED = {
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "compression",
    "id2label",
    "label2id",
    "dequantized",
    "text_embedding",
}


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Return a hash of a model's weights, buffers and configuration: the same for the same
    function, on any device.
    """
    digest = hashlib.sha256()
    config = getattr(model, "config", None)
    if config is not None:
        settings = {k: v for k, v in config.to_dict().items() if k not in _NOT_COMPUTED and not k.startswith("_")}
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(type(model).__name__.encode())
    for key, tensor in weights_in(model):
        if not isinstance(tensor, torch.Tensor):
            digest.update(f"{key}{tensor}".encode())
            continue
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        for part in plain_parts(tensor.detach()):
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def plain_parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the tensors of numbers that a tensor is made of: itself, or of a quantised one its
    codes, steps, ...
    """
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in sorted(tensor.__tensor_flatten__()[0]):
        yield from plain_parts(getattr(tensor, name))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of how a tokenizer makes tokens of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # Truncation and padding are set by every call; what is left says how a text becomes tokens.
    state = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    state = {k: v for k, v in state.items() if k not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
