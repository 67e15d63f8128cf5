"""Fisher ratio against scatter matrices in numpy, theory, chance, and how often its interval holds."""

import numpy as np
import pytest
from planted import classes_apart

import probes


def by_hand(x, y):
    """tr(S_B) / tr(S_W) of scatter matrices, with the noise of the class means taken off."""
    kinds = np.unique(y)
    means = np.stack([x[y == c].mean(0) for c in kinds])
    spread = np.array([np.trace(np.cov(x[y == c].T)) for c in kinds])
    between = ((means - means.mean(0)) ** 2).sum() / len(kinds)
    noise = (spread / np.bincount(np.unique(y, return_inverse=True)[1])).mean() * (1 - 1 / len(kinds))
    return (between - noise) / spread.mean()


def test_it_is_the_ratio_of_traces_less_the_noise_of_the_means():
    x, y = classes_apart()
    keep = np.r_[np.flatnonzero(y == 0)[:20], np.flatnonzero(y == 1)[:50], np.flatnonzero(y == 2)]
    x, y = x[keep], y[keep]  # classes of other sizes
    assert probes.fisher_ratio(x, y) == pytest.approx(by_hand(x, y), rel=1e-9)
    moved = 3 * x @ np.linalg.qr(np.random.default_rng(0).normal(size=(x.shape[1],) * 2))[0] + 5
    assert probes.fisher_ratio(moved, y) == pytest.approx(probes.fisher_ratio(x, y), rel=1e-9)


def test_three_gaussians_have_two_thirds_and_shuffled_labels_nothing():
    rng = np.random.default_rng(1)
    y = np.arange(1500) % 3
    x = rng.normal(size=(1500, 16)) + 4 * np.eye(16)[y]
    assert probes.fisher_ratio(x, y) == pytest.approx(2 / 3, abs=0.03)
    chance = [probes.fisher_ratio(x[:90], rng.permutation(y[:90])) for _ in range(40)]
    assert abs(np.mean(chance)) < 3 * np.std(chance) / 40**0.5  # around 0: debiased
    assert min(chance) < 0


def test_its_interval_holds_the_value_of_a_large_sample():
    rng, holds = np.random.default_rng(2), []
    for seed in range(60):
        y = np.arange(90) % 3
        reps = probes.from_arrays(rng.normal(size=(90, 16)) + 4 * np.eye(16)[y], label=[f"c{k}" for k in y])
        out = probes.fisher_ratio(reps, draws=100, seed=seed).sel(language="pooled")
        holds.append(float(out.low.item()) <= 2 / 3 <= float(out.high.item()))
    assert np.mean(holds) >= 0.85  # 0.95 less three standard errors


def test_states_that_are_all_equal_have_none():
    assert np.isnan(probes.fisher_ratio(np.ones((20, 3)), np.arange(20) % 2))
    with pytest.raises(probes.InputError, match="compares classes, and there is only one"):
        probes.fisher_ratio(np.ones((20, 3)), np.zeros(20))
