"""What retrieval by cosine and by margin share: ties, blocks and exact intervals."""

import brute_force
import numpy as np
import pytest
from planted import planted, translations

import probes

FINDS = pytest.mark.parametrize("probe", [probes.retrieval, probes.margin_retrieval])


@FINDS
def test_a_tie_with_the_right_one_counts_as_right(probe):
    x = np.repeat(np.random.default_rng(0).normal(size=(20, 6)), 2, axis=0)
    assert probe(x, x) == 1.0
    # What separates equal texts that ran in different batches.
    rounding = 1 + 1e-7 * np.random.default_rng(1).normal(size=x.shape)
    assert probe(x.astype(np.float32), (x * rounding).astype(np.float32)) == 1.0


@FINDS
def test_a_near_miss_is_no_tie(probe):
    x = np.random.default_rng(0).normal(size=(20, 6))
    x[1] = x[0] + 1e-2
    y = x.copy()
    y[[0, 1]] = y[[1, 0]]
    assert probe(x, y) == pytest.approx(0.9)


@FINDS
def test_states_that_are_all_equal_have_no_value(probe):
    reps = probes.from_arrays(np.ones((20, 4)), id=np.tile(np.arange(10), 2), language=np.repeat(["a", "b"], 10))
    with pytest.warns(probes.LayerscopeWarning, match=r"layer 0: undefined here \(0/0\)"):
        assert np.isnan(probe(reps, pivot="b").value).all()


@FINDS
def test_states_with_a_large_common_mean_do_not_tie(probe):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(200, 64)).astype(np.float32) + np.float32(1000) for _ in range(2))
    assert probe(x, y) == pytest.approx(getattr(brute_force, probe.__name__)(x, y), abs=0.01)
    assert probe(x, y) < 0.05
    assert probe(x, x * np.float32(1 + 1e-7)) == 1.0


@FINDS
def test_where_all_are_right_the_interval_is_the_exact_binomial_one(probe):
    from scipy.stats import binomtest

    reps = planted(np.random.default_rng(0), ids=50, features=64, shared=0.99)
    out = probe(reps, pivot="l0")
    exact = binomtest(50, 50).proportion_ci(0.95, "exact")
    assert (out.value == 1).all()
    np.testing.assert_allclose(out.low, exact.low)
    np.testing.assert_allclose(out.high, 1.0)


@FINDS
def test_blocks_of_similarities_give_the_same_as_one(probe, monkeypatch):
    x, y = translations()
    whole = probe(x, y)
    monkeypatch.setattr("probes.measures.languages.neighbours._ENTRIES", 7 * len(x))
    assert probe(x, y) == pytest.approx(whole, rel=1e-12)
