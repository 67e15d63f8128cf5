"""Residual networks: gradients by finite differences, the integral by scipy, frozen ones that stay."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from probes.measures.space.dynamics import Known, ridge
from probes.measures.space.residual import Cascade, Residual, learned, missed


def made(seed, steps=3, features=4, hidden=5, size=0.3):
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    parts = {"read": normal(features, hidden), "write": normal(hidden, features)}
    parts |= {"gate": normal(steps, 1, hidden), "bias": normal(steps, 1, hidden)}
    linear = 0.1 * normal(steps, features + 1, features)
    return Residual(linear, torch.full((steps, 1, 1), size, dtype=torch.float64), parts)


def test_gradients_are_those_of_finite_differences():
    one, older = made(0), made(1)
    known = made(2).linear
    states = torch.randn(4, 6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    names = list(one.parts)

    def loss(*parts):
        now = Residual(one.linear, one.size, dict(zip(names, parts, strict=True)))
        return missed(Cascade(known, [older, now]), states, 3)

    given = [one.parts[name].clone().requires_grad_() for name in names]
    found = torch.autograd.grad(loss(*given), given)
    for k, part in enumerate(given):
        expected = torch.zeros_like(part)
        for at in np.ndindex(*part.shape):
            ends = []
            for sign in (1, -1):
                moved = [p.detach().clone() for p in given]
                moved[k][at] += sign * 1e-6
                ends.append(loss(*moved))
            expected[at] = (ends[0] - ends[1]) / 2e-6
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(found[k], expected, rtol=1e-5, atol=1e-8)


def test_a_step_is_the_integral_of_the_field():
    one, known = made(0), made(2).linear
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    fixed = z @ (known + one.linear)[1, :-1] + (known + one.linear)[1, -1]

    def field(_, x):
        return (fixed + one.on_the_way(1, torch.from_numpy(x)[None]))[0].numpy()

    exact = solve_ivp(field, (0, 1), z[0].numpy(), rtol=1e-10, atol=1e-12).y[:, -1]
    said = Cascade(known, [one]).step(1, z)[0].numpy()
    moved = np.abs(exact - (z + fixed)[0].numpy()).max()
    assert moved > 0.1
    np.testing.assert_allclose(said, exact, atol=0.01 * moved)


def test_steps_side_by_side_are_steps_one_by_one_and_older_ones_count_less():
    one, older, known = made(0), made(1), made(2).linear
    z = torch.randn(4, 6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    cascade = Cascade(known, [older, one])
    first, second = list(cascade.ahead(z, 2))
    for start in range(3):
        torch.testing.assert_close(first[start], cascade.step(start, z[start]))
    torch.testing.assert_close(second[1], cascade.step(2, cascade.step(1, z[1])))
    both = known + one.linear + math.exp(-1) * older.linear
    torch.testing.assert_close(
        Cascade(known, [older, one], network=False).step(0, z[0]), z[0] + z[0] @ both[0, :-1] + both[0, -1]
    )


def test_frozen_ones_stay_and_noise_is_not_learned():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3, 60, 4))
    known = Known(np.zeros((3, 4)), np.ones(3), np.zeros((2, 5, 4)))
    older = made(1, steps=2)
    older = Residual(older.linear.float(), older.size.float(), {k: p.float() for k, p in older.parts.items()})
    before = {k: p.clone() for k, p in older.parts.items()}
    how = {"look_ahead": 2, "steps": 20, "seed": 0}
    choosing = np.arange(60) % 5 == 0
    own = learned(known, [older], z, choosing, **how)
    for name, part in older.parts.items():
        assert torch.equal(part, before[name])
        assert not part.requires_grad
    alone = learned(known, [], z, choosing, **how)
    assert float(alone.parts["write"].abs().max()) == 0  # nothing of it predicts other rows
    np.testing.assert_allclose(alone.linear[0], ridge(z[0], z[1] - z[0], choosing), atol=1e-6)
    assert own.parts["write"].shape == (64, 4)


@pytest.mark.parametrize("where", [0, 2])
def test_states_that_are_not_finite_leave_no_residual(where):
    z = np.random.default_rng(0).normal(size=(3, 40, 4))
    z[where, 3] = np.nan
    known = Known(np.zeros((3, 4)), np.ones(3), np.zeros((2, 5, 4)))
    own = learned(known, [], z, np.arange(40) % 5 == 0, look_ahead=1, steps=5, seed=0)
    assert not own.parts
    assert bool(own.linear.isnan().any())
