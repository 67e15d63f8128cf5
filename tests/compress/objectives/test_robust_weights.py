"""How much texts count by their losses: against the optimum that a general solver finds, and in the limits."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from compress.objectives.robust_weights import (
    Groups,
    chi_square_weights,
    exponential_weights,
    kl_weights,
    tail_weights,
)
from probes.errors import InputError

LOSSES = torch.tensor([0.3, 2.0, 0.1, 1.2, 0.7, 1.9], dtype=torch.float64)


def solved(losses, spent=None, bound=0.0, most=np.inf):
    """The weights of the largest mean of r * loss, by a general solver: r >= 0, mean 1, and within a bound."""
    n = len(losses)
    limits = [{"type": "eq", "fun": lambda r: r.mean() - 1}]
    if spent is not None:
        limits.append({"type": "ineq", "fun": lambda r: bound - spent(r)})
    options = {"constraints": limits, "bounds": [(1e-12, min(most, n))] * n, "method": "SLSQP"}
    return minimize(lambda r: -(r * losses).mean(), np.ones(n), options={"maxiter": 500, "ftol": 1e-14}, **options).x


@pytest.mark.parametrize("bound", [0.05, 0.3])
def test_weights_within_a_bound_are_the_optimum(bound):
    found = kl_weights(LOSSES, bound).numpy()
    np.testing.assert_allclose(found, solved(LOSSES.numpy(), lambda r: (r * np.log(r)).mean(), bound), atol=2e-4)
    assert (found * np.log(found)).mean() == pytest.approx(bound, rel=1e-6)
    found = chi_square_weights(LOSSES, bound).numpy()
    np.testing.assert_allclose(found, solved(LOSSES.numpy(), lambda r: ((r - 1) ** 2).mean() / 2, bound), atol=2e-4)
    assert ((found - 1) ** 2).mean() / 2 == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_tail_is_the_optimum(share):
    found = tail_weights(LOSSES, share).numpy()
    np.testing.assert_allclose(found, solved(LOSSES.numpy(), most=1 / share), atol=1e-4)


def test_exponential_weights_are_their_formula():
    q = np.exp(LOSSES.numpy() / 0.4)
    np.testing.assert_allclose(exponential_weights(LOSSES, 0.4), 6 * q / q.sum(), rtol=1e-12)


@pytest.mark.parametrize("losses", [LOSSES, LOSSES.float(), torch.zeros(3), torch.tensor([5.0]), 1e4 * LOSSES])
def test_weights_are_one_on_average_and_in_the_limit_all_one(losses):
    for weights in (
        lambda x: exponential_weights(x, 0.1),
        lambda x: kl_weights(x, 0.2),
        lambda x: chi_square_weights(x, 0.7),
        lambda x: tail_weights(x, 0.3),
    ):
        found = weights(losses)
        assert found.dtype == losses.dtype
        assert float(found.mean()) == pytest.approx(1, rel=1e-6)
        assert bool((found >= 0).all())
    for plain in (
        exponential_weights(losses, 1e12),
        kl_weights(losses, 0.0),
        chi_square_weights(losses, 0.0),
        tail_weights(losses, 1.0),
    ):
        np.testing.assert_allclose(plain, 1, atol=1e-5)


def test_a_bound_that_is_too_wide_to_matter_gives_all_to_the_worst():
    two = torch.tensor([1.0, 3.0, 3.0, 2.0], dtype=torch.float64)
    for found in (kl_weights(two, 99.0), chi_square_weights(two, 99.0)):
        np.testing.assert_allclose(found, [0, 2, 2, 0], atol=1e-5)


def test_groups_count_by_the_closed_form():
    """After t batches q_g is proportional to exp(rate * sum of its mean losses), 0 where a batch lacks it."""
    groups = ["a", "b", "c", "a", "b", "c", "a"]
    weights = Groups(0, None, groups, rate=0.3, name="robust")
    rng, total = np.random.default_rng(0), np.zeros(3)
    for rows in ([0, 1, 3, 4], [2, 0, 5], [6, 3, 1, 2, 5]):
        losses, of = rng.uniform(0, 2, len(rows)), np.array(["abc".index(groups[i]) for i in rows])
        there = np.unique(of)
        total[there] += [losses[of == g].mean() for g in there]
        q = np.exp(0.3 * total) / np.exp(0.3 * total).sum()
        r, own = weights.weigh(torch.tensor(losses), {"index": torch.tensor(rows)}, None)
        assert own is None
        np.testing.assert_allclose(weights.q, q, rtol=1e-5)
        np.testing.assert_allclose(
            (r.numpy() * losses).mean(), sum(q[g] * losses[of == g].mean() for g in there) / q[there].sum()
        )
        assert float(r.mean()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", "a"], "all 2 texts are of the group 'a': expected at least two groups"),
        (["a", "b", "b"], "the group 'a' has one text, whose loss is no mean"),
    ],
)
def test_groups_that_say_nothing_are_refused(groups, message):
    with pytest.raises(InputError, match=message):
        Groups(0, None, groups, 0.1, "robust")
