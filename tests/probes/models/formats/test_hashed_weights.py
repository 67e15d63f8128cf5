"""Maps of hashed weights: every place by the hash as it is written down, what is learned, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

import probes
from probes.models.formats.hashed_weights import HashedLinear, apply_hashing, can_be_hashed, hashed_of

NAME = "encoder.layer.1.output.dense"


def filled(buckets=7, seed=3, **how):
    layer = HashedLinear(6, 5, buckets=buckets, seed=seed, **how)
    with torch.no_grad():
        layer.values.copy_(torch.arange(1.0, buckets + 1)[:, None])
    return layer


def test_each_weight_is_the_number_of_its_bucket_with_its_sign():
    layer, stream = filled(), np.random.Philox(key=3)
    for i in range(5):
        for j in range(6):
            word = int(stream.random_raw())
            expected = (1 + (word >> 1) % 7) * (-1 if word & 1 else 1)
            assert layer.weight[i, j] == expected
    x = torch.randn(4, 6)
    with torch.no_grad():
        layer.bias.copy_(torch.arange(5.0))
    torch.testing.assert_close(layer(x), x @ layer.weight.T + torch.arange(5.0))
    assert filled(bias=False).bias is None


def test_the_hash_is_that_of_files_written_before():
    numbers, signs = HashedLinear(4, 2, buckets=100, seed=1).places()
    assert numbers.tolist() == [[43, 27, 69, 33], [22, 76, 99, 82]]
    assert signs.tolist() == [[-1, -1, 1, 1], [1, -1, 1, -1]]


def test_buckets_are_filled_evenly_and_another_seed_deals_otherwise():
    numbers, signs = HashedLinear(200, 100, buckets=50, seed=0).places()
    counts = numbers.flatten().bincount(minlength=50).double()
    assert float(((counts - 400) ** 2 / 400).sum()) < 86  # chi-squared of 49, one in a thousand
    assert abs(float(signs.double().mean())) < 0.025
    other, _ = HashedLinear(200, 100, buckets=50, seed=1).places()
    assert float((numbers == other).double().mean()) == pytest.approx(1 / 50, abs=0.005)


def test_the_gradient_of_a_number_is_the_sum_of_those_of_its_places():
    layer, x = filled().double(), torch.randn(3, 6).double()
    layer(x).square().sum().backward()
    whole = layer.weight.detach().requires_grad_()
    torch.nn.functional.linear(x, whole, layer.bias.detach()).square().sum().backward()
    numbers, signs = layer.places()
    by_hand = torch.zeros(7, dtype=torch.float64)
    for i in range(5):
        for j in range(6):
            by_hand[numbers[i, j]] += signs[i, j] * whole.grad[i, j]
    torch.testing.assert_close(layer.values.grad[:, 0], by_hand)


def test_only_the_numbers_are_stored_and_a_copy_computes_the_same():
    layer = filled()
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {"values": (7, 1), "bias": (5,)}
    x = torch.randn(2, 6)
    given = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), given)
    assert torch.equal(layer.to(torch.bfloat16)(x.bfloat16()).isfinite(), torch.ones(2, 5, dtype=torch.bool))


def test_it_is_made_where_the_configuration_says_so(tiny_models):
    model = tiny_models("BertModel")
    assert hashed_of(model) == {}
    model.config.hashed_weights = {NAME: {"buckets": 9, "seed": 4}}
    before = torch.random.get_rng_state()
    apply_hashing(model)
    apply_hashing(model)  # what is there stays
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hashed_of(model) == model.config.hashed_weights
    assert (can_be_hashed(torch.nn.Linear(2, 2)), can_be_hashed(Conv1D(2, 2))) == (True, True)
    assert not can_be_hashed(model.get_submodule(NAME))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"encoder.layer.9": {"buckets": 1, "seed": 0}},
            "the module 'encoder.layer.9', which BertModel does not",
        ),
        ({"encoder.layer.0": {"buckets": 1, "seed": 0}}, "expected a plain linear map, found BertLayer"),
        ({NAME: {"buckets": 10**6, "seed": 0}}, "12 x 20: expected at most 240 buckets, found 1000000"),
    ],
)
def test_what_does_not_belong_together_is_refused(tiny_models, said, message):
    model = tiny_models("BertModel")
    model.config.hashed_weights = said
    with pytest.raises(probes.InputError, match=message):
        apply_hashing(model)
