"""Draws without repetition: of a mean they spread as its standard error says, and they are paired."""

import numpy as np
import pytest
from planted import planted

from probes.results.counts import Counts
from probes.results.draws import sample
from probes.results.intervals import student_factor
from probes.results.resampled import PARTS, Held, held_twice, of_parts, parts_of, without_parts


def weights_of(n, draws=400, seed=0):
    return sample(planted(np.random.default_rng(0), ids=n, languages=1), draws=draws, seed=seed).weights


@pytest.mark.parametrize("n", [40, 150])
def test_means_of_parts_spread_as_the_standard_error_of_the_mean(n):
    x = np.random.default_rng(n).normal(size=n)
    held = held_twice(weights_of(n))
    assert held.share == np.mean(list(held)) == pytest.approx(1 - 2 / np.e, abs=0.03)
    drawn = of_parts(x.mean(), np.array([x[rows].mean() for rows in held]), held)
    assert drawn[0] == x.mean()
    assert drawn[1:].mean() == pytest.approx(x.mean(), abs=1e-9)
    assert drawn[1:].std() == pytest.approx(student_factor(n) * x.std(ddof=1) / np.sqrt(n), rel=0.12)


def test_what_draws_hold_twice_is_the_same_of_some_ids_and_of_counts_that_are_no_matrix():
    counts = Counts(np.arange(50), 13, seed=0)
    held = held_twice(counts)
    assert np.array_equal(list(held), counts[1:] > 1)
    assert np.array_equal(list(held.of(np.array([7, 3]))), counts[1:, [7, 3]] > 1)
    assert np.array_equal(list(held_twice(counts[:])), list(held))
    assert len(held) == 13
    assert not len(held_twice(np.ones((1, 50))))


@pytest.mark.parametrize("n", [12, 100, 150])
def test_without_parts_a_mean_spreads_as_the_jackknife_says(n):
    x = np.random.default_rng(n).normal(size=n)
    drawn = without_parts(x.mean(), lambda stay: x[stay].mean(), weights_of(n), (-np.inf, np.inf))
    parts = parts_of(n)
    left = np.array([x[parts != part].mean() for part in np.unique(parts)])
    jackknife = np.sqrt((len(left) - 1) / len(left) * np.square(left - left.mean()).sum())
    assert drawn[0] == x.mean()
    assert drawn[1:].std() == pytest.approx(jackknife, rel=0.12)


def test_parts_are_equal_in_size_and_always_the_same():
    assert set(np.bincount(parts_of(150))) == {7, 8}
    assert len(np.unique(parts_of(6))) == 6
    assert parts_of(200).max() == PARTS - 1
    np.testing.assert_array_equal(parts_of(99), parts_of(99))
    assert (np.diff(parts_of(99)) != 1).any()  # neighbours in the file are spread by chance


def test_what_cannot_be_told_without_a_part_is_left_out():
    x = np.arange(40.0)
    left = lambda stay: np.nan if not stay[0] else x[stay].mean()  # noqa: E731
    drawn = without_parts(x.mean(), left, weights_of(40), (-np.inf, np.inf))
    assert np.isfinite(drawn).all()


def test_draws_stay_within_bounds_and_too_small_parts_have_no_value():
    drawn = without_parts(0.99, lambda stay: float(stay[:5].mean()), weights_of(40), (0.0, 1.0))
    assert drawn.max() <= 1
    held = Held(np.zeros((40, 1), np.uint8), 3)
    assert np.isnan(of_parts(1.0, np.full(3, np.nan), held)[1:]).all()
