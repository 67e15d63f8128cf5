import importlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import probes
from probes.measures.classes.l1_path import l1_path, penalties_of

MODULE = importlib.import_module("probes.measures.classes.l1_path")


def made(seed=0, n=150, features=30, correlated=True):
    """Correlated states of which three features say the class, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features))
    if correlated:
        x = x @ rng.normal(size=(features, features))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, x[:, 0] - x[:, 1] + 2 * x[:, 2] + rng.logistic(size=n) > 0.5


def objective(x, y, weights, intercept, penalty):
    margin = np.where(y, 1, -1) * (x @ weights + intercept)
    return np.logaddexp(0, -margin).mean() + penalty * np.abs(weights).sum()


def violation(x, y, weights, intercept, penalty):
    """The optimality conditions one feature at a time."""
    error = 1 / (1 + np.exp(-(x @ weights + intercept))) - y
    worst = abs(error.mean())
    for j, w in enumerate(weights):
        slope = (x[:, j] * error).mean()
        worst = max(worst, abs(slope + penalty * np.sign(w)) if w else abs(slope) - penalty)
    return worst


@pytest.mark.parametrize(("n", "features"), [(150, 30), (40, 60)])
def test_has_the_objective_of_scikit_learn(n, features):
    x, y = made(n=n, features=features)
    penalties = penalties_of(x, y, 8, 0.03)
    found = l1_path(x, y, penalties)
    for k in (2, 7):
        other = LogisticRegression(C=1 / (n * penalties[k]), l1_ratio=1, solver="saga", tol=1e-9, max_iter=20_000)
        other.fit(x, y)
        theirs = objective(x, y, other.coef_[0], other.intercept_[0], penalties[k])
        assert found.objectives[k] == pytest.approx(theirs, abs=1e-6)
        ours = objective(x, y, found.weights[k], found.intercepts[k], penalties[k])
        assert found.objectives[k] == pytest.approx(ours, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_optimality_conditions_hold_and_the_residual_is_their_violation(seed):
    x, y = made(seed)
    penalties = penalties_of(x, y, 10, 0.01)
    found = l1_path(x, y, penalties)
    for k, penalty in enumerate(penalties):
        by_hand = violation(x, y, found.weights[k], found.intercepts[k], penalty)
        assert by_hand < 1e-6
        assert found.residuals[k] == pytest.approx(by_hand, abs=1e-10)


def test_classes_that_can_be_parted_are_solved_to_the_end():
    x, _ = made(n=60, features=20, correlated=False)
    y = x[:, 4] > 0
    found = l1_path(x, y, penalties_of(x, y, 12, 1e-3))
    assert (found.residuals < 1e-6).all()
    assert np.abs(found.weights[5]).argmax() == 4


def test_the_first_penalty_keeps_all_weights_at_zero_and_the_next_does_not():
    x, y = made()
    found = l1_path(x, y, penalties_of(x, y, 5, 0.5))
    assert not found.weights[0].any()
    assert found.intercepts[0] == pytest.approx(np.log(y.mean() / (1 - y.mean())))
    assert found.weights[1].any()


def test_the_objective_never_rises_within_a_penalty(monkeypatch):
    seen = []
    moved = MODULE._Problem._moved

    def spied(self, active, states, move, shift, penalty, slope):
        before = self.objective(penalty)
        went = moved(self, active, states, move, shift, penalty, slope)
        seen.append(self.objective(penalty) - before)
        return went

    monkeypatch.setattr(MODULE._Problem, "_moved", spied)
    x, y = made(seed=3)
    l1_path(x, y, penalties_of(x, y, 6, 0.01))
    assert len(seen) > 6
    assert max(seen) < 1e-14


def test_features_without_variance_and_copies_do_no_harm():
    x, y = made(features=10)
    x = np.concatenate([x, x[:, :3], np.zeros((len(x), 2))], axis=1)
    found = l1_path(x, y, penalties_of(x, y, 8, 0.01))
    assert (found.residuals < 1e-6).all()
    assert not found.weights[:, -2:].any()


def test_too_few_steps_are_seen_in_the_residual():
    x, y = made()
    assert l1_path(x, y, penalties_of(x, y, 3, 0.01), steps=1).residuals.max() > 1e-6


def test_what_cannot_be_fitted_is_refused():
    x, y = made()
    for penalties in ([0.1, 0.2], [0.1, 0.0]):
        with pytest.raises(probes.InputError, match="penalties: expected positive numbers from strong to weak"):
            l1_path(x, y, np.array(penalties))
    with pytest.raises(probes.InputError, match="y holds one value only"):
        l1_path(x, np.ones(len(x)), np.array([0.1]))
