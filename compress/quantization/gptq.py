"""GPTQ: each weight rounded so that those after it make good for what is lost, on what it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compress.blocks import Change
from compress.moments import Moments, factor, squared_error
from compress.quantization.quantizers import Codes, check_matrix, dequantize, grid_of, quantize_tensor, steps_of
from compress.quantization.weights import QuantizedMatrices

_COLUMNS = 128  # of a stretch, whose errors are carried on to the inputs after it together


def gptq(
    weight: torch.Tensor,
    bits: int,
    moments: Moments,
    *,
    group: str | int = "channel",
    symmetric: bool = True,
    ranges: str = "minmax",
    percentile: float = 99.9,
    act_order: bool = False,
    damping: float = 0.01,
    name: str = "the matrix",
) -> Codes:
    """Round a matrix one input after the other, so that the sum of squared changes of its output
    on what it is fed is low.

    Args:
        weight: (unit, input), computed with in float32.
        bits, group, symmetric, ranges, percentile, name: as in `quantize_tensor`. The grid of a
            group is that of its weights as they are when its turn comes, errors before it made good;
            by `act_order`, or for the whole "tensor", that of the weights as they were.
        moments: of what the matrix is fed.
        act_order: inputs of the largest mean square first.
        damping: share of the mean square of inputs that is added to that of each.

    Returns:
        Codes as those of `quantize_tensor`. Of each unit the error on what was seen is at most that
        of rounding to nearest, which is taken where it is less. Weights that are zero stay zero, but
        of 1 bit.

    Raises:
        InputError: as `quantize_tensor`; the moments have no inverse.

    Notes:
        Frantar, Ashkboos, Hoefler, Alistarh 2022, arXiv 2210.17323. Computed by the Cholesky factor
        of the damped second moments, and not of their inverse (see `compress.moments.factor`): the
        same roundings for about half the work.

    Example:
        >>> x = torch.randn(64, 8) @ torch.randn(8, 8)
        >>> weight, moments = torch.randn(4, 8), Moments.of(x)
        >>> errors = [squared_error(dequantize(codes) - weight, moments.products).sum()
        ...     for codes in (gptq(weight, 3, moments), quantize_tensor(weight, 3))]
        >>> bool(errors[0] <= errors[1])
        True

    See also:
        `quantize`.
    """
    grid: dict[str, Any] = {"symmetric": symmetric, "ranges": ranges, "percentile": percentile}
    nearest = quantize_tensor(weight, bits, group=group, name=name, **grid)
    weight = weight.detach().float()
    check_matrix(weight, group, name)
    units, width = weight.shape
    products = moments.products
    order = torch.arange(width, device=weight.device)
    if act_order:
        order = products.diagonal().argsort(descending=True, stable=True)
    share, _ = factor(products[order][:, order] if act_order else products, damping, name)

    fixed = act_order or group == "tensor"
    size = group if isinstance(group, int) else width
    # By input and group, so that what belongs to one input lies together.
    scale, zero = (v.reshape(-1, 1 if group == "tensor" else width // size).T for v in nearest[1:])
    scale, zero = (v.expand(-1, units).float().contiguous() for v in (scale, zero))
    left = weight.T[order].contiguous()
    gone = left == 0
    steps, error = torch.empty_like(left), torch.zeros_like(left)
    stretch = size if isinstance(group, int) and not fixed else _COLUMNS
    of_group = order // size
    for begin in range(0, width, stretch):
        end = min(begin + stretch, width)
        carried = share[begin:end, :begin] @ error[:begin]
        if not fixed and begin % size == 0:
            among = share[begin : begin + size, begin : begin + size]
            ahead = carried if end - begin == size else share[begin : begin + size, :begin] @ error[:begin]
            solved = torch.linalg.solve_triangular(among, ahead, upper=False, unitriangular=True)
            new = grid_of((left[begin : begin + size] + solved).T, bits, **grid)
            scale[begin // size], zero[begin // size] = (v.flatten() for v in new)
        for k, which in zip(range(begin, end), of_group[begin:end].tolist(), strict=True):
            wanted = torch.addmv(left[k] + carried[k - begin], error[begin:k].T, share[k, begin:k])
            steps[k] = steps_of(wanted, scale[which], zero[which], bits, symmetric)
            if bits > 1:  # of 1 bit there is no 0
                steps[k].masked_fill_(gone[k], 0)
            torch.sub(left[k], steps[k] * scale[which], out=error[k])
    steps[order] = steps.clone()
    codes = steps.T + zero.T.repeat_interleave(size, 1)
    found = Codes(codes.to(nearest.codes.dtype), scale.T.flatten(), zero.T.flatten().to(nearest.zero.dtype))
    if group == "tensor":
        found = nearest._replace(codes=found.codes)
    return _better(weight, found, nearest, products, group)


def _better(weight: torch.Tensor, one: Codes, other: Codes, products: torch.Tensor, group: str | int) -> Codes:
    """Of each unit those codes that cost less; of the whole "tensor" both have one grid."""
    costs = [squared_error(dequantize(codes) - weight, products) for codes in (one, other)]
    first = (costs[0] <= costs[1])[:, None]
    codes = torch.where(first, one.codes, other.codes)
    if group == "tensor":
        return other._replace(codes=codes)
    pairs = [(a.reshape(len(weight), -1), b.reshape(len(weight), -1)) for a, b in zip(one[1:], other[1:], strict=True)]
    return Codes(codes, *(torch.where(first, a, b).flatten() for a, b in pairs))


def by_gptq(matrices: QuantizedMatrices, act_order: bool, damping: float) -> Change:
    """Return what rounds the matrices of a block by what they are fed."""

    def change(moments: Mapping[str, Moments]) -> None:
        for name, seen in moments.items():
            weight = matrices.by_unit(name, matrices.parameters[name].detach())
            how = {**matrices.how, "act_order": act_order, "damping": damping, "name": name}
            codes = gptq(weight, matrices.bits[name], seen, **how)
            matrices.write({name: matrices.by_unit(name, dequantize(codes))})

    return change
