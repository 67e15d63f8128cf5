"""Quantisers: half a step, the same when done twice, each row alone, and bits that are counted as they are packed."""

import math

import numpy as np
import pytest
import torch

import probes
from compress.quantization.quantizers import RANGES, dequantize, packed_bytes, quantize_tensor

SHAPE = (30, 24)
MANY = {
    "normal": lambda: torch.randn(SHAPE),
    "positive": lambda: torch.rand(SHAPE),
    "negative": lambda: -torch.rand(SHAPE),
    "mirrored": lambda: torch.cat([x := torch.randn(30, 12), -x], 1),
    "halves": lambda: torch.randint(-9, 10, SHAPE) / 2.0,
    "many halves": lambda: torch.randint(-260, 261, SHAPE) / 2.0,
    "constant": lambda: torch.randn(30, 1).expand(SHAPE),
    "zero": lambda: torch.zeros(SHAPE),
    "outliers": lambda: torch.randn(SHAPE) * torch.where(torch.rand(SHAPE) < 0.05, 1e30, 1.0),
    "denormal": lambda: torch.randn(SHAPE) * 1e-40,
    "sparse": lambda: torch.randn(SHAPE) * (torch.rand(SHAPE) < 0.2),
    "all sizes": lambda: torch.randn(SHAPE) * torch.exp(5 * torch.randn(30, 1)),
}


def grid(codes, bits):
    """The values that each row can take, in float64."""
    symmetric = codes.codes.dtype == torch.int8
    most = 2 ** (bits - 1) - 1
    steps = torch.arange(-most, most + 1) if symmetric else torch.arange(2**bits)
    return (steps[None].double() - codes.zero[:, None].double()) * codes.scale[:, None].double()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_no_value_moves_by_more_than_half_a_step_and_twice_is_once(bits, symmetric):
    torch.manual_seed(bits)
    farthest = 0.0
    for kind, make in MANY.items():
        for ranges in RANGES:
            how = {"symmetric": symmetric, "ranges": ranges, "percentile": 90}
            weight = make()
            codes = quantize_tensor(weight, bits, **how)
            values = dequantize(codes)
            assert codes.codes.dtype == (torch.int8 if symmetric else torch.uint8)
            known = grid(codes, bits)
            low, high = known[:, :1], known[:, -1:]
            moved = (values.double() - weight.double()).abs() / codes.scale[:, None].double()
            inside = (weight >= low) & (weight <= high)
            assert bool((moved[inside] <= 0.5 + 1e-4).all()), (kind, ranges)
            farthest = max(farthest, moved[inside].max().item())
            # What lies outside goes to the end of the grid, and with the whole range it lies hardly outside.
            ends = torch.where(weight > high, high, low)
            assert torch.equal(values.double()[~inside], ends[~inside]), (kind, ranges)
            assert ranges != "minmax" or moved.max() <= 0.51, kind
            # Every value is one of the grid, exactly, and 0 stays 0.
            assert bool((values[..., None] == known[:, None]).any(-1).all()), (kind, ranges)
            assert bool((values[weight == 0] == 0).all()), (kind, ranges)
            again = quantize_tensor(values, bits, **how)
            assert all(torch.equal(one, two) for one, two in zip(codes, again, strict=True)), (kind, ranges)
            assert torch.equal(dequantize(again), values), (kind, ranges)
    assert farthest > 0.49


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_step_is_that_of_the_formula(bits):
    torch.manual_seed(0)
    weight = torch.randn(SHAPE)
    rows = weight.numpy().astype(np.float64)
    symmetric, affine = (quantize_tensor(weight, bits, symmetric=s) for s in (True, False))
    expected = np.abs(rows).max(1) / (2 ** (bits - 1) - 1)
    np.testing.assert_allclose(symmetric.scale, expected, rtol=2e-5)
    low, high = np.minimum(rows.min(1), 0), np.maximum(rows.max(1), 0)
    expected = (high - low) / (2**bits - 1)
    np.testing.assert_allclose(affine.scale, expected, rtol=3e-5)
    zero = np.round(-low / expected)
    np.testing.assert_array_equal(affine.zero, zero)
    codes = np.clip(np.round(rows / expected[:, None]) + zero[:, None], 0, 2**bits - 1)
    assert (affine.codes.numpy() != codes).mean() < 0.01  # but for ties, by the rounding of the step


