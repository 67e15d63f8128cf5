"""Guided denoisers that sample in fewer steps: what they learn, that the teacher stays, and how it goes on."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from denoised import CENTRES, Tiny, rows, tiny
from trained import same, weights

import compress
from compress.distillation.denoisers import Guided
from compress.objectives.diffusion import TwoStepsInOne, noised
from probes.errors import InputError

HOW = {"updates": 3, "progress": False, "batch_size": 20, "learning_rate": 1e-3}
LEARNS = {"progress": False, "batch_size": 60, "learning_rate": 2e-2}


@pytest.fixture(scope="module")
def teacher():
    """One that has learned three classes about their centres."""
    return compress.train_denoiser(tiny(width=32), rows(), updates=80, **LEARNS)


@pytest.fixture(scope="module")
def students(teacher):
    """What it becomes: by the steps that it takes."""
    given = {"guidance": (0, 2), **LEARNS}
    guided = compress.distill_diffusion(teacher, rows(), steps=[4], updates=140, **given)
    return {4: guided, 2: compress.distill_diffusion(guided, rows(), steps=[4, 2], updates=30, **given)}


def right(samples, label):
    return (np.linalg.norm(samples[:, None] - CENTRES, axis=2).argmin(1) == label).mean()


def test_few_steps_of_one_pass_give_the_classes_that_many_of_two_give(teacher, students):
    label, rng = np.arange(300) % 3, np.random.default_rng(5)
    noise = rng.normal(size=(300, 2))
    slow = compress.sample_diffusion(teacher, noise, label, steps=64, guidance=1)
    assert right(slow, label) > 0.95
    fast = compress.sample_diffusion(students[2], noise, label, guidance=1)
    assert right(fast, label) > 0.9 * right(slow, label)
    # A student goes where its teacher goes from the same noise, and nowhere near where one goes that learned nothing.
    before = compress.sample_diffusion(students[4], noise, label, guidance=1)
    moved, spread = np.abs(fast - before).mean(), np.abs(before - CENTRES.mean(0)).mean()
    assert moved < 0.1 * spread
    assert right(compress.sample_diffusion(tiny(), noise, label, steps=2), label) < 0.6


def test_one_pass_says_what_two_say_at_every_weight_and_at_0_what_the_class_says(teacher, students):
    x, label = (torch.from_numpy(values) for values in rows(300, seed=2))
    level = torch.full((300,), 0.6)
    x = noised(x.float(), level, torch.from_numpy(np.random.default_rng(2).normal(size=(300, 2))).float())
    for w in (0.0, 1.0, 2.0):
        weight = torch.full((300,), w)
        with torch.no_grad():
            wanted, found, naive = (m(x, level, label, weight) for m in (Guided(teacher), students[4], teacher))
        if w == 0:
            assert torch.equal(wanted, naive)
        assert ((found - wanted) ** 2).mean() < 0.05 * wanted.var()
    assert ((naive - wanted) ** 2).mean() > ((found - wanted) ** 2).mean()


def test_what_is_given_stays_and_what_was_done_is_recorded(teacher):
    before = weights(teacher)
    found = compress.distill_diffusion(
        teacher, rows(), steps=[4, 2], guidance=(1, 3), sampler="stochastic", seed=3, **HOW
    )
    assert same(before, weights(teacher))
    assert teacher.compression["method"] == "train_denoiser"
    assert not teacher.training
    assert not found.training
    assert not any(p.grad is not None for p in teacher.parameters())
    assert type(found) is Tiny
    assert not same(before, weights(found), atol=1e-5)
    about = found.compression
    assert {k: about[k] for k in ("method", "steps", "guidance", "sampler", "updates", "seed", "objective")} == {
        "method": "distill_diffusion",
        "steps": [4, 2],
        "guidance": [1.0, 3.0],
        "sampler": "stochastic",
        "updates": 3,
        "seed": 3,
        "objective": ["guided_in_one_pass", "two_steps_in_one"],
    }
    assert about["training"] == {"batch_size": 20, "learning_rate": 1e-3}
    assert about == json.loads(json.dumps(about))
    assert found.history[["steps", "step"]].to_numpy().tolist() == [[4, 1], [4, 2], [4, 3], [2, 1], [2, 2], [2, 3]]


def test_calls_in_a_row_are_one_call(teacher):
    whole = compress.distill_diffusion(teacher, rows(), steps=[4, 2, 1], **HOW)
    part = compress.distill_diffusion(teacher, rows(), steps=[4], **HOW)
    part = compress.distill_diffusion(part, rows(), steps=[4, 2], **HOW)
    part = compress.distill_diffusion(part, rows(), steps=[2, 1], **HOW)
    assert same(weights(whole), weights(part))
    assert part.compression["before"]["steps"] == [4, 2]
    assert part.compression["before"]["before"]["sampler"] is None
    other = compress.distill_diffusion(teacher, rows(), steps=[4, 2, 1], **HOW | {"seed": 1})
    assert not same(weights(whole), weights(other), atol=1e-6)


def test_what_was_interrupted_goes_on_and_ends_as_it_would_have(teacher, tmp_path, monkeypatch):
    given = {"steps": [4, 2], **HOW, "updates": 4}
    whole = compress.distill_diffusion(teacher, rows(), **given)
    kept, calls = {"folder": tmp_path, "save_every": 2}, []

    def stops(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(self, *args, **kwargs)

    loss = TwoStepsInOne.__call__
    with monkeypatch.context() as patch:
        patch.setattr(TwoStepsInOne, "__call__", stops)
        with pytest.raises(KeyboardInterrupt):
            compress.distill_diffusion(teacher, rows(), **given, **kept)
    with pytest.raises(InputError, match="steps_4 holds checkpoints of another training: data is"):
        compress.distill_diffusion(teacher, rows(seed=1), **given, **kept)
    with pytest.raises(InputError, match=r"guidance of guided_in_one_pass is \{'0': 1.0"):
        compress.distill_diffusion(teacher, rows(), guidance=(1, 2), **given, **kept)
    again = compress.distill_diffusion(teacher, rows(), **given, **kept)
    assert same(weights(again), weights(whole))
    pd.testing.assert_frame_equal(again.history, whole.history)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["steps_2", "steps_4"]
    copied = copy.deepcopy(again)  # with what was done
    assert copied.compression == again.compression


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": [64, 30]}, r"steps=\[64, 30\]: 30 is not half of 64: expected whole numbers, each half of the one"),
        ({"steps": [4, 2, 1, 0]}, "each half of the one before, as .*; found 0"),
        ({"steps": [3, 1.5]}, "found 1.5"),
        ({"steps": []}, "found none"),
        ({"steps": "64"}, "found '64'"),
        ({"guidance": (4, 0)}, r"guidance=\(4, 0\): expected the lowest and the highest weight"),
        ({"guidance": (0, 0)}, r"guidance=\(0, 0\): expected"),
        ({"sampler": "euler"}, "sampler='euler' is not known; choose one of 'deterministic', 'stochastic'"),
        ({"updates": 0}, "updates=0: expected a whole number of at least 1"),
        ({"learning_rates": 1}, "learning_rates=1: no such setting. Did you mean learning_rate"),
        ({"max_length": 8}, "max_length=8: no such setting"),
        ({"data": (rows()[0], rows()[1] + 1)}, "label: row 2 has 3: expected 0 to 2, as the denoiser has 3 classes"),
        ({"data": (rows()[0], rows()[1] - 1)}, "label: row 0 has -1"),
        ({"data": (rows()[0], rows()[1][:5])}, r"expected 60 whole numbers, one a row of x; found int64 of"),
        ({"data": (rows()[0], rows()[1] / 2)}, "found float64 of shape"),
        ({"data": (rows()[0] * np.nan, rows()[1])}, r"data: x: expected finite numbers .* some of them not finite"),
        ({"data": rows()[0]}, "expected a pair of arrays"),
        ({"denoiser": Tiny(size=3)}, r"Tiny: forward\(x, level, label, guidance\) fails on two rows of shape \(2, 2\)"),
        ({"denoiser": torch.nn.Linear(2, 2)}, "Linear: expected an attribute classes, how many there are, found None"),
        ({"denoiser": 3}, "int is no torch.nn.Module"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_any_update(changes, message, monkeypatch):
    monkeypatch.setattr("compress.distillation.diffusion.train_rows", None)
    given = {"denoiser": tiny(), "data": rows(), "steps": [4, 2], **HOW} | changes
    with pytest.raises(InputError, match=message):
        compress.distill_diffusion(given.pop("denoiser"), given.pop("data"), **given)


def test_an_output_of_another_shape_is_refused_by_what_was_expected():
    class Wide(Tiny):
        def forward(self, x, level, label, guidance):
            return torch.cat([super().forward(x, level, label, guidance)] * 2, 1)

    with pytest.raises(InputError, match=r"Wide: expected a velocity of the shape of x, \(2, 2\), found \(2, 4\)"):
        compress.distill_diffusion(Wide(), rows(), **HOW)

    class NoNone(Tiny):
        def __init__(self):
            super().__init__()
            self.of_label = torch.nn.Embedding(3, 4)

    with pytest.raises(InputError, match=r"labels 0 and 3 \(none\): IndexError"):
        compress.train_denoiser(NoNone(), rows(), **HOW)


def test_what_was_distilled_goes_on_only_from_where_it_is(students):
    two = {"guidance": (0, 2), **HOW}
    with pytest.raises(InputError, match=r"takes 2 steps: go on from there, as with steps=\[2, 1\]"):
        compress.distill_diffusion(students[2], rows(), steps=[8, 4], **two)
    with pytest.raises(InputError, match="takes 4 steps: go on from there"):
        compress.distill_diffusion(students[4], rows(), steps=[4], **two)
    with pytest.raises(InputError, match=r"guidance=\(0.0, 4.0\): Tiny was distilled for weights of 0 to 2"):
        compress.distill_diffusion(students[2], rows(), steps=[2, 1], **HOW)
    with pytest.raises(InputError, match="sampler='stochastic': Tiny was distilled for the deterministic one"):
        compress.distill_diffusion(students[2], rows(), steps=[2, 1], sampler="stochastic", **two)
    with pytest.raises(InputError, match="Tiny was distilled to sample in 2 steps, which this would undo"):
        compress.train_denoiser(students[2], rows(), **HOW)
