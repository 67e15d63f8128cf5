"""Quantisers: a matrix as whole numbers of a few bits, with a step (and zero point) a row."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from compress.matrices import check_finite
from compress.quantization.scaled_signs import binary_step, check_signs, signs_of, ternary_step
from probes.errors import InputError, check_choice
from probes.models.coded_bytes import grids_of, integer_bytes
from probes.models.formats.quantized_inputs import BITS, affine_grid, exact_step, nearest_step

RANGES = ("minmax", "percentile", "least_squares")
_SHRINK = [1 - k / 50 for k in range(50)]  # the ranges that least squares chooses from, as shares of the whole one


class Codes(NamedTuple):
    """A matrix as whole numbers.

    Attributes:
        codes: (unit, input), int8 where symmetric, uint8 where affine.
        scale: the step, one for each stretch of len(codes) * width / len(scale) numbers that follow
            one another.
        zero: the code of 0, in the shape of `scale` and the type of `codes`; 0 where symmetric.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor


def quantize_tensor(
    weight: torch.Tensor,
    bits: int,
    *,
    group: str | int = "channel",
    symmetric: bool = True,
    ranges: str = "minmax",
    percentile: float = 99.9,
    name: str = "the matrix",
) -> Codes:
    """Round a matrix to grids of a few bits.

    Symmetric codes are -(2^(bits-1) - 1) to 2^(bits-1) - 1, and the step is the largest size over
    the largest code. Affine codes are 0 to 2^bits - 1, the step is the range, made to include 0,
    over the largest code, and the zero point a whole number, so that 0 stays 0 in both. Of 1 bit
    codes are -1 and 1: the sign, that of 0 too.

    Args:
        weight: (unit, input), computed with in float32.
        bits: 1 to 8; 1 (binary) by least squares alone, 2 and symmetric is ternary.
        group: what has one grid: the "tensor", each "channel" (output unit), or so many inputs of a
            unit.
        symmetric: whether the grid is the same on both sides of 0.
        ranges: what the grid spans: "minmax", all values; "percentile", with the ends clipped;
            "least_squares", the share of the whole range (1.00, 0.98, ..., 0.02) whose squared
            error is least, and of -1, 0 and 1 and of 1 bit the step whose is, exactly
            (`compress.quantization.scaled_signs`).
        percentile: above 50 and at most 100: the range ends at the value, of those of a grid, that
            this share in per cent do not exceed (nearest rank): of sizes where symmetric, on each
            side where affine. So of fewer than 1000 values 99.9 clips none.
        name: what the matrix is called in messages.

    Returns:
        Codes, steps and zero points.

    Raises:
        InputError: bits, group, ranges or percentile are out of range; the group does not divide
            the inputs; a value is NaN or infinite.

    Notes:
        Inside the range of the grid no value moves by more than half a step. The outermost values
        of an affine range may lie half a step (at most 0.51) beyond its grid, since the zero point
        is rounded. Steps are rounded to 16 significant bits, a choice made here: every value of the
        grid is then exact in float32, and what is quantised already is not changed by being
        quantised again in the same way, bit for bit, whatever the ranges. A row of zeros gives
        zeros.

    Example:
        >>> codes = quantize_tensor(torch.tensor([[-1.0, 0.2, 0.0, 3.0]]), 3)
        >>> codes.codes, codes.scale, dequantize(codes)
        (tensor([[-1,  0,  0,  3]], dtype=torch.int8), tensor([1.]), tensor([[-1.,  0.,  0.,  3.]]))

    See also:
        `compress.quantization.quantizers.dequantize`, `quantize`.
    """
    check_quantizer(bits, group, ranges, percentile, symmetric)
    weight = weight.detach().float()
    check_matrix(weight, group, name)
    units, width = weight.shape
    rows = weight.reshape(grids_of(units, width, group), -1)
    scale, zero = grid_of(rows, bits, symmetric=symmetric, ranges=ranges, percentile=percentile)
    codes = steps_of(rows, scale, zero, bits, symmetric) + zero
    kind = torch.int8 if symmetric else torch.uint8
    return Codes(codes.reshape(weight.shape).to(kind), scale.flatten(), zero.flatten().to(kind))


