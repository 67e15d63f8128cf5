"""Intervals of draws: percentiles, widened where they must hold the value."""

import numpy as np
import pytest

from probes.results.intervals import interval


def test_interval_is_the_percentile_interval():
    values = np.random.default_rng(0).normal(size=10001)
    low, high = interval(np.array(0.0), values)
    assert (low, high) == (pytest.approx(-1.96, abs=0.05), pytest.approx(1.96, abs=0.05))


def test_interval_is_widened_to_hold_the_value():
    low, high = interval(np.array([5.0, -5.0]), np.random.default_rng(0).normal(size=(1000, 2)))
    assert high[0] == 5.0
    assert low[1] == -5.0


def test_interval_passes_over_missing_draws():
    values = np.r_[np.linspace(0, 1, 200), [np.nan] * 50]
    assert interval(np.array(0.5), values)[1] == pytest.approx(0.975, abs=0.01)
    assert np.isnan(interval(np.array(np.nan), values)).all()
