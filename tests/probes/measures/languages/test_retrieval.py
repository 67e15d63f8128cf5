"""Retrieval: what it finds, and its exact interval where it finds nothing."""

import numpy as np
import pytest

import probes


def test_none_right_has_the_exact_binomial_interval():
    from scipy.stats import binomtest

    x = np.eye(30)
    reps = probes.from_arrays(
        np.concatenate([x, np.roll(x, 1, axis=0)]), id=np.tile(np.arange(30), 2), language=np.repeat(["a", "b"], 30)
    )
    out = probes.retrieval(reps, pivot="b")
    assert (out.value == 0).all()
    np.testing.assert_allclose(out.high, binomtest(0, 30).proportion_ci(0.95, "exact").high)
    np.testing.assert_allclose(out.low, 0)


def test_the_nearest_sentence_is_found_by_its_angle():
    x = np.eye(6)
    assert probes.retrieval(x, 3.0 * x + 0.1) == 1.0
    # One pair swapped: both of them are wrong, in both directions.
    assert probes.retrieval(x, x[[1, 0, 2, 3, 4, 5]]) == pytest.approx(4 / 6)
