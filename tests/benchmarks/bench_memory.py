"""Peak memory of capture to disk and of every probe at 2,000 and 20,000 rows, each in a process of its own.

python tests/benchmarks/bench_memory.py
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = (2_000, 20_000)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def capture(rows: int, folder: Path) -> None:
    import common  # noqa: F401 - sets the environment before torch is imported
    import pandas as pd

    import probes

    model, tokenizer = probes.load_checkpoint("bundled")
    texts = probes.load_corpus("bundled", split="train")["text"]
    frame = pd.DataFrame({"id": range(rows), "language": "en", "text": [texts[i % len(texts)] for i in range(rows)]})
    corpus = probes.load_corpus(frame)
    # A first capture, so that what the libraries need once is not counted.
    probes.capture(model, tokenizer, corpus.select(range(500)), store=folder / "warm.zarr", progress=False)
    before = peak()
    probes.capture(model, tokenizer, corpus, store=folder / "states.zarr", progress=False)
    print(peak() - before)


def measure(probe: str, rows: int, folder: Path) -> None:
    import numpy as np

    import probes
    from probes.states.representations import BLOCK
    from probes.states.store import Store

    rng = np.random.default_rng(0)
    ids = rows // 4
    label = rng.integers(0, 6, ids)
    small = probes.from_arrays(
        np.zeros((7, rows, 1), np.float32),
        id=np.repeat(np.arange(ids), 4),
        language=np.tile(["en", "fr", "ar", "zh"], ids),
        label=np.repeat(label, 4),
    )
    store = Store(folder / "states.zarr", "bench")
    hidden = store.open(small.drop_vars("hidden").assign_attrs(fingerprint="bench"), {"hidden": (7, rows, 384)}, rows)[
        "hidden"
    ]
    for start in range(0, rows, BLOCK):
        stop = min(start + BLOCK, rows)
        centres = np.random.default_rng(1).normal(size=(6, 384)).astype(np.float32)
        part = rng.normal(size=(7, stop - start, 384)).astype(np.float32)
        hidden[:, start:stop] = part + centres[np.repeat(label, 4)[start:stop]]
    store.finish()
    reps = probes.open_representations(store.path)
    pivot = {} if probe in ("class_separability", "variability", "snr") else {"pivot": "en"}
    getattr(probes, probe)(reps.isel(example=slice(0, 400)).load(), **pivot)
    before = peak()
    getattr(probes, probe)(reps, **pivot)
    print(peak() - before)


TASKS = ["capture", "class_separability", "alignment_gap", "variability", "retrieval", "margin_retrieval", "snr"]

if len(sys.argv) > 1:
    task, size, place = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    capture(size, place) if task == "capture" else measure(task, size, place)
else:
    print(f"{'MiB above the start, peak':34}{'2,000 rows':>12}{'20,000 rows':>13}")
    for task in TASKS:
        found = []
        for size in SIZES:
            with tempfile.TemporaryDirectory() as place:
                command = [sys.executable, __file__, task, str(size), place]
                found.append(
                    float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
                )
        print(f"{'capture to disk' if task == 'capture' else task:34}{found[0]:12.0f}{found[1]:13.0f}")