def test_by_hand():
    weight = torch.tensor([[-1.0, 0.2, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0], [6.0, 7.0, 3.4, 3.6]])
    codes = quantize_tensor(weight, 4)
    assert codes.codes.tolist() == [[-2, 0, 0, 7], [0, 0, 0, 0], [6, 7, 3, 4]]
    assert codes.scale[2] == 1
    codes = quantize_tensor(weight, 3, symmetric=False)
    assert codes.codes.tolist() == [[0, 2, 2, 7], [0, 0, 0, 0], [6, 7, 3, 4]]
    assert codes.zero.tolist() == [2, 0, 0]  # 1 / (4 / 7) is 1.75
    assert dequantize(codes)[2].tolist() == [6, 7, 3, 4]
    # Both ends lie between two values: both go up, so that all codes are used.
    codes = quantize_tensor(torch.tensor([[-2.5, 4.5]]), 3, symmetric=False)
    assert (codes.codes.tolist(), codes.scale.tolist(), codes.zero.tolist()) == ([[0, 7]], [1.0], [2])


@pytest.mark.parametrize("ranges", RANGES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_group_alone_is_a_matrix_of_its_own(symmetric, ranges):
    torch.manual_seed(0)
    weight = torch.randn(5, 24) * torch.exp(torch.randn(5, 24))
    how = {"symmetric": symmetric, "ranges": ranges, "percentile": 80}
    for group, width in ((6, 6), ("channel", 24), (24, 24)):
        codes = quantize_tensor(weight, 3, group=group, **how)
        alone = [quantize_tensor(part[None], 3, group="tensor", **how) for part in weight.reshape(-1, width)]
        assert torch.equal(codes.codes.flatten(), torch.cat([a.codes.flatten() for a in alone]))
        assert torch.equal(codes.scale, torch.cat([a.scale for a in alone]))
        assert torch.equal(codes.zero, torch.cat([a.zero for a in alone]))
        assert torch.equal(dequantize(codes).flatten(), torch.cat([dequantize(a).flatten() for a in alone]))
    whole = quantize_tensor(weight, 3, group="tensor", **how)
    assert len(whole.scale) == 1
    assert not torch.equal(dequantize(whole), dequantize(codes))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_least_squares_finds_the_share_of_the_range_with_the_least_error(bits, symmetric):
    torch.manual_seed(0)
    weight = torch.randn(20, 64)
    weight[:10, 0] = 20.0
    found = quantize_tensor(weight, bits, symmetric=symmetric, ranges="least_squares")
    plain = quantize_tensor(weight, bits, symmetric=symmetric)
    rows = weight.double().numpy()
    low, high = np.minimum(rows.min(1, keepdims=True), 0), np.maximum(rows.max(1, keepdims=True), 0)
    errors = []
    for share in 1 - np.arange(50) / 50:
        if symmetric:
            most = 2 ** (bits - 1) - 1
            step = share * np.abs(rows).max(1, keepdims=True) / most
            values = np.clip(np.round(rows / step), -most, most) * step
        else:
            step = share * (high - low) / (2**bits - 1)
            zero = np.floor(-share * low / step + 0.5)
            values = (np.clip(np.round(rows / step) + zero, 0, 2**bits - 1) - zero) * step
        errors.append(((values - rows) ** 2).sum(1))

    def error(codes):
        return ((dequantize(codes).double().numpy() - rows) ** 2).sum(1)

    if bits == 2 and symmetric:  # whose best step is found exactly, between those of the shares too
        assert (error(found) <= np.min(errors, 0) * (1 + 1e-6)).all()
    else:
        np.testing.assert_allclose(error(found), np.min(errors, 0), rtol=1e-2)
    np.testing.assert_allclose(error(plain), errors[0], rtol=1e-2)
    assert (error(found) <= error(plain)).all()
    assert (error(found)[10:] < error(plain)[10:]).mean() > 0.5


def test_least_squares_leaves_what_is_even_as_it_is():
    weight = torch.linspace(-1, 1, 255)[None]  # every code has its value
    plain, found = (quantize_tensor(weight, 8, ranges=r) for r in ("minmax", "least_squares"))
    assert torch.equal(plain.codes, found.codes)


def test_a_percentile_clips_the_values_beyond_it():
    torch.manual_seed(0)
    weight = torch.randn(7, 200)
    codes = quantize_tensor(weight, 8, ranges="percentile", percentile=95)
    sizes = np.sort(np.abs(weight.numpy()), 1)
    np.testing.assert_allclose(codes.scale * 127, sizes[:, 189], rtol=2e-5)  # the 190th of 200
    affine = quantize_tensor(weight, 8, symmetric=False, ranges="percentile", percentile=95)
    ordered = np.sort(weight.numpy(), 1)
    np.testing.assert_allclose(affine.scale * 255, ordered[:, 189] - ordered[:, 10], rtol=3e-5)
    for symmetric in (True, False):
        whole = quantize_tensor(weight, 8, symmetric=symmetric, ranges="percentile", percentile=100)
        plain = quantize_tensor(weight, 8, symmetric=symmetric)
        assert all(torch.equal(one, two) for one, two in zip(whole, plain, strict=True))
    # 99.9 per cent of 1000 values leave out one, of 999 none.
    weight = torch.ones(1, 1000)
    weight[0, 3] = 50.0
    assert quantize_tensor(weight, 8, ranges="percentile").scale.item() == pytest.approx(1 / 127, rel=2e-5)
    assert quantize_tensor(weight[:, :999], 8, ranges="percentile").scale.item() == pytest.approx(50 / 127, rel=2e-5)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", ["tensor", "channel", 3])
@pytest.mark.parametrize("bits", range(2, 9))
def test_bytes_are_those_of_packed_bits(bits, group, symmetric):
    weight = torch.randn(5, 9)
    codes = quantize_tensor(weight, bits, group=group, symmetric=symmetric)

    def packed(values):
        lowest = np.unpackbits(values.numpy().reshape(-1, 1).view(np.uint8), axis=1)[:, -bits:]
        return len(np.packbits(lowest))

    expected = packed(codes.codes) + codes.scale.numpy().nbytes + (0 if symmetric else packed(codes.zero))
    assert packed_bytes((5, 9), bits, group=group, symmetric=symmetric) == expected


def test_bytes_by_hand():
    assert packed_bytes((768, 768), 8) == 768 * 768 + 4 * 768
    assert packed_bytes((768, 768), 1) == 768 * 768 // 8 + 4 * 768
    assert packed_bytes((5, 9), 1, group="tensor") == math.ceil(45 / 8) + 4
    assert packed_bytes((768, 768), 4, group=32) == 768 * 768 // 2 + 4 * 768 * 24
    assert packed_bytes((10, 10), 3, group="tensor", symmetric=False) == math.ceil(300 / 8) + 4 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, r"bits=0: expected a whole number of 1 to 8"),
        ({"bits": 1}, r"bits=1 leaves .* give ranges='least_squares' and symmetric=True, found ranges='minmax'"),
        (
            {"bits": 1, "ranges": "least_squares", "symmetric": False},
            r"found .* and symmetric=False",
        ),
        ({"bits": 9}, r"bits=9: expected a whole number of 1 to 8"),
        ({"bits": 4.0}, r"bits=4.0: expected a whole number of 1 to 8"),
        ({"bits": True}, r"bits=True: expected a whole number of 1 to 8"),
        ({"group": "row"}, r"group='row': expected 'tensor', 'channel' or a whole number of inputs of at least 1"),
        ({"group": 0}, r"group=0: expected 'tensor', 'channel' or a whole number"),
        ({"group": 5}, r"query: group=5 does not divide its 12 inputs. Choose a divisor of 12"),
        ({"ranges": "max"}, r"ranges='max' is not known; choose one of 'minmax', 'percentile', 'least_squares'"),
        ({"percentile": 50}, r"percentile=50: expected above 50 and at most 100, in per cent"),
        ({"percentile": 100.1}, r"percentile=100.1: expected above 50 and at most 100"),
        ({"weight": torch.zeros(3)}, r"query: expected a matrix \(unit, input\), found the shape \(3,\)"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    given = {"weight": torch.zeros(3, 12), "bits": 8, "name": "query"} | options
    with pytest.raises(probes.InputError, match=message):
        quantize_tensor(**given)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_by_matrix_and_row(value):
    weight = torch.zeros(3, 12)
    weight[2, 4] = value
    with pytest.raises(probes.InputError, match=rf"query: row 2 holds {value}; 1 of its 36 values are NaN or infinite"):
        quantize_tensor(weight, 8, name="query")


def test_the_bytes_of_what_cannot_be_are_refused():
    with pytest.raises(probes.InputError, match="bits=16"):
        packed_bytes((2, 2), 16)
    with pytest.raises(probes.InputError, match="group=3 does not divide its 4 inputs"):
        packed_bytes((2, 4), 8, group=3)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_affine_per_tensor_is_the_formula_of_self_distilled_quantisation(bits):
    """s = (max - min) / (2^N - 1), z = round(min / s), Q = (clip(round(W / s) - z, 0, 2^N - 1) + z) s."""
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(bits)).double()
    low, high, top = weight.min().item(), weight.max().item(), 2**bits - 1
    s = (high - low) / top
    z = round(low / s)
    expected = (np.clip(np.round(weight.numpy() / s) - z, 0, top) + z) * s
    codes = quantize_tensor(weight, bits, group="tensor", symmetric=False)
    assert len(codes.scale) == 1
    found = dequantize(codes).double().numpy()
    moved = np.abs(found - expected) > 1e-4  # the step has 16 digits: what lies between two values may go either way
    assert moved.mean() < 0.01
    assert np.abs(found - expected)[moved].max(initial=0) < 1.01 * s
