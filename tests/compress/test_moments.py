"""Second moments against sums by hand; the factor against the inverse that the papers write; what an error costs."""

import numpy as np
import pytest
import torch

from compress.moments import Moments, check_damping, factor, squared_error
from probes.errors import InputError


def fed(tokens=50, inputs=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(inputs, inputs, generator=generator)
    return torch.randn(tokens, inputs, generator=generator) @ mixed


def test_moments_are_sums_over_tokens_however_they_come():
    x = fed()
    seen = Moments.none(6)
    for part in (x[:7], x[7:8], x[8:]):
        seen.add(Moments.of(part))
    exact = x.double().numpy()
    assert seen.tokens == 50
    assert np.allclose(seen.products, exact.T @ exact, rtol=1e-5)
    assert np.allclose(seen.sizes, np.abs(exact).sum(0), rtol=1e-6)


def test_before_anything_is_seen_inputs_count_the_same():
    assert torch.equal(Moments.none(3).products, torch.eye(3).double())
    assert Moments.none(3).tokens == 0


def test_the_factor_is_the_inverse_of_that_of_the_inverse():
    products = Moments.of(fed()).products
    share, weight = factor(products, 0.01, "w")
    damped = products + 0.01 * products.diagonal().mean() * torch.eye(6)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)  # as GPTQ and SparseGPT have it
    assert torch.allclose(weight.double(), 1 / upper.diagonal() ** 2, rtol=1e-5)
    root = share.T.double() * weight.double().sqrt()
    assert torch.allclose(root @ upper, torch.eye(6).double(), atol=1e-4)
    assert torch.allclose(root @ root.T, damped, rtol=1e-4)


def test_a_dead_input_and_no_input_at_all_have_a_factor():
    x = fed()
    x[:, 2] = 0
    share, weight = factor(Moments.of(x).products, 0.0, "w")
    assert (weight[2], share[2, :2].abs().max()) == (1, 0)
    share, weight = factor(torch.zeros(4, 4).double(), 0.01, "w")
    assert torch.equal(share, torch.eye(4))
    assert torch.equal(weight, torch.ones(4))


def test_fewer_tokens_than_inputs_need_damping():
    products = Moments.of(torch.ones(2, 6)).products
    factor(products, 0.01, "w")
    with pytest.raises(InputError, match=r"^layer: damping=0: the second moments of its 6 inputs have no inverse"):
        factor(products, 0, "layer")


def test_a_change_costs_the_squared_change_of_the_output():
    x, change = fed(), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    exact = ((x.double() @ change.double().T) ** 2).sum(0)
    assert torch.allclose(squared_error(change, Moments.of(x).products).double(), exact, rtol=1e-4)
    assert not squared_error(torch.zeros(3, 6), Moments.of(x).products).any()


def test_inputs_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match=r"^layer: its inputs are not finite"):
        Moments.of(torch.tensor([[1.0, torch.nan]])).check("layer")


@pytest.mark.parametrize("damping", [-0.1, float("nan"), float("inf"), True, "much"])
def test_damping_that_cannot_be_is_refused(damping):
    with pytest.raises(InputError, match=r"^damping=.*: expected a share of the mean square of inputs"):
        check_damping(damping)
