"""Shared neighbours: from their definition, with ties by rounding, and their interval."""

import sys
import tracemalloc
from types import SimpleNamespace

import alike
import numpy as np
import pandas as pd
import pytest

import probes
from probes.measures.fidelity.similarity import similarity


def overlap(x, y):
    return similarity(x, y, measure="neighbour_overlap")


@pytest.mark.parametrize("noise", [0.1, 0.5, 3.0])
def test_equals_brute_force(noise):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 12))
    y = x + noise * rng.normal(size=x.shape)
    assert overlap(x, y) == pytest.approx(alike.neighbour_overlap(x, y), rel=1e-12)
    assert overlap(x, y) == pytest.approx(overlap(y, x), rel=1e-12)


@pytest.mark.parametrize("rows", [1, 9, 69, 70])
def test_blocks_give_the_same_as_one(rows, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 70, 12))
    x[5:30] = x[4]  # ties across the borders of blocks
    whole = overlap(x, y)
    monkeypatch.setattr("probes.measures.fidelity.neighbour_overlap._ROWS", rows)
    monkeypatch.setattr("probes.measures.fidelity.neighbour_overlap._ENTRIES", 1)
    assert overlap(x, y) == whole
    assert overlap(x[29:], y[29:]) == pytest.approx(alike.neighbour_overlap(x[29:], y[29:]), rel=1e-12)


def test_not_all_cosines_are_in_memory(monkeypatch):
    x, y = np.random.default_rng(0).normal(size=(2, 1500, 16))
    monkeypatch.setattr("probes.measures.fidelity.neighbour_overlap._ENTRIES", 2**14)
    overlap(x[:50], y[:50])  # what is loaded once
    tracemalloc.start()
    try:
        overlap(x, y)
        assert tracemalloc.get_traced_memory()[1] < 0.25 * 1500**2 * 8
    finally:
        tracemalloc.stop()


def test_too_many_copies_have_no_value_and_are_named(monkeypatch):
    monkeypatch.setattr("probes.measures.fidelity.neighbour_overlap.ENTRIES", 1)
    x = np.random.default_rng(0).normal(size=(2, 100, 8))
    x[1, 5:] = x[1, 4]
    with pytest.warns(probes.LayerscopeWarning, match="too many texts lie equally far .* Leave copies out"):
        out = similarity(probes.from_arrays(x), measure="neighbour_overlap", draws=2).value.isel(language=0)
    assert out[0, 0] == 1
    assert np.isnan(out[1]).all()


def test_copies_of_a_text_are_ties_within_rounding():
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(size=(60, 32)), np.repeat(rng.normal(size=(5, 32)), 16, axis=0)].astype(np.float32)
    moved = (x * (1 + 1e-7 * rng.normal(size=x.shape))).astype(np.float32)
    assert (x != moved).any()
    assert overlap(x, moved) == 1
    assert overlap(x, x) == 1
    # By which of them are the nearest, copies seem to share fewer.
    assert alike.neighbour_overlap(x[60:], moved[60:]) < 0.9


def test_ties_take_no_more_room_than_there_is():
    # Ten neighbours at one point in both, and none of them the same: ties share what is tied, and nothing else.
    rng = np.random.default_rng(0)
    x = np.r_[np.repeat(np.eye(32)[:2], 11, axis=0)]
    y = x[rng.permutation(22)]
    group = [x.argmax(axis=1), y.argmax(axis=1)]
    shared = [
        sum(group[0][i] == group[0][j] and group[1][i] == group[1][j] for j in range(22) if j != i) for i in range(22)
    ]
    assert overlap(x, y) == pytest.approx(np.mean(shared) / 10)


def test_a_near_miss_is_no_tie():
    # Two groups of twelve around points, the other way round in which of them is left out.
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(8)[:3], 14, axis=0) + 0.03 * rng.normal(size=(42, 8))
    y = np.repeat(np.eye(8)[:3], 14, axis=0) + 0.03 * rng.normal(size=(42, 8))
    assert overlap(x, y) == pytest.approx(alike.neighbour_overlap(x, y), rel=1e-12)
    assert overlap(x, y) < 0.9


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_its_draws_spread_as_samples_do(noise):
    values, said = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = probes.from_arrays(rng.normal(size=(1, 100, 16)) * np.arange(1, 17) ** -0.5)
        y = x.assign(hidden=x.hidden + noise * rng.normal(size=x.hidden.shape) * np.arange(1, 17) ** -0.5)
        out = similarity(x, y, measure="neighbour_overlap").isel(layer=0, other_layer=0, language=0)
        values.append(out.value.item())
        said.append(out.draws.std().item())
    assert 0.75 < np.mean(said) / np.std(values) < 1.3


