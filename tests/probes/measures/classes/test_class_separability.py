"""Class separability against theory, chance and copies; the rest is in test_labels."""

import numpy as np
import pytest
from planted import classes_apart

import probes


def test_duplicating_a_whole_class_changes_nothing():
    x, y = classes_apart()
    twice = np.concatenate([np.arange(len(y)), np.flatnonzero(y == 0)])
    assert probes.class_separability(x[twice], y[twice]) == pytest.approx(probes.class_separability(x, y), rel=1e-9)
