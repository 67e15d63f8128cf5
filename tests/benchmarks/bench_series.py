"""Checkpoints of a training in a row: does memory grow with their number? And what a look of `Watch` takes.

Twenty checkpoints of the bundled model are compared on all of its corpus, states on disk: the most that is held above
what was held before, up to the second, the tenth and the twentieth. A look is measured beside the steps of the training
that is watched.
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from common import Row, alone, held, run  # first: it sets the environment

# isort: split
import torch
from clock import Clock

import probes
from compress import finetune

SENTENCES = 2_880
AT = (2, 10, 20)


def rows(quick: bool) -> Iterator[Row]:
    at = (2, 4) if quick else AT
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found = alone(series, folder, max(at), 480 if quick else SENTENCES)
        held_by = {number: max(mib for done, mib in found if done <= number) for number in at}
        said = ", ".join(f"{number}: {mib:.0f} MiB" for number, mib in held_by.items())
        most, least = held_by[max(at)], held_by[min(at)]
        yield Row(f"{max(at)} checkpoints, above start", most, least, f"{min(at)} of them", unit="MiB", note=said)
    yield from watched(3 if quick else 8)


def series(folder: Path, count: int, sentences: int) -> list[tuple[int, float]]:
    """Compare so many checkpoints; return how many were begun, and what was held above the start, again and again."""
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled")
    corpus = corpus.select(range(min(sentences, len(corpus))))
    for step in range(count):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 1e-3)  # other weights, so that each is captured
        model.save_pretrained(folder / f"checkpoint-{step}")
        tokenizer.save_pretrained(folder / f"checkpoint-{step}")
    how: dict[str, Any] = {"pivot": "en", "probes": ["retrieval", "snr"], "draws": 20}
    how |= {"timing": False, "progress": False}
    # A first one, so that what the libraries need once is not counted.
    probes.compare({"warm": folder / "checkpoint-0"}, corpus, store=folder / "warm", **how)
    del model
    seen: list[tuple[int, float]] = []
    done, before = threading.Event(), held()

    def look() -> None:
        while not done.wait(0.05):
            seen.append((len(list((folder / "states").glob("*.zarr"))), held() - before))

    watcher = threading.Thread(target=look)
    watcher.start()
    run_ = probes.series(str(folder / "checkpoint-*"))
    probes.compare({"run": run_}, corpus, store=folder / "states", **how)
    done.set()
    watcher.join()
    return seen


class Timed(probes.Watch):
    """A watch that keeps what each of its looks takes."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        """None yet."""
        super().__init__(*given, **settings)
        self.seconds: list[float] = []

    def _measure(self, *given: Any) -> None:
        started = time.perf_counter()
        super()._measure(*given)
        self.seconds.append(time.perf_counter() - started)


def watched(looks: int) -> Iterator[Row]:
    """What a look takes, next to a step of 32 texts."""
    model, tokenizer = probes.load_checkpoint("bundled")
    train = probes.load_corpus("bundled", split="train", languages=["en", "zh"])
    corpus = probes.load_corpus("bundled", split="dev", languages=["en", "zh"])
    watch = Timed(corpus, every=2, probes=["retrieval", "snr"], pivot="en", tokenizer=tokenizer, draws=200)
    taken: list[float] = []
    clock = Clock(lambda number, seconds: taken.append(seconds))
    finetune(model, train=train, tokenizer=tokenizer, steps=2 * looks, callbacks=[clock, watch], progress=False)
    plain = median(taken[1::2])  # steps after which nobody looked
    what = f"a look of Watch at {len(corpus):,} texts, two probes"
    yield Row(what, median(watch.seconds[1:]), plain, "a step of 32 texts")


if __name__ == "__main__":
    run(rows)
