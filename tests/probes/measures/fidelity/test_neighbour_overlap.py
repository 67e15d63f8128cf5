"""Shared neighbours need directions."""

import pytest

import probes
from probes.measures.fidelity.similarity import similarity


def test_a_state_of_zeros_has_no_neighbours_and_is_named(two):
    base = two[0].copy(deep=True)
    base.hidden.values[0, 0] = 0
    with pytest.warns(probes.LayerscopeWarning, match="layer 0: a state is all zero, so it has no direction"):
        similarity(base, measure="neighbour_overlap")
