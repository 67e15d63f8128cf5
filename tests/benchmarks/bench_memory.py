"""Peak memory of capture to disk and of every probe, next to what the states take; and of compressions that go block by
block, next to their model; each in a process of its own.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import Row, alone, held, peak, run  # first: it sets the environment

# isort: split
import numpy as np

import probes
from probes.measures.catalogue import families

LAYERS, WIDTH, BLOCK = 7, 384, 1024
LABELS, ALIGNMENT = families()["labels"], families()["alignment"]


SIZES = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "num_key_value_heads": 6}


def rows(quick: bool) -> Iterator[Row]:
    yield from by_block(*((2, 6) if quick else (2, 12)))
    small, large = (1_000, 4_000) if quick else (2_000, 20_000)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found = {size: alone(capture, size, folder / f"captured_{size}") for size in (small, large)}
        yield said(f"capture to disk, {large:,} texts", found, *alone(sizes, folder / f"captured_{large}"))
        for size in (small, large):
            alone(write, size, folder / f"{size}.zarr")
        for name in (*LABELS, *ALIGNMENT):
            found = {size: alone(measure, name, folder / f"{size}.zarr") for size in (small, large)}
            yield said(f"{name}, {large:,} rows", found, LAYERS, WIDTH)


def said(what: str, found: dict[int, float], layers: int, width: int) -> Row:
    (small, least), (large, most) = found.items()
    states = large * layers * width * 4 / 2**20
    return Row(what, most, states, "the states", unit="MiB", note=f"{small:,} rows: {least:.0f} MiB")


def by_block(few: int, many: int) -> Iterator[Row]:
    """What is held beside the model that is made: of one block at a time, so that deeper models take no more."""
    for method in ("gptq", "awq", "sparsegpt"):
        found = {depth: alone(fit, method, depth) for depth in (few, many)}
        (least, _), (most, model) = found.values()
        note = f"{few} blocks: {least:.0f} MiB"
        yield Row(f"{method}, {many} blocks, beyond the model", most, model, "the model", unit="MiB", note=note)


def fit(method: str, depth: int) -> tuple[float, float]:
    """Return by how much a compression lifts the peak above the model and its copy, and what the model takes."""
    import transformers

    import compress

    _, tokenizer = probes.load_checkpoint("bundled-decoder")
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=depth, **SIZES)
    model = transformers.LlamaForCausalLM(config).eval()
    texts = {"tokenizer": tokenizer, "progress": False}
    corpus = probes.load_corpus("bundled", split="train").select(range(160))

    def made(of: transformers.PreTrainedModel) -> object:
        if method == "sparsegpt":
            return compress.prune(of, sparsity=0.5, criterion="sparsegpt", pattern="2:4", train=corpus, **texts)
        return compress.quantize(of, bits=4, group=128, method=method, calibrate=corpus, **texts)

    made(transformers.LlamaForCausalLM(transformers.LlamaConfig(**config.to_dict() | {"num_hidden_layers": 1})).eval())
    before, size = held(), sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    made(model)
    return peak() - before - size, size


def capture(rows: int, folder: Path) -> float:
    """Return by how much a capture lifts the peak above what the libraries, the model and the corpus take."""
    import pandas as pd

    model, tokenizer = probes.load_checkpoint("bundled")
    texts = probes.load_corpus("bundled", split="train")["text"]
    frame = pd.DataFrame({"id": range(rows), "language": "en", "text": [texts[i % len(texts)] for i in range(rows)]})
    corpus = probes.load_corpus(frame)
    # A first capture, so that what the libraries need once is not counted.
    how = {"device": "cpu", "progress": False}
    probes.capture(model, tokenizer, corpus.select(range(500)), store=folder / "warm.zarr", **how)
    before = peak()
    probes.capture(model, tokenizer, corpus, store=folder / "states.zarr", **how)
    return peak() - before


def sizes(folder: Path) -> tuple[int, int]:
    reps = probes.open_representations(folder / "states.zarr")
    return reps.sizes["layer"], reps.sizes["feature"]


def write(rows: int, path: Path) -> None:
    """Write states of classes in four languages, in the pieces that capture writes."""
    rng = np.random.default_rng(0)
    label = np.repeat(rng.integers(0, 6, rows // 4), 4)
    hidden = rng.normal(size=(6, WIDTH)).astype(np.float32)[label] + np.zeros((LAYERS, 1, 1), np.float32)
    for layer in hidden:
        layer += rng.standard_normal(layer.shape, np.float32)
    ids, languages = np.repeat(np.arange(rows // 4), 4), np.tile(["en", "fr", "ar", "zh"], rows // 4)
    reps = probes.from_arrays(hidden, id=ids, language=languages, label=label)
    pieces = {"chunks": (1, min(BLOCK, rows), WIDTH), "compressors": None}
    reps.to_zarr(path, consolidated=False, encoding={"hidden": pieces})


def measure(probe: str, path: Path) -> float:
    """Return by how much a probe on states that lie on disk lifts the peak."""
    reps = probes.open_representations(path)
    pivot = {"pivot": "en"} if probe in ALIGNMENT else {}
    getattr(probes, probe)(reps.isel(example=slice(0, 400)).load(), **pivot)
    before = peak()
    getattr(probes, probe)(reps, **pivot)
    return peak() - before


if __name__ == "__main__":
    run(rows)
