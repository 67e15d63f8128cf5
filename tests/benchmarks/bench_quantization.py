"""Quantised models that run: bytes, speed and closeness to the original, and how far a state depends on its batch.

Speed is that of a forward pass with all hidden states over the same batches, in turns. "batch of one" compares the
mean-pooled last layer of texts run alone with that of the same texts in batches of 64: 0 where a text's states are its
own. onnxruntime's own dynamic quantisation has one step for all tokens of a batch.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np

from common import checkpoint_and_corpus, interleaved  # isort: skip
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

import compress
import probes
from compress.quantization.deploy import deploy, export
from probes.models.formats.onnx_model import OnnxModel
from probes.states.tokens import batches_of

ROWS, ALONE, ROUNDS = 128, 64, 7


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".safetensors", ".onnx"))


def last_layer(model, rows, **settings):
    reps = probes.capture(model, tokenizer, rows, progress=False, device="cpu", **settings)
    return reps.hidden.values[-1].astype(np.float64)


def cosine(a, b):
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


model, tokenizer, corpus = checkpoint_and_corpus(ROWS)
logging.disable(logging.WARNING)  # onnxruntime advises preparations that change nothing here
with tempfile.TemporaryDirectory() as scratch:
    folder = Path(scratch)
    graph = export(model)
    quantize_dynamic(graph, folder / "dynamic.onnx", weight_type=QuantType.QInt8, per_channel=True)
    models = {
        "original": model,
        "onnxruntime": deploy(model, "onnxruntime"),
        "torchao, 8 bits": deploy(model, "torchao"),
        "torchao, 4 bits": deploy(model, "torchao", bits=4),
        "onnxruntime, not quantised": OnnxModel(graph.SerializeToString(), model.config),
        "onnxruntime, its quantize_dynamic": OnnxModel((folder / "dynamic.onnx").read_bytes(), model.config),
    }
    sizes = {name: size(compress.save(m, folder / str(i))) for i, (name, m) in enumerate(models.items())}

batches = [inputs for _, inputs in batches_of(model, tokenizer, corpus, "original", device="cpu")[1]()]


def forward(one):
    with torch.inference_mode():
        for inputs in batches:
            one(**inputs, output_hidden_states=True)


seconds = interleaved({name: lambda m=m: forward(m) for name, m in models.items()}, ROUNDS)
expected = last_layer(model, corpus)
print(f"\n{'':36}{'bytes':>8}{'speed':>8}{'cosine':>9}{'1 - cosine, batch of one':>27}")
for name, one in models.items():
    many = last_layer(one, corpus)
    alone = last_layer(one, corpus.select(range(ALONE)), batch_size=1)
    share, near = sizes[name] / sizes["original"], cosine(many, expected)
    speed = seconds["original"] / seconds[name]
    print(f"{name:36}{share:8.3f}{speed:8.2f}{near:9.4f}{1 - cosine(many[:ALONE], alone):27.1e}")
    if name == "onnxruntime":
        assert share <= 0.27
        assert near >= 0.98
