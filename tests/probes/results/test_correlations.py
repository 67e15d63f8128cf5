"""Correlations in every draw against those of repeated values, and how often their intervals hold."""

import numpy as np
import pytest
from scipy import stats

from probes.results.correlations import correlations, weighted_ranks
from probes.results.draws import balanced_weights
from probes.results.intervals import interval


def test_ranks_by_weights_are_those_of_repeated_values():
    rng = np.random.default_rng(0)
    values, weights = rng.integers(0, 5, 12).astype(float), rng.integers(0, 3, (4, 12))
    found = weighted_ranks(values, weights.astype(float))
    for row, counts in zip(found, weights, strict=True):
        repeated, at = np.repeat(values, counts), np.repeat(np.arange(12), counts)
        np.testing.assert_allclose(row[at], stats.rankdata(repeated))
        expected = stats.spearmanr(repeated, np.repeat(values[::-1], counts))[0]
        other = weighted_ranks(values[::-1], counts[None].astype(float))
        assert correlations(row[None], other, counts[None].astype(float))[0] == pytest.approx(expected)


@pytest.mark.parametrize(("ranked", "truth"), [(False, 0.6), (True, 6 / np.pi * np.arcsin(0.3))])
def test_intervals_of_correlations_hold_the_truth_as_often_as_they_say(ranked, truth):
    rng, holds = np.random.default_rng(0), []
    for seed in range(150):
        x = rng.normal(size=80)
        y = 0.6 * x + 0.8 * rng.normal(size=80)
        weights = balanced_weights(80, 200, seed).astype(float)
        one, two = (weighted_ranks(z, weights) if ranked else np.broadcast_to(z, weights.shape) for z in (x, y))
        found = correlations(one, two, weights)
        low, high = interval(found[0], found[1:])
        holds.append(low <= truth <= high)
    assert 0.89 <= np.mean(holds) <= 0.99


def test_what_is_the_same_everywhere_correlates_with_nothing():
    assert np.isnan(correlations(np.ones((1, 4)), np.arange(4.0)[None], np.ones((1, 4)))).all()
