"""The default probes on the bundled model beside a process that multiplies matrices with all threads, as on a machine
that is shared: seconds with it and without it, in turns, and those of the forward pass.

Products of small layers run on one thread (`probes/measures/workers.py`): several wait for each other as soon as one of
them is held up, and wait on the processor. On two cores that were busy with other work all the while, 1,000 rows took
3.5 s of the processor in 5.0 s with two threads, and 1.2 s in 2.9 s with one.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median

from common import Row, run  # first: it sets the environment

# isort: split
import probes

NEIGHBOUR = """
import numpy as np
x = np.random.default_rng(0).normal(size=(1500, 1500))
print("ready", flush=True)
while True:
    x @ x
"""


@contextmanager
def neighbour() -> Iterator[None]:
    """Keep a process busy that multiplies matrices, as long as this lasts."""
    with subprocess.Popen([sys.executable, "-c", NEIGHBOUR], stdout=subprocess.PIPE, text=True) as process:
        try:
            next(iter(process.stdout or []))  # it is at work once it says so
            yield
        finally:
            process.kill()


def rows(quick: bool) -> Iterator[Row]:
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled").select(range(1000 if quick else 4000))
    reps = probes.capture(model, tokenizer, corpus, device="cpu", progress=False)
    tasks: dict[str, Callable[[], object]] = {
        "forward pass": lambda: probes.capture(model, tokenizer, corpus, device="cpu", progress=False),
        "compare with default probes": lambda: probes.compare({"base": reps, "same": reps}, progress=False),
    }
    for what, task in tasks.items():
        task()  # warms up
        taken: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(3):
            for busy in taken:
                beside: AbstractContextManager[None] = neighbour() if busy else nullcontext()
                with beside:
                    started = time.perf_counter()
                    task()
                    taken[busy].append(time.perf_counter() - started)
        # The smaller the ratio, the more the neighbour costs: 0.33 is three times as long.
        yield Row(
            f"{what}, {len(corpus):,} rows, beside a neighbour", median(taken[True]), median(taken[False]), "alone"
        )


if __name__ == "__main__":
    run(rows)
