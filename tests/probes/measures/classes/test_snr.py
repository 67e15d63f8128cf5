"""Signal-to-noise ratio against theory, chance and copies; the rest is in test_labels."""

import numpy as np
import pytest
from planted import classes_apart

import probes


def test_duplicating_a_whole_class_changes_only_pairs_with_itself():
    x, y = classes_apart()
    twice = np.concatenate([np.arange(len(y)), np.flatnonzero(y == 0)])
    # The mean distance within a class loses its self pairs' share of 1 / n.
    assert probes.snr(x[twice], y[twice]) == pytest.approx(probes.snr(x, y), rel=0.01)
