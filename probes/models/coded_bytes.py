"""How many bytes a matrix takes that is stored by codes: of a few bits, or of codewords."""

from __future__ import annotations

import math

import torch

_STEP_BYTES = 4


def integer_bytes(shape: tuple[int, int], bits: int, group: str | int = "channel", *, symmetric: bool = True) -> int:
    """Return the bytes of codes of some bits, packed bit by bit, of their steps in float32, and where
    affine of the zero points.

    Args:
        shape: (unit, input).
        bits: of a code.
        group: what has one step: the "tensor", each "channel", or so many inputs of a unit.
        symmetric: whether there are no zero points.

    Example:
        >>> integer_bytes((2, 64), 4, 32)  # 128 codes of half a byte, 4 steps of 4 bytes
        80
    """
    rows = grids_of(*shape, group)
    zeros = 0 if symmetric else math.ceil(rows * bits / 8)
    return math.ceil(shape[0] * shape[1] * bits / 8) + _STEP_BYTES * rows + zeros


def grids_of(units: int, width: int, group: str | int) -> int:
    """Return how many grids, each with a step, a matrix has.

    Example:
        >>> grids_of(2, 64, "tensor"), grids_of(2, 64, "channel"), grids_of(2, 64, 32)
        (1, 2, 4)
    """
    return {"tensor": 1, "channel": units}[group] if isinstance(group, str) else units * width // group


def codeword_bytes(units: torch.Tensor, codes: int, block: int) -> int:
    """Return the bytes of a matrix (unit, input) of codewords: an index of each, and the codewords
    that it uses in full.

    Example:
        >>> codeword_bytes(torch.ones(4, 8), 256, 4)  # 8 indices of a byte, one codeword of 4 numbers
        24
    """
    vectors = units.reshape(-1, block)
    words = len(vectors.unique(dim=0)) * block * units.element_size()
    return math.ceil(len(vectors) * math.ceil(math.log2(codes)) / 8) + words
