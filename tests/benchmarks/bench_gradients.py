"""What masks of gradients add to a step of training on the bundled model, beside a step without.

Each rule is timed by itself, as what it does to gradients and optimiser in a step, and held to the rest of that step,
in seconds of the processor: on a busy machine two trainings differ by more than masks take.
"""

import copy
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from common import Row, run  # first: it sets the environment

# isort: split
from transformers import TrainerCallback

import probes
from compress import CrossEntropy, GradDrop, GradualUnfreezing
from compress.training import train
from compress.training.masks import Masks

SKIPPED = 2
RULES = {
    "GradDrop": GradDrop(0.3),
    "GradDrop, strict": GradDrop(0.3, strict=True),
    "GradDrop, by epoch": GradDrop(0.3, per="epoch"),
    "GradDrop, by layer": GradDrop(0.3, per="layer"),
    "gradual unfreezing": GradualUnfreezing(),
}


def rows(quick: bool) -> Iterator[Row]:
    model, tokenizer = probes.load_checkpoint("bundled")
    # Of few rows, so that steps are of several epochs.
    corpus = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(96))
    steps = 10 if quick else 60
    for name, rule in RULES.items():
        spent, whole = _timed(copy.deepcopy(model), tokenizer, corpus, rule, steps)
        note = f"with masks {whole / (whole - spent):.3f} of a step without"
        yield Row(f"masks in a step: {name}", spent, whole - spent, "the rest of the step", note=note)


def _timed(model: Any, tokenizer: Any, corpus: Any, rule: Any, steps: int) -> tuple[float, float]:
    """Median seconds that masks take in a step, and those of the step."""
    masks: list[float] = []
    whole: list[float] = []
    now = [0.0]

    def timed(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments)
            finally:
                now[0] += time.process_time() - started

        return call

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started, now[0] = time.process_time(), 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step > SKIPPED:
                masks.append(now[0])
                whole.append(time.process_time() - self.started)

    apply, strictly = Masks.apply, Masks.strictly

    def watched(self: Masks, optimizer: Any) -> None:
        known = set(optimizer._optimizer_step_pre_hooks) | set(optimizer._optimizer_step_post_hooks)
        strictly(self, optimizer)
        for hooks in (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks):
            for key in set(hooks) - known:
                hooks[key] = timed(hooks[key])

    Masks.apply, Masks.strictly = timed(apply), watched  # type: ignore[method-assign]
    try:
        how = {"steps": steps, "progress": False, "callbacks": [Clock()], "gradients": rule}
        train(model, tokenizer, corpus, objective=[CrossEntropy()], **how)
    finally:
        Masks.apply, Masks.strictly = apply, strictly  # type: ignore[method-assign]
    return median(masks), median(whole)


if __name__ == "__main__":
    run(rows)