def test_a_state_of_zeros_has_no_neighbours_and_is_named(two):
    base = two[0].copy(deep=True)
    base.hidden.values[0, 0] = 0
    with pytest.warns(probes.LayerscopeWarning, match="layer 0: a state is all zero, so it has no direction"):
        similarity(base, measure="neighbour_overlap")


def test_a_model_with_itself_shares_all_whatever_its_batches():
    model, tokenizer = probes.load_checkpoint("bundled")
    texts = [f"t{i} is a word" for i in range(12)] + ["yes", "no"] * 14
    corpus = probes.load_corpus(pd.DataFrame({"id": range(40), "language": "en", "text": texts}))
    one, other = (
        probes.capture(model, tokenizer, corpus, progress=False, device="cpu", batch_size=size) for size in (40, 7)
    )
    out = similarity(one, other, measure="neighbour_overlap").value.sel(language="en")
    np.testing.assert_array_equal(np.diag(out), 1)


def imitated(skipped=0):
    """What is used of faiss, by the product of all; without the nearest ones."""

    class Index:
        def __init__(self, quantizer, features, lists, metric):
            assert (quantizer, metric) == (features, "inner product")
            self.lists = lists

        def train(self, x):
            assert x.dtype == np.float32

        def add(self, x):
            self.x = x

        def search(self, x, k):
            scores = x @ self.x.T
            order = np.argsort(-scores, axis=1)[:, skipped : skipped + k]
            order = np.pad(order, [(0, 0), (0, k - order.shape[1])], constant_values=-1)
            return np.take_along_axis(scores, order, axis=1), order

    return SimpleNamespace(IndexFlatIP=int, IndexIVFFlat=Index, METRIC_INNER_PRODUCT="inner product")


@pytest.mark.parametrize("n", [11, 40, 150])
def test_neighbours_that_faiss_lists_are_measured_as_all_are(n, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", imitated())
    monkeypatch.setattr("probes.measures.fidelity.neighbour_overlap._ENTRIES", 64 * 12 * 7)
    x, y = np.random.default_rng(0).normal(size=(2, n, 12))
    x[2], y[2] = x[3], y[3]
    reps, other = (probes.from_arrays(z) for z in (x, x + 0.5 * y))
    exact, found = (similarity(reps, other, measure="neighbour_overlap", search=s, draws=5) for s in ("exact", "ivf"))
    np.testing.assert_allclose(found.value, exact.value, rtol=1e-12)
    np.testing.assert_allclose(found.draws, exact.draws, rtol=1e-9)
    assert "in the nearest clusters alone" in found.attrs["estimator"]
    assert "clusters" not in exact.attrs["estimator"]


def test_neighbours_that_faiss_misses_are_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", imitated(skipped=6))  # a text itself, and half of its ten nearest
    x, y = np.random.default_rng(0).normal(size=(2, 80, 12))
    with pytest.warns(probes.LayerscopeWarning, match='search="ivf" finds 50% of the neighbours of 80 texts'):
        similarity(x, y, measure="neighbour_overlap", search="ivf")


def test_faiss_itself_finds_nearly_all():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 24)) + 3 * rng.normal(size=(30, 24))[np.arange(1500) % 30]
    y = x + 0.3 * rng.normal(size=x.shape)
    assert similarity(x, y, measure="neighbour_overlap", search="ivf") == pytest.approx(overlap(x, y), abs=0.02)


def test_what_is_asked_of_the_search_is_refused_where_it_cannot_be(monkeypatch):
    x = np.random.default_rng(0).normal(size=(20, 4))
    with pytest.raises(probes.InputError, match="search='hnsw' is not known; choose one of 'exact', 'ivf'"):
        similarity(x, x, measure="neighbour_overlap", search="hnsw")
    with pytest.raises(probes.InputError, match="measure 'cka' looks for no neighbours"):
        similarity(x, x, search="ivf")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(probes.DependencyError, match=r"package faiss, .*: pip install 'layerscope\[neighbours\]'"):
        similarity(x, x, measure="neighbour_overlap", search="ivf")
