"""An interruption of a training, as by a user, and what comes of one that goes on."""

import pandas as pd
import pytest
from trained import same, weights
from transformers import TrainerCallback


class Stops(TrainerCallback):
    """Interrupts a training at the end of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def goes_on(train, folder, step):
    """Hold that a training interrupted at a step ends as an uninterrupted one; return both, the whole one first.

    `train` takes a folder and callbacks, and returns a history and a model.
    """
    whole = train(folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(folder / "run", Stops(step))
    again = train(folder / "run")
    pd.testing.assert_frame_equal(again[0], whole[0])
    assert same(weights(again[1]), weights(whole[1]))
    return whole, again