def grid_of(
    rows: torch.Tensor, bits: int, *, symmetric: bool = True, ranges: str = "minmax", percentile: float = 99.9
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the grid of each row of float32 numbers: its step and the code of 0, (row, 1) each.

    Args:
        rows: (row, number).
        bits, symmetric, ranges, percentile: as in `quantize_tensor`.

    Example:
        >>> grid_of(torch.tensor([[-1.0, 0.2, 3.0]]), 3)
        (tensor([[1.]]), tensor([[0.]]))
    """
    if symmetric and ranges == "least_squares" and bits <= 2:
        step = (binary_step if bits == 1 else ternary_step)(rows)
        return step, torch.zeros_like(step)
    low, high = _range(rows, symmetric, ranges, percentile)
    scale, zero = _grid(low, high, bits, symmetric)
    if ranges != "least_squares":
        return scale, zero
    size = torch.maximum(-low, high).clamp_min(torch.finfo(torch.float32).tiny)
    least = torch.full_like(scale, torch.inf)
    best = scale, zero
    for share in _SHRINK:
        scale, zero = _grid(share * low, share * high, bits, symmetric)
        # In units of the row, so that no square overflows or vanishes.
        error = ((steps_of(rows, scale, zero, bits, symmetric) * scale - rows) / size).square().sum(1, keepdim=True)
        less = error < least  # of equal ones the widest
        least = torch.where(less, error, least)
        best = torch.where(less, scale, best[0]), torch.where(less, zero, best[1])
    return best


def steps_of(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, symmetric: bool) -> torch.Tensor:
    """Return how many steps from 0 each value comes to lie on its grid, `scale` and `zero` of a
    shape that fits.

    Example:
        >>> steps_of(torch.tensor([-0.6, 9.0]), torch.tensor(0.5), torch.tensor(0.0), 3, True)
        tensor([-1.,  3.])
    """
    if bits == 1:
        return signs_of(values)
    if not symmetric:
        return nearest_step(values, scale, zero, bits)
    most = 2 ** (bits - 1) - 1
    return (values / scale).round().clamp(-most, most)


def dequantize(codes: Codes) -> torch.Tensor:
    """Return the matrix (unit, input) that codes stand for, in float32 and exact.

    Example:
        >>> import torch
        >>> codes = quantize_tensor(torch.tensor([[-1.0, 0.5, 1.0]]), bits=2)
        >>> dequantize(codes).tolist()
        [[-1.0, 0.0, 1.0]]

    See also:
        `compress.quantization.quantizers.quantize_tensor`.
    """
    rows = codes.codes.float().reshape(len(codes.scale), -1)
    return ((rows - codes.zero.float()[:, None]) * codes.scale[:, None]).reshape(codes.codes.shape)


def packed_bytes(shape: tuple[int, int], bits: int, *, group: str | int = "channel", symmetric: bool = True) -> int:
    """Return how many bytes a quantised matrix takes where its codes are packed bit by bit.

    Args:
        shape: (unit, input).
        bits, group, symmetric: as in `quantize_tensor`.

    Returns:
        The codes at `bits` bits, the steps in float32, and where affine the zero points at `bits`
        bits.

    Raises:
        InputError: as `quantize_tensor`.

    Example:
        >>> packed_bytes((2, 64), 4, group=32)  # 128 codes of half a byte, 4 steps of 4 bytes
        80

    See also:
        `quantize`, `allocate_bits`.
    """
    check_quantizer(bits, group, "least_squares", symmetric=symmetric)  # bytes do not depend on ranges
    check_group(shape[1], group, "the matrix")
    return integer_bytes(shape, bits, group, symmetric=symmetric)


def check_quantizer(
    bits: int, group: str | int, ranges: str = "minmax", percentile: float = 99.9, symmetric: bool = True
) -> None:
    """Raise `InputError` where a setting of `quantize_tensor` cannot be, whatever the matrix."""
    check_bits("bits", bits, least=1)
    if not (group in ("tensor", "channel") or (type(group) is int and group > 0)):
        raise InputError(f"group={group!r}: expected 'tensor', 'channel' or a whole number of inputs of at least 1")
    check_choice("ranges", ranges, RANGES)
    if not 50 < percentile <= 100:
        raise InputError(f"percentile={percentile}: expected above 50 and at most 100, in per cent")
    check_signs(bits, ranges, symmetric)


def check_bits(what: str, bits: int, least: int = BITS[0]) -> None:
    """Raise `InputError` where a number of bits is not a whole number of `least` to 8."""
    if type(bits) is not int or not least <= bits <= BITS[-1]:
        raise InputError(f"{what}={bits!r}: expected a whole number of {least} to {BITS[-1]}")


def check_group(width: int, group: str | int, name: str) -> None:
    """Raise `InputError` where groups of inputs do not divide the width of a matrix."""
    if isinstance(group, int) and width % group:
        raise InputError(f"{name}: group={group} does not divide its {width} inputs. Choose a divisor of {width}")


def check_matrix(weight: torch.Tensor, group: str | int, name: str) -> None:
    """Raise `InputError` where a matrix (unit, input) cannot be quantised, and say where."""
    if weight.ndim != 2:
        raise InputError(f"{name}: expected a matrix (unit, input), found the shape {tuple(weight.shape)}")
    check_group(weight.shape[1], group, name)
    check_finite(weight, name)


def _range(rows: torch.Tensor, symmetric: bool, ranges: str, percentile: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The ends of what each row's grid spans, (row, 1)."""

    def end(values: torch.Tensor) -> torch.Tensor:
        if ranges != "percentile":
            return values.amax(1, keepdim=True)
        # By rank and not in between: rounding keeps the order, so that it is found at the same place again.
        rank = math.ceil(round(percentile * values.shape[1] / 100, 6))
        return values.kthvalue(rank, dim=1, keepdim=True).values

    if symmetric:
        size = end(rows.abs())
        return -size, size
    return -end(-rows).clamp_min(0), end(rows).clamp_min(0)


def _grid(low: torch.Tensor, high: torch.Tensor, bits: int, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if not symmetric:
        return affine_grid(low, high, bits)
    return exact_step(high / torch.full_like(high, 2 ** (bits - 1) - 1)), torch.zeros_like(high)
