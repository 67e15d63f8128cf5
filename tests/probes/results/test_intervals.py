"""Intervals of draws: percentiles, widened where they must hold the value."""

import numpy as np
import pytest
from scipy import stats

from probes.results.intervals import interval, student_factor, widened


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


def test_draws_of_classes_are_widened_as_for_a_mean_of_their_means():
    draws = np.r_[0.0, np.random.default_rng(0).normal(size=1000)]
    # One class: Student's t. Several of one size: n - 1 of each. One that is small counts by its part of the variance.
    assert widened(draws, np.array([8]))[1:].std() == pytest.approx(student_factor(8) * draws[1:].std())
    welch = np.sqrt(8 / 7) * stats.t.ppf(0.975, 21) / stats.norm.ppf(0.975)
    assert widened(draws, np.array([8, 8, 8]))[1:].std() == pytest.approx(welch * draws[1:].std())
    uneven = widened(draws, np.array([8, 80, 80]))[1:].std() / draws[1:].std()
    assert widened(draws, np.array([80, 80, 80]))[1:].std() / draws[1:].std() < uneven < student_factor(8)
    assert widened(draws, np.array([8, 80]))[0] == 0
