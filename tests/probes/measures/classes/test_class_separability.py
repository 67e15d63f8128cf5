"""Class separability against theory, chance and copies; the rest is in test_labels."""

import numpy as np
import pytest
from planted import classes_apart

import probes


def test_matches_theory_on_three_gaussians():
    rng = np.random.default_rng(0)
    y = np.arange(6000) % 3
    x = rng.normal(size=(6000, 16)) + 4 * np.eye(16)[y]
    assert probes.class_separability(x, y) == pytest.approx(0.40, rel=0.03)


def test_shuffled_labels_are_at_chance():
    x, y = classes_apart(n=300, distance=3.0)
    assert probes.class_separability(x, np.random.default_rng(0).permutation(y)) == pytest.approx(0.0, abs=0.02)
    assert probes.class_separability(x, y) > 0.0 + 0.2


def test_duplicating_a_whole_class_changes_nothing():
    x, y = classes_apart()
    twice = np.concatenate([np.arange(len(y)), np.flatnonzero(y == 0)])
    assert probes.class_separability(x[twice], y[twice]) == pytest.approx(probes.class_separability(x, y), rel=1e-9)
