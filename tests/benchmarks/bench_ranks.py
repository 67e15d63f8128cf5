"""Capture by two processes of one thread each, as torchrun starts them, beside one process with two threads."""

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

from common import Row, run  # first: it sets the environment

# isort: split
import torch

import probes


def rows(quick: bool) -> Iterator[Row]:
    size, rounds = (4_096, 1) if quick else (16_384, 3)  # windows of 2,048, as many for each process
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as place:
        for number in range(rounds):
            for count, seconds in found.items():
                folder = Path(place) / f"{number}-{count}"
                folder.mkdir()
                with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
                    asked = [pool.submit(capture, rank, count, size, folder) for rank in range(count)]
                    seconds.append(max(one.result() for one in asked))
    one, two = (median(seconds) for seconds in found.values())
    note = f"{size / two:.0f} texts a second, {size / one:.0f} by one process; loss {two / one - 1:+.1%}"
    yield Row(f"capture, {size:,} texts, two processes", two, one, "one process with two threads", note=note)


def capture(rank: int, count: int, size: int, folder: Path) -> float:
    """Return the seconds that a capture takes in this process, all of them begun together."""
    import pandas as pd
    import torch.distributed as dist

    torch.set_num_threads(2 // count)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    model, tokenizer = probes.load_checkpoint("bundled")
    texts = probes.load_corpus("bundled")["text"][:]
    frame = pd.DataFrame({"id": range(size), "language": "en", "text": [texts[i % len(texts)] for i in range(size)]})
    corpus, how = probes.load_corpus(frame), {"device": "cpu", "progress": False}
    # A first capture, so that what the libraries need once is not counted, after which all are here.
    probes.capture(model, tokenizer, corpus.select(range(500)), store=folder / "warm.zarr", **how)
    started = time.perf_counter()
    probes.capture(model, tokenizer, corpus, store=folder / "states.zarr", **how)
    return time.perf_counter() - started


if __name__ == "__main__":
    run(rows)
