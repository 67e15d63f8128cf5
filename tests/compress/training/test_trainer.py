import copy

import numpy as np
import pandas as pd
import pytest
import torch
from trained import same, weights
from transformers import TrainerCallback
from transformers.utils import ModelOutput

import probes
from compress import TrainingSettings
from compress.training.trainer import train_rows

ROWS = [
    {"x": row[:3].tolist(), "y": row[3:].tolist(), "index": i}
    for i, row in enumerate(np.random.default_rng(0).normal(size=(10, 4)))
]


class Plain(torch.nn.Linear):
    """A module that is none of transformers."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__(3, 1)

    def forward(self, x, y, **_):
        return ModelOutput(logits=super().forward(x) - y)


class Square:
    name, weight, needs = "square", 1.0, frozenset()

    def __call__(self, student, teacher, batch):
        return student.logits.square().mean()


class Near(Square):
    name, needs = "near", frozenset({"teacher"})

    def __call__(self, student, teacher, batch):
        return (student.logits - teacher.logits).square().mean()


def collate(batch):
    return {k: torch.tensor([row[k] for row in batch]) for k in batch[0]}


def run(student, objective=None, **changes):
    how = TrainingSettings(batch_size=10, learning_rate=1e-2, scheduler="constant", max_grad_norm=None)
    given = {"steps": 4, "of": {"rows": "a"}, "progress": False, "settings": how} | changes
    return train_rows(student, ROWS, collate, objective=[objective or Square()], **given)


@pytest.fixture
def student():
    torch.manual_seed(0)
    return Plain()


def test_a_plain_module_is_trained_as_by_torch_itself(student):
    other = copy.deepcopy(student)
    history = run(student)
    optimizer, found = torch.optim.AdamW(other.parameters(), lr=1e-2, weight_decay=0.0), []
    for _ in range(4):
        loss = other(**collate(ROWS)).logits.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    np.testing.assert_allclose(history["square"], found, rtol=1e-6)
    assert same(weights(student), weights(other), atol=1e-6)


def test_a_plain_module_learns_from_a_teacher_that_stays_as_it_was(student):
    teacher = Plain().train()
    before = weights(teacher)
    history = run(student, Near(), teacher=teacher, steps=8)
    assert history["loss"].is_monotonic_decreasing
    assert same(before, weights(teacher))
    assert teacher.training
    assert all(p.grad is None for p in teacher.parameters())


class Stops(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 3:
            raise KeyboardInterrupt


def test_what_was_interrupted_goes_on_and_ends_as_it_would_have(student, tmp_path):
    whole, begun, again = (copy.deepcopy(student) for _ in range(3))
    history = run(whole)
    kept = {"folder": tmp_path, "save_every": 2}
    with pytest.raises(KeyboardInterrupt):
        run(begun, callbacks=[Stops()], **kept)
    with pytest.raises(probes.InputError, match="holds checkpoints of another training: rows is 'b' here and was 'a'"):
        run(again, of={"rows": "b"}, **kept)
    pd.testing.assert_frame_equal(run(again, **kept), history)
    assert same(weights(again), weights(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4", "training.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
        ({"save_every": 0}, "save_every=0: expected a whole number of at least 1"),
        ({"seed": -1}, "seed=-1: expected a whole number of at least 0"),
    ],
)
def test_bad_settings_are_refused(student, changes, message):
    with pytest.raises(probes.InputError, match=message):
        run(student, **changes)
