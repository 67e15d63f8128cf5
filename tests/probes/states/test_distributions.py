"""Distributions over a vocabulary: against float64, of logits that are not finite, and of ties."""

import numpy as np
import torch

from probes.states.distributions import Shares, compared, likeliest


def test_what_is_said_is_that_of_float64_near_and_far():
    torch.manual_seed(0)
    one = 5 * torch.randn(40, 3000)
    targets = torch.randint(3000, (40,))
    for far in (1e-4, 1e-2, 1.0, 10.0):
        two = one + far * torch.randn(40, 3000)
        logs = [torch.log_softmax(x.double(), -1) for x in (one, two)]
        found = compared([one, two], targets)
        kl = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
        np.testing.assert_allclose(found["kl"], kl, rtol=1e-6, atol=5e-8)
        own = [-x.gather(1, targets[:, None])[:, 0] for x in logs]
        np.testing.assert_allclose(found["nats"], torch.stack(own), rtol=1e-6, atol=1e-7)
        assert torch.equal(found["same"], one.argmax(-1) == two.argmax(-1))


def test_the_first_of_several_highest_is_the_likeliest():
    logits = torch.tensor([[1.0, 3, 3, 0], [0, float("nan"), 9, 9], [-torch.inf, -torch.inf, -torch.inf, 0]])
    assert torch.equal(likeliest(logits), logits.argmax(-1))
    assert likeliest(logits)[0] == 1


def test_a_constant_added_to_the_logits_changes_nothing():
    torch.manual_seed(0)
    one, two = (Shares.of(torch.randn(9, 50)) for _ in range(2))
    np.testing.assert_allclose(Shares.of(one.logits + 100).to(two), one.to(two), atol=1e-5)
    assert (one.to(Shares.of(one.logits.clone())) == 0).all()


def test_divergence_is_infinite_where_only_the_second_gives_no_probability():
    inf = float("inf")
    one, two = torch.tensor([[0.0, 1.0, -inf], [0.0, 1.0, 2.0]]), torch.tensor([[0.0, 1.0, -inf], [0.0, 1.0, -inf]])
    found = compared([one, two], torch.tensor([0, 1]))
    assert found["kl"][0] == 0
    assert found["kl"][1] == inf
    assert found["same"].tolist() == [True, False]
    assert torch.isnan(compared([one * float("nan"), two], torch.tensor([0, 1]))["kl"]).all()
