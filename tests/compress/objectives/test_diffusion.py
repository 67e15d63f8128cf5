"""The objectives of denoisers, against the formulas of their papers in float64."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from denoised import tiny

from compress.distillation.denoisers import Guided, Read
from compress.objectives.base import Pass, State
from compress.objectives.diffusion import (
    Denoising,
    GuidedInOnePass,
    TwoStepsInOne,
    by_level,
    noised,
    noised_further,
    stepped,
    velocity_between,
)
from probes.errors import InputError

COUNT = 24


def parts(level):
    """Signal and noise (row, 1) of levels."""
    angle = level.double()[:, None] * math.pi / 2
    return angle.cos(), angle.sin()


def estimate(z, velocity, level):
    alpha, sigma = parts(level)
    return alpha * z - sigma * velocity


def ddim(z, x, start, end):
    """A step to another level by an estimate of x, as it is written in the papers."""
    (alpha, sigma), (alpha_end, sigma_end) = parts(start), parts(end)
    return alpha_end * x + sigma_end / sigma * (z - alpha * x)


def by_hand(x, target, level):
    """The squared distance of two estimates of x, counted by max(signal / noise, 1)."""
    alpha, sigma = parts(level)
    return (torch.clamp((alpha / sigma) ** 2, min=1) * (x - target) ** 2).mean()


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(COUNT, 2)))
    zero = torch.zeros(COUNT, dtype=torch.float64)
    return {"x": x, "level": zero, "label": torch.arange(COUNT) % 3, "guidance": zero.clone(), "modules": {}}


def asked(objective, batch, seed=0):
    batch = batch | {"modules": {objective.name: State(seed)}}
    return batch | objective.alter(batch, None)


def said(module, batch):
    return Pass(module, module(*(batch[k] for k in ("x", "level", "label", "guidance"))).logits)


def test_noise_steps_and_velocities_are_those_of_the_papers(batch):
    rng = np.random.default_rng(1)
    x, e, z, v = (torch.from_numpy(rng.normal(size=(COUNT, 2))) for _ in range(4))
    start = torch.from_numpy(rng.uniform(0.5, 1, COUNT))
    end, higher = start / 2, (1 + start) / 2
    alpha, sigma = parts(start)
    torch.testing.assert_close(noised(x, start, e), alpha * x + sigma * e)
    found = stepped(z, v, start, end)
    torch.testing.assert_close(found, ddim(z, estimate(z, v, start), start, end))
    torch.testing.assert_close(velocity_between(z, found, start, end), v)
    # Noise added in two turns has the variance and the signal of one.
    one, two = noised_further(torch.ones(COUNT, 1).double(), torch.zeros(COUNT, 1), start, higher), parts(higher)
    torch.testing.assert_close(one, two[0] / alpha)
    spread = noised_further(torch.zeros(COUNT, 1).double(), torch.ones(COUNT, 1), start, higher)
    torch.testing.assert_close(one**2 * sigma**2 + spread**2, two[1] ** 2)


def test_at_the_ends_there_is_all_of_x_or_none_of_it():
    x, e, end = torch.full((2, 1), 3.0), torch.full((2, 1), 5.0), torch.tensor([0.0, 1.0])
    assert noised(x, end, e).tolist() == [[3.0], [5.0]]


@pytest.mark.parametrize("sampler", ["deterministic", "stochastic"])
def test_one_step_of_the_target_leads_where_two_of_the_teacher_lead(batch, sampler):
    objective = TwoStepsInOne(steps=4, sampler=sampler)
    batch, teacher = asked(objective, batch), Read(tiny().double())
    with torch.no_grad():
        target = objective.target(said(teacher, batch), batch)
    z, level = batch["x"], batch["level"]
    length = 0.25 if sampler == "deterministic" else 0.5
    last = (level - length).clamp(min=0)
    middle = torch.where(last > 0, level - length / 2, (level + last) / 2)
    middle = torch.where((level == 0.25) & (sampler == "stochastic"), last, middle)
    for i in range(COUNT):
        at = slice(i, i + 1)
        here, ends = z[at], [level[at], middle[at], last[at]]
        for start, end in pairwise(ends):
            if start == end:
                continue
            given = teacher.denoiser(here, start, batch["label"][at], batch["guidance"][at])
            here = ddim(here, estimate(here, given, start), start, end)
        (alpha, sigma), (alpha_last, sigma_last) = parts(level[at]), parts(last[at])
        wanted = (here - sigma_last / sigma * z[at]) / (alpha_last - sigma_last / sigma * alpha)
        torch.testing.assert_close(estimate(z[at], target[at], level[at]), wanted, rtol=0, atol=1e-9)
        torch.testing.assert_close(stepped(z[at], target[at], level[at], last[at]), here, rtol=0, atol=1e-9)


def test_in_float32_two_steps_are_one_to_a_millionth(batch):
    objective = TwoStepsInOne(steps=4)
    batch = {k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in batch.items()}
    batch, teacher = asked(objective, batch), Read(tiny())
    with torch.no_grad():
        first = said(teacher, batch)
        target = objective.target(first, batch)
        middle, last = objective.ends(batch["level"])
        half = stepped(batch["x"], first.logits, batch["level"], middle)
        there = stepped(half, teacher(half, middle, batch["label"], batch["guidance"]).logits, middle, last)
    torch.testing.assert_close(stepped(batch["x"], target, batch["level"], last), there, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "objective", [Denoising(3, weight=0.5), GuidedInOnePass((0, 4), weight=0.5), TwoStepsInOne(weight=0.5, steps=2)]
)
def test_losses_and_gradients_are_those_of_a_computation_by_hand(batch, objective):
    batch, student = asked(objective, batch), Read(tiny(1).double())
    z, level, w = batch["x"], batch["level"], batch["guidance"][:, None]
    denoiser = tiny().double()
    teacher = (
        None if isinstance(objective, Denoising) else Read(denoiser if "two" in objective.name else Guided(denoiser))
    )
    with torch.no_grad():
        given = None if teacher is None else said(teacher, batch)
        if isinstance(objective, TwoStepsInOne):
            target = estimate(z, objective.target(given, batch), level)
        elif teacher is not None:
            none, zero = torch.full_like(batch["label"], 3), torch.zeros_like(batch["guidance"])
            of_class, of_none = (estimate(z, denoiser(z, level, k, zero), level) for k in (batch["label"], none))
            target = (1 + w) * of_class - w * of_none
        else:
            target = estimate(z, batch["velocity"], level)
    found, expected = [], []
    for loss, kept in ((lambda v: objective(Pass(student, v), given, batch), found),
                       (lambda v: 0.5 * by_hand(estimate(z, v, level), target, level), expected)):  # fmt: skip
        velocity = said(student, batch).logits.detach().requires_grad_()
        value = loss(velocity)
        value.backward()
        kept += [value.detach(), velocity.grad]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert found[0] > 0


def test_noise_is_added_to_what_there_is_and_the_velocity_leads_back(batch):
    asking = asked(Denoising(3), batch)
    torch.testing.assert_close(estimate(asking["x"], asking["velocity"], asking["level"]), batch["x"])
    assert by_level(asking["velocity"], asking["velocity"], asking["level"]) == 0


def test_what_is_drawn_is_of_the_range_the_grid_and_the_share_and_depends_on_seed_and_batch(batch):
    many = {k: v.repeat(100, *[1] * (v.ndim - 1)) if torch.is_tensor(v) else v for k, v in batch.items()}
    weights = asked(GuidedInOnePass((1, 3)), many)["guidance"]
    assert 1 <= weights.min() < 1.01
    assert 2.99 < weights.max() <= 3
    assert asked(TwoStepsInOne(steps=4), many)["level"].unique().tolist() == [0.25, 0.5, 0.75, 1.0]
    assert float((asked(Denoising(3, 0.3), many)["label"] == 3).double().mean()) == pytest.approx(0.3, abs=0.03)
    assert (asked(Denoising(3, 0), many)["label"] == many["label"]).all()
    one, same, other = (asked(Denoising(3), batch, seed)["x"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    objective = Denoising(3)
    asking = asked(objective, batch)
    objective(said(Read(tiny().double()), asking), None, asking)
    assert asking["modules"]["denoising"].batches == 1
    assert not torch.equal(one, objective.alter(batch | {"modules": asking["modules"]})["x"])


def test_a_guided_teacher_at_0_is_the_denoiser_of_the_class_bit_for_bit(batch):
    denoiser, zero = tiny().double(), torch.zeros(COUNT, dtype=torch.float64)
    level = torch.full((COUNT,), 0.5, dtype=torch.float64)
    with torch.no_grad():
        plain = denoiser(batch["x"], level, batch["label"], zero)
        guided = Guided(denoiser)(batch["x"], level, batch["label"], zero)
        more = Guided(denoiser)(batch["x"], level, batch["label"], zero + 2)
    assert torch.equal(plain, guided)
    assert not torch.allclose(plain, more)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Denoising(3, 1.0), "denoising: unlabelled=1.0: expected a share of at least 0 and below 1"),
        (lambda: Denoising(3, weight=-1), "objective denoising: weight=-1"),
        (lambda: GuidedInOnePass((4, 0)), r"guidance=\(4, 0\): expected the lowest and the highest weight"),
        (lambda: GuidedInOnePass((2, 2)), r"guidance=\(2, 2\): expected the lowest"),
        (lambda: GuidedInOnePass((-1, 2)), r"guidance=\(-1, 2\): expected the lowest"),
        (lambda: GuidedInOnePass(()), r"guidance=\(\): expected the lowest"),
        (lambda: GuidedInOnePass(4), "guidance=4: expected the lowest"),
        (lambda: TwoStepsInOne(steps=0), "two_steps_in_one: steps=0: expected a whole number of at least 1"),
        (
            lambda: TwoStepsInOne(sampler="ddpm"),
            "sampler='ddpm' is not known; choose one of 'determin",
        ),
    ],
)
def test_settings_out_of_their_range_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_velocity_of_another_shape_and_a_missing_teacher_are_named(batch):
    objective = Denoising(3)
    batch = asked(objective, batch)
    with pytest.raises(InputError, match=r"expected a velocity of shape \(24, 2\), as x has it, found \(24, 3\)"):
        objective(Pass(None, torch.zeros(COUNT, 3)), None, batch)
    with pytest.raises(InputError, match="guided_in_one_pass needs a teacher, found none"):
        GuidedInOnePass()(Pass(None, batch["x"]), None, batch)
