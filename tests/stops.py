"""An interruption of a training, as by a user."""

from transformers import TrainerCallback


class Stops(TrainerCallback):
    """Interrupts a training at the end of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt
