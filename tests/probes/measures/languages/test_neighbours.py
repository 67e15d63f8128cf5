"""What retrieval by cosine and by margin share: ties, blocks and exact intervals."""

import tracemalloc

import brute_force
import numpy as np
import pytest
import xarray as xr
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
@pytest.mark.parametrize("rows", [1, 7, 20, 40, 41])  # of a block: 40 sentences are several of them, or one
def test_blocks_give_what_one_gives_and_brute_force(probe, rows, monkeypatch):
    x, y = translations(n=40)
    x[7:10], y[20] = x[6], x[6]  # ties across the borders of blocks
    reps = probes.from_arrays(np.r_[x, y], id=np.tile(np.arange(40), 2), language=np.repeat(["a", "b"], 40))
    whole = probe(reps, pivot="b", draws=10)
    monkeypatch.setattr("probes.measures.languages.neighbours._STATES", 32 * x.shape[1] * rows)
    monkeypatch.setattr("probes.measures.languages.neighbours._ENTRIES", 3 * rows)
    monkeypatch.setattr("probes.measures.languages.neighbours._COLUMNS", 5)
    xr.testing.assert_identical(probe(reps, pivot="b", draws=10), whole)
    assert probe(x[9:], y[9:]) == pytest.approx(getattr(brute_force, probe.__name__)(x[9:], y[9:]), rel=1e-12)


@FINDS
def test_of_many_sentences_neither_all_cosines_nor_all_states_are_in_memory(probe, monkeypatch):
    ids, features = 1000, 512
    hidden = np.random.default_rng(0).normal(size=(2 * ids, features)).astype(np.float32)
    reps = probes.from_arrays(hidden, id=np.tile(np.arange(ids), 2), language=np.repeat(["a", "b"], ids))
    monkeypatch.setattr("probes.states.representations._SMALL", 0)
    monkeypatch.setattr("probes.measures.languages.neighbours._STATES", 2**20)
    monkeypatch.setattr("probes.measures.languages.neighbours._ENTRIES", 2**16)
    probe(reps.isel(example=np.r_[:4, ids : ids + 4]), pivot="b", draws=2)  # what is loaded once
    tracemalloc.start()
    try:
        probe(reps, pivot="b", draws=2)
        assert tracemalloc.get_traced_memory()[1] < 0.5 * 2 * ids * features * 8
    finally:
        tracemalloc.stop()


def test_a_single_sentence_and_translations_that_are_all_one():
    x = np.random.default_rng(0).normal(size=(6, 5))
    # All tie with the right one, which counts as right; and what is closest to all of them is so of one alone.
    assert probes.retrieval(x, np.repeat(x[:1], 6, axis=0)) == pytest.approx((6 + 1) / 12)
    reps = probes.from_arrays(x[:2], id=[0, 0], language=["a", "b"])
    assert (probes.retrieval(reps, pivot="b", draws=2).value == 1).all()
