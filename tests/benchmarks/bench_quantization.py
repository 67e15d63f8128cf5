"""Quantised models that run: speed, bytes and closeness to the original, and how far a state depends on its batch.

Speed is that of a forward pass with all hidden states over the same batches, in turns. "batch of one" is 1 - cosine
between the mean-pooled last layer of texts run alone and of the same texts in batches of 64: 0 where a text's states
are its own. onnxruntime's own dynamic quantisation has one step for all tokens of a batch.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import Row, checkpoint_and_corpus, interleaved, run  # first: it sets the environment

# isort: split
import numpy as np
import torch

import compress
import probes
from compress.quantization.deploy import deploy, export
from probes.models.formats.onnx_model import OnnxModel
from probes.states.tokens import batches_of

ALONE = 64


def rows(quick: bool) -> Iterator[Row]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, tokenizer, corpus, called = checkpoint_and_corpus(ALONE if quick else 2 * ALONE)
    logging.disable(logging.WARNING)  # onnxruntime advises preparations that change nothing here
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        graph = export(model)
        quantize_dynamic(graph, folder / "dynamic.onnx", weight_type=QuantType.QInt8, per_channel=True)
        models = {
            "original": model,
            "onnxruntime, 8 bits": deploy(model, "onnxruntime"),
            "torchao, 8 bits": deploy(model, "torchao"),
            "torchao, 4 bits": deploy(model, "torchao", bits=4),
            "onnxruntime, not quantised": OnnxModel(graph.SerializeToString(), model.config),
            "its quantize_dynamic": OnnxModel((folder / "dynamic.onnx").read_bytes(), model.config),
        }
        sizes = {name: size(compress.save(m, folder / str(i))) for i, (name, m) in enumerate(models.items())}

    batches = [inputs for _, inputs in batches_of(model, tokenizer, corpus, "original", device="cpu")[1]()]

    def forward(one) -> None:  # type: ignore[no-untyped-def]
        with torch.inference_mode():
            for inputs in batches:
                one(**inputs, output_hidden_states=True)

    def last_layer(one, texts, **settings) -> np.ndarray:  # type: ignore[no-untyped-def]
        reps = probes.capture(one, tokenizer, texts, progress=False, device="cpu", **settings)
        return reps.hidden.values[-1].astype(np.float64)

    seconds = interleaved({name: lambda m=m: forward(m) for name, m in models.items()}, 3 if quick else 7)
    expected = last_layer(model, corpus)
    for name, one in models.items():
        if name == "original":
            continue
        many = last_layer(one, corpus)
        single = last_layer(one, corpus.select(range(ALONE)), batch_size=1)
        note = f"{sizes[name] / sizes['original']:.2f} of the bytes, cosine {cosine(many, expected):.4f}, "
        note += f"batch of one {abs(1 - cosine(many[:ALONE], single)):.0e}"
        yield Row(f"forward pass, {called}: {name}", seconds[name], seconds["original"], "the original", note=note)
        if name == "onnxruntime, 8 bits":
            theirs = "its quantize_dynamic"
            yield Row(f"forward pass, {called}: {name}", seconds[name], seconds[theirs], f"onnxruntime, {theirs}")


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".safetensors", ".onnx"))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


if __name__ == "__main__":
    run(rows)
