"""GPTQ: the roundings of the published form, the best by exhaustion, at most the error of rounding to nearest."""

import itertools

import pytest
import torch

from compress.moments import Moments, squared_error
from compress.quantization.gptq import gptq
from compress.quantization.quantizers import dequantize, quantize_tensor
from probes.errors import InputError

HOW = [
    {},
    {"group": 10},
    {"group": 10, "act_order": True},
    {"group": 10, "symmetric": False, "ranges": "least_squares"},
    {"group": "tensor"},
    {"symmetric": False, "act_order": True},
]


def problem(inputs, units, tokens=200, mixing=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.eye(inputs) + mixing * torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    x = torch.randn(tokens, inputs, generator=generator) @ mixed
    return torch.randn(units, inputs, generator=generator), Moments.of(x)


def cost(codes, weight, moments):
    return squared_error(dequantize(codes) - weight, moments.products)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_rounds_as_the_published_form_does(bits):
    weight, moments = problem(160, 12)  # more inputs than a stretch
    codes = gptq(weight, bits, moments)
    products = moments.products.clone()
    products.diagonal().add_(0.01 * products.diagonal().mean())
    upper = torch.linalg.cholesky(torch.linalg.inv(products), upper=True)
    scale = quantize_tensor(weight, bits).scale.double()
    left, rounded, most = weight.double(), torch.zeros(12, 160).double(), 2 ** (bits - 1) - 1
    for k in range(160):
        rounded[:, k] = (left[:, k] / scale).round().clamp(-most, most) * scale
        left = left - ((left[:, k] - rounded[:, k]) / upper[k, k])[:, None] * upper[k]
    same = (dequantize(codes).double() == rounded).all(1)
    exact = squared_error((rounded - weight).float(), moments.products)
    taken = cost(codes, weight, moments)
    assert same.float().mean() > 0.8  # the others are rounded to nearest, which costs them less, or tie within float32
    assert bool((taken <= exact * 1.001).all())


@pytest.mark.parametrize("how", HOW, ids=str)
def test_no_unit_costs_more_than_rounded_to_nearest(how):
    weight, moments = problem(40, 30)
    nearest = quantize_tensor(weight, 3, **{k: v for k, v in how.items() if k != "act_order"})
    found = gptq(weight, 3, moments, **how)
    ours, theirs = cost(found, weight, moments), cost(nearest, weight, moments)
    assert bool((ours <= theirs).all())
    assert ours.sum() < 0.8 * theirs.sum()
    assert found.codes.dtype == nearest.codes.dtype
    assert (found.scale.shape, found.zero.shape) == (nearest.scale.shape, nearest.zero.shape)
    least, most = (0, 7) if how.get("symmetric") is False else (-3, 3)
    assert least <= int(found.codes.min()) < int(found.codes.max()) <= most


@pytest.mark.parametrize("seed", range(6))
def test_it_is_within_five_per_cent_of_the_best_of_a_small_problem(seed):
    weight, moments = problem(4, 40, mixing=0.5, seed=seed)
    scale = quantize_tensor(weight, 2).scale
    every = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=4)))
    best = sum(squared_error(every * s - w, moments.products).min() for s, w in zip(scale, weight, strict=True))
    nearest = cost(quantize_tensor(weight, 2), weight, moments).sum()
    assert cost(gptq(weight, 2, moments, act_order=True), weight, moments).sum() <= 1.05 * best
    assert nearest > best  # by 2 to 40 per cent


def test_inputs_that_know_nothing_of_each_other_are_rounded_to_nearest():
    weight, _ = problem(20, 7)
    for one, other in zip(gptq(weight, 3, Moments.none(20), group=5), quantize_tensor(weight, 3, group=5), strict=True):
        assert torch.equal(one, other)


def test_zeros_stay_zero_and_a_row_of_zeros_too():
    weight, moments = problem(40, 6)
    weight[:, ::3] = 0
    weight[2] = 0
    for symmetric in (True, False):
        found = dequantize(gptq(weight, 4, moments, symmetric=symmetric))
        assert not found[weight == 0].any()
    assert found[0].any()


def test_order_of_stretches_does_not_show_in_the_grid():
    weight, moments = problem(40, 6)
    found = dequantize(gptq(weight, 3, moments, group=20, act_order=True))
    nearest = quantize_tensor(weight, 3, group=20)
    steps = found.reshape(6, 2, 20) / nearest.scale.reshape(6, 2, 1)
    assert torch.equal(steps, steps.round())


def test_what_cannot_be_is_refused():
    weight, moments = problem(40, 6)
    with pytest.raises(InputError, match=r"^layer: group=7 does not divide its 40 inputs"):
        gptq(weight, 3, moments, group=7, name="layer")
    with pytest.raises(InputError, match=r"^bits=1 leaves of a weight its sign"):
        gptq(weight, 1, moments)
    weight[3, 5] = torch.nan
    with pytest.raises(InputError, match=r"^layer: row 3 holds nan"):
        gptq(weight, 3, moments, name="layer")


def test_of_one_bit_every_weight_is_a_sign_and_those_after_make_good_for_it():
    weight, moments = problem(40, 30)
    weight[:, 3] = 0.0  # of 1 bit there is no 0
    how = {"ranges": "least_squares"}
    nearest, found = quantize_tensor(weight, 1, **how), gptq(weight, 1, moments, **how)
    assert found.codes.unique().tolist() == [-1, 1]
    assert cost(found, weight, moments).sum() < 0.8 * cost(nearest, weight, moments).sum()
