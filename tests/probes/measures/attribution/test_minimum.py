"""The head at its minimum: stationary, equal to other solvers, also where the search is hard."""

import numpy as np
import pytest
from explained import data, gradient, with_one
from sklearn.linear_model import LogisticRegression

from probes.measures.attribution import minimum
from probes.measures.attribution.representers import representers


@pytest.mark.parametrize("classes", [2, 4, 7])
@pytest.mark.parametrize("l2", [1e-5, 3e-4, 3e-2])
def test_reaches_a_stationary_point_where_the_values_sum_to_the_logits(classes, l2):
    x, t, y, _ = data(classes=classes)
    values = representers(x, t, labels=y, l2=l2)
    assert np.abs(gradient(values, np.eye(classes)[y])).max() < 1e-9 * l2 * np.abs(values.theta).max() + 1e-12
    summed = with_one(t) @ (values.alpha.T @ with_one(x)).T
    assert np.abs(summed - with_one(t) @ values.theta.T).max() < 1e-8 * np.abs(summed).max()
    assert values.certificate.relative_error < 1e-8
    assert values.certificate.gradient_norm < 1e-9


def test_equals_the_coefficients_of_logistic_regression():
    x, t, y, _ = data()
    model = LogisticRegression(C=1 / (2 * 0.01 * len(x)), fit_intercept=False, tol=1e-10, max_iter=5000)
    model.fit(with_one(x), y)
    values = representers(x, t, labels=y, l2=0.01)
    np.testing.assert_allclose(values.theta, model.coef_, atol=1e-6)
    np.testing.assert_allclose(values.logits, model.decision_function(with_one(t)), atol=1e-5)


def test_two_classes_are_one_logistic_regression_of_half_the_strength():
    """softmax over (-z/2, z/2) is the logistic function of z, and ||(-w/2, w/2)||^2 is ||w||^2 / 2."""
    x, t, y, _ = data(classes=2)
    model = LogisticRegression(C=1 / (0.01 * len(x)), fit_intercept=False, tol=1e-10, max_iter=5000)
    model.fit(with_one(x), y)
    values = representers(x, t, labels=y, l2=0.01)
    np.testing.assert_allclose(values.theta, np.concatenate([-model.coef_ / 2, model.coef_ / 2]), atol=1e-6)


def test_under_a_large_penalty_alpha_and_theta_are_those_of_no_head_at_all():
    x, t, y, _ = data()
    values = representers(x, t, labels=y, l2=1e5)
    alpha = (np.eye(4)[y] - 1 / 4) / (2 * 1e5 * len(x))
    np.testing.assert_allclose(values.alpha, alpha, rtol=1e-4)
    np.testing.assert_allclose(values.theta, alpha.T @ with_one(x), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("layout", ["mean", "decaying", "wide", "scaled", "separable"])
def test_reaches_it_on_features_that_are_hard_to_search_along(layout):
    x, t, y, _ = data(d=24)
    if layout == "mean":
        x, t = (np.float32(z + 100) for z in (x, t))
    elif layout == "decaying":
        x, t = (z * np.arange(1, 25) ** -2.0 + 10 for z in (x, t))
    elif layout == "wide":
        rng = np.random.default_rng(1)
        x, t = (np.column_stack([z, rng.normal(size=(len(z), 400))]) for z in (x, t))
    elif layout == "scaled":
        x, t = x * 300, t * 300
    else:
        x, t = x + 20 * np.eye(24)[y], t
    values = representers(x, t, labels=y)
    assert values.certificate.relative_error < 1e-6


def test_labels_in_balance_without_features_have_logits_of_zero():
    values = representers(np.zeros((6, 2)), np.zeros((2, 2)), labels=[0, 1, 2] * 2)
    assert np.abs(values.logits).max() < 1e-12
    assert values.certificate.error < 1e-12


def test_large_sets_are_searched_in_float32_to_the_same_end(monkeypatch):
    x, t, y, _ = data()
    there = representers(x, t, labels=y)
    monkeypatch.setattr(minimum, "MANY", 0)
    np.testing.assert_allclose(representers(x, t, labels=y).theta, there.theta, atol=1e-7)


def test_a_search_that_float32_cannot_end_goes_on_in_float64(monkeypatch):
    monkeypatch.setattr(minimum, "MANY", 0)
    x, t, y, _ = data(d=24)
    values = representers(1000 * x, 1000 * t, labels=y)
    assert values.certificate.relative_error < 1e-6
