"""What a step of fine-tuning takes on the bundled model by other objectives, next to one on labels.

"rp-dro" trains a second network of the student's kind: 2 is what it costs at least; views take a forward pass each, 4
with the model's own; pairs a second pass. All on the same batches, in turns.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

from common import Row, interleaved, run  # first: it sets the environment

# isort: split
from clock import Clock

import probes
from compress import finetune
from compress.objectives import CrossEntropy, PairSupCon, Robust, SupCLSeq

STEPS, SKIPPED = 10, 2


def rows(quick: bool) -> Iterator[Row]:
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="train", languages=["en", "zh"])
    taken: dict[str, list[float]] = defaultdict(list)

    def steps(name: str, objective: Any) -> None:
        def step(number: int, seconds: float) -> None:
            if number > SKIPPED:
                taken[name].append(seconds)

        given = {"train": corpus, "tokenizer": tokenizer, "steps": STEPS, "progress": False}
        finetune(model, objective=objective, callbacks=[Clock(step)], **given)

    kinds = {
        "labels": CrossEntropy(),
        "labels by Group-DRO": Robust(CrossEntropy(), method="group-dro"),
        "labels by CVaR": Robust(CrossEntropy(), method="cvar"),
        "labels by RP-DRO": Robust(CrossEntropy(), method="rp-dro"),
        "labels by P-DRO": Robust(CrossEntropy(), method="p-dro", fitted=1),
        "four views": SupCLSeq(),
        "pairs": PairSupCon(),
    }
    tasks: dict[str, Any] = {name: partial(steps, name, objective) for name, objective in kinds.items()}
    interleaved(tasks, 2 if quick else 5)
    plain = median(taken["labels"])
    yield Row("a step on labels, 32 texts", plain)
    for name in list(kinds)[1:]:
        yield Row(f"a step on {name}", median(taken[name]), plain, "step on labels")


if __name__ == "__main__":
    run(rows)
