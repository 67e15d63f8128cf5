"""Distance between classes against numpy, theory, what it does not see, and how often its interval holds."""

import itertools

import numpy as np
import pytest
from planted import classes_apart
from scipy.spatial.distance import cdist

import probes


def test_it_is_the_mean_distance_of_pairs_over_the_mean_length():
    x, y = classes_apart()
    keep = np.r_[np.flatnonzero(y == 0)[:20], np.flatnonzero(y == 1)[:50], np.flatnonzero(y == 2)]
    x, y = x[keep], y[keep]
    pairs = [cdist(x[y == a], x[y == b]).mean() for a, b in itertools.combinations(np.unique(y), 2)]
    expected = np.mean(pairs) / np.linalg.norm(x, axis=1).mean()
    assert probes.class_distance(x, y) == pytest.approx(expected, rel=1e-9)
    turned = 3 * x @ np.linalg.qr(np.random.default_rng(0).normal(size=(x.shape[1],) * 2))[0]
    assert probes.class_distance(turned, y) == pytest.approx(expected, rel=1e-9)
    assert probes.class_distance(x + 5, y) < 0.9 * expected  # longer states, as far apart


def test_it_sees_a_distance_and_not_whether_labels_say_anything():
    rng, y = np.random.default_rng(1), np.arange(600) % 3
    noise = rng.normal(size=(600, 64))
    assert probes.class_distance(noise, y) == pytest.approx(2**0.5, abs=0.03)  # of any two directions at random
    assert probes.snr(noise, y) == pytest.approx(1, abs=0.01)
    near = 10 + noise
    assert probes.class_distance(near, y) < 0.2
    assert probes.class_distance(near + 40 * np.eye(64)[y], y) > 0.3


def test_its_interval_holds_the_value_of_a_large_sample():
    rng, holds = np.random.default_rng(2), []

    def draw(n):
        y = np.arange(n) % 3
        return rng.normal(size=(n, 8)) * np.linspace(0.5, 2, 8) + 2 * np.eye(8)[y], y

    truth = probes.class_distance(*draw(3000))
    for seed in range(60):
        x, y = draw(90)
        reps = probes.from_arrays(x, label=[f"c{k}" for k in y])
        out = probes.class_distance(reps, draws=100, seed=seed).sel(language="pooled")
        holds.append(float(out.low.item()) <= truth <= float(out.high.item()))
    assert np.mean(holds) >= 0.85


def test_states_that_are_all_equal_have_none():
    assert np.isnan(probes.class_distance(np.ones((20, 3)), np.arange(20) % 2))
    with pytest.raises(probes.InputError, match="compares classes, and there is only one"):
        probes.class_distance(np.ones((20, 3)), np.zeros(20))
