"""What pruning adds to a step of training on the bundled model: masks that grow, and masks that are put on again."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from common import Row, interleaved, run  # first: it sets the environment

# isort: split
from clock import Clock

import compress
import probes
from compress.objectives import CrossEntropy
from compress.training import train

STEPS, SKIPPED = 12, 2
KINDS = [
    ("magnitude", "matrix"),
    ("magnitude", "global"),
    ("lamp", "global"),
    ("random", "matrix"),
    ("magnitude", "unit"),
]


def rows(quick: bool) -> Iterator[Row]:
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="train", languages=["en"])
    taken: dict[str, list[float]] = defaultdict(list)

    def settings(name: str, grows: Callable[[int], bool]) -> dict:
        def step(number: int, seconds: float) -> None:
            if number > SKIPPED:
                taken[f"{name}, grows" if grows(number) else name].append(seconds)

        return {"steps": STEPS, "progress": False, "callbacks": [Clock(step)]}

    def plain() -> None:
        train(
            copy.deepcopy(model),
            tokenizer,
            corpus,
            objective=[CrossEntropy()],
            **settings("plain", lambda number: False),
        )

    def pruned(criterion: str, scope: str) -> None:
        # The masks grow at every other step, and are put on again at all of them.
        how = {"criterion": criterion, "scope": scope, "schedule": "uniform"}
        how |= {"prunings": STEPS // 2, "prune_until": 1.0, **settings(f"{criterion}, {scope}", lambda n: n % 2 == 0)}
        compress.prune(model, sparsity=0.6, train=corpus, tokenizer=tokenizer, **how)

    tasks = {"plain": plain} | {f"{c}, {s}": partial(pruned, c, s) for c, s in KINDS}
    interleaved(tasks, 3 if quick else 9)
    seconds = {name: median(times) for name, times in taken.items()}
    for criterion, scope in KINDS:
        for suffix, what in (("", "masks put on"), (", grows", "masks grow and are put on")):
            found = seconds[f"{criterion}, {scope}{suffix}"]
            yield Row(f"a step, {what}: {criterion}, {scope}", found, seconds["plain"], "a step without")


if __name__ == "__main__":
    run(rows)
