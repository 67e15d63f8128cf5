"""The time that each step of a training takes, by a callback."""

import time
from typing import Any

import probes  # noqa: F401  # first: it quietens what comes with transformers

# isort: split
from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Gives the number of each step and its seconds, with what other callbacks do in it, to a function."""

    def __init__(self, taken: Any) -> None:
        self.taken = taken

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.taken(state.global_step, time.perf_counter() - self.started)
