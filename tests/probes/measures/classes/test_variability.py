"""Variability against theory, closed forms and noise; the rest is in test_labels."""

from importlib import import_module

import brute_force
import numpy as np
import pytest
from planted import classes_apart

import probes

MODULE = import_module("probes.measures.classes.variability")


def test_shuffled_labels_are_much_worse():
    x, y = classes_apart(n=300, distance=3.0)
    assert probes.variability(x, np.random.default_rng(0).permutation(y)) > 20 * probes.variability(x, y)


def test_duplicating_a_whole_class_changes_nothing():
    x, y = classes_apart()
    twice = np.concatenate([np.arange(len(y)), np.flatnonzero(y == 0)])
    # Means and covariances stay.
    assert probes.variability(x[twice], y[twice]) == pytest.approx(probes.variability(x, y), rel=1e-9)


def test_variability_says_where_class_means_are_mostly_noise():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 40)), np.arange(90) % 3
    with pytest.warns(probes.LayerscopeWarning, match="at 2 of 2 layers and languages more than half of the distance"):
        probes.variability(probes.from_arrays(x, label=y))
    probes.variability(probes.from_arrays(x + 5 * np.eye(40)[y], label=y))  # no warning


def test_variability_of_two_classes_has_the_closed_form():
    x, y = classes_apart(classes=2)
    delta = x[y == 0].mean(axis=0) - x[y == 1].mean(axis=0)
    within = (np.cov(x[y == 0].T, bias=True) + np.cov(x[y == 1].T, bias=True)) / 2
    expected = 2 * delta @ within @ delta / (delta @ delta) ** 2
    assert probes.variability(x, y) == pytest.approx(expected, rel=1e-9)


def test_variability_of_classes_that_share_a_mean_uses_the_directions_that_are_left():
    x, y = classes_apart(classes=3, d=4)
    x[y == 1] += x[y == 0].mean(axis=0) - x[y == 1].mean(axis=0)
    assert probes.variability(x, y) == pytest.approx(brute_force.variability(x, y), rel=1e-6)


def test_variability_of_more_classes_than_features_has_draws_of_its_own():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 10
    reps = probes.from_arrays(rng.normal(size=(400, 4)) + 3 * rng.normal(size=(10, 4))[y], label=y)
    out = probes.variability(reps)
    assert out.value[0, 0] == pytest.approx(brute_force.variability(reps.hidden[0].values, reps.label.values))
    assert (out.low < 0.99 * out.value).all()
    assert (out.high > 1.01 * out.value).all()


def test_draws_are_the_same_by_products_of_states_and_by_the_class_means_of_every_draw(monkeypatch):
    x, y = classes_apart(classes=4, n=80)
    other = x + np.random.default_rng(1).normal(size=x.shape)
    ids, languages = np.tile(np.arange(len(x)), 2), np.repeat(["en", "fr"], len(x))
    reps = probes.from_arrays(np.concatenate([x, other]), id=ids, language=languages, label=np.tile(y, 2))
    by_products = probes.variability(reps, draws=20)
    monkeypatch.setattr(MODULE, "_by_products", None)
    monkeypatch.setattr(MODULE, "_ENTRIES", 0)
    by_means = probes.variability(reps, draws=20)
    for name in ("value", "low", "high", "draws"):
        np.testing.assert_allclose(by_products[name], by_means[name], rtol=1e-5)


def test_a_draw_whose_class_means_coincide_stops_no_other():
    k = np.stack([np.diag([2.0, 4.0]), np.zeros((2, 2))])
    found = MODULE._traces(MODULE._Draws(k, k, 0.0), rank=2)
    assert found[0] == pytest.approx(1 / 2 + 1 / 4)
    assert not np.isfinite(found[1])
