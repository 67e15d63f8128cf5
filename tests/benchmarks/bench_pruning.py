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

    def plain(kind: str) -> None:
        how = settings(f"{kind}, plain", lambda number: False)
        train(copy.deepcopy(model), tokenizer, corpus, objective=[CrossEntropy()], **how)

    def pruned(kind: str, criterion: str, scope: str) -> None:
        # The masks grow at every other step, and are put on again at all of them.
        how = {"criterion": criterion, "scope": scope, "schedule": "uniform", "prunings": STEPS // 2}
        how |= {"prune_until": 1.0, **settings(kind, lambda number: number % 2 == 0)}
        compress.prune(model, sparsity=0.6, train=corpus, tokenizer=tokenizer, **how)

    for criterion, scope in KINDS:
        kind = f"{criterion}, {scope}"
        # A training without beside each of them: the difference is smaller than what a busy machine makes.
        interleaved(
            {"plain": partial(plain, kind), "pruned": partial(pruned, kind, criterion, scope)}, 3 if quick else 7
        )
        for suffix, what in (("", "masks put on"), (", grows", "masks grow and are put on")):
            found, without = median(taken[kind + suffix]), median(taken[f"{kind}, plain"])
            yield Row(f"a step, {what}: {kind}", found, without, "a step without")


if __name__ == "__main__":
    run(rows)
