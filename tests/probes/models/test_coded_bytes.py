"""Bytes of matrices that are stored by codes, counted by hand; what a quantisation says of itself is tested there."""

import pytest
import torch

from probes.models.coded_bytes import codeword_bytes, grids_of, integer_bytes


@pytest.mark.parametrize(
    ("group", "steps"), [("tensor", 1), ("channel", 6), (4, 18)], ids=["tensor", "channel", "4 inputs"]
)
def test_codes_steps_and_zero_points(group, steps):
    assert grids_of(6, 12, group) == steps
    assert integer_bytes((6, 12), 3, group) == 27 + 4 * steps
    assert integer_bytes((6, 12), 3, group, symmetric=False) == 27 + 4 * steps + -(-3 * steps // 8)


def test_indices_and_the_codewords_that_are_used():
    units = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, 1.0]])
    assert codeword_bytes(units, 16, 2) == 2 + 2 * 2 * 4  # 4 indices of 4 bits, two codewords of two numbers
    assert codeword_bytes(units.double(), 5, 4) == 1 + 2 * 4 * 8  # 2 indices of 3 bits
