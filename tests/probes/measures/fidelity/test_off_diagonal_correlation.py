"""Correlations of other features against numpy, planted repetition, chance, and how often the interval holds."""

import numpy as np
import pytest

import probes
from probes.measures.fidelity.off_diagonal_correlation import off_diagonal_correlation


def by_hand(x, y):
    d = x.shape[1]

    def mean(a, b):
        return np.mean([abs(np.corrcoef(a[:, i], b[:, j])[0, 1]) for i in range(d) for j in range(d) if i != j])

    return mean(x, y) / mean(x, x)


def pair(seed, n=80, d=5, mixed=0.6):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d))
    x = z + mixed * z.mean(1, keepdims=True) * d**0.5
    return x, z + 0.3 * rng.normal(size=(n, d))


def measured(x, y, **how):
    return off_diagonal_correlation(probes.from_arrays(x), probes.from_arrays(y), **how).sel(layer=0, language="pooled")


def test_it_is_the_mean_size_of_correlations_over_the_originals():
    x, y = pair(0)
    assert float(measured(x, y).value) == pytest.approx(by_hand(x, y), rel=1e-9)
    assert float(measured(x, x).value) == pytest.approx(1, rel=1e-12)
    scaled = 3 * y * np.arange(1, 6) + 7
    assert float(measured(x, scaled).value) == pytest.approx(by_hand(x, y), rel=1e-9)


def test_it_falls_where_features_stop_repeating_each_other_and_not_by_a_change_of_scale():
    x, y = pair(1, n=2000)
    assert float(measured(x, y).value) < 0.9
    out = measured(x, 2 * x)
    assert float(out.low) == float(out.high) == pytest.approx(1)
    # Of features without anything in common both means are chance, sqrt(2 / (pi n)).
    z = np.random.default_rng(2).normal(size=(400, 40))
    assert float(measured(z[:, :20], z[:, 20:]).value) == pytest.approx(1, abs=0.1)


def test_its_interval_holds_the_mean_over_samples_of_this_size():
    outs = [measured(*pair(seed), draws=100, seed=seed) for seed in range(100)]
    truth = np.mean([float(out.value) for out in outs])
    assert np.mean([float(out.low) <= truth <= float(out.high) for out in outs]) >= 0.88


def test_what_has_no_value_is_said(recwarn):
    x, y = pair(0)
    assert np.isnan(measured(x, np.ones_like(y)).value)
    assert any("fewer than two features vary" in str(w.message) for w in recwarn)
    constant = y.copy()
    constant[:, 2] = 1  # left out of both
    keep = [0, 1, 3, 4]
    assert float(measured(x, constant).value) == pytest.approx(by_hand(x[:, keep], y[:, keep]), rel=1e-9)
    with pytest.raises(probes.InputError, match="has 5 and model 'arrays' 4; expected as many"):
        off_diagonal_correlation(probes.from_arrays(x), probes.from_arrays(y[:, :4]))
