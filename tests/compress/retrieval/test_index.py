"""The inverted index finds what brute force finds, also with ties, in blocks, and put in order again."""

import math
import sys

import numpy as np
import pytest
import scipy.sparse

from compress.retrieval.index import inverted_index, nearest
from compress.retrieval.retrieval_cost import recall
from probes.errors import InputError


def vectors_of(seed, texts=30, features=8, chances=None):
    rng = np.random.default_rng(seed)
    x = rng.random((texts, features)) * (rng.random((texts, features)) < (0.4 if chances is None else chances))
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def by_brute_force(queries, texts, k, threshold=0.0, rerank=None, candidates=1000):
    rows, scores = [], []
    for i, query in enumerate(queries):
        every = sorted(((-float(query @ text), j) for j, text in enumerate(texts)))
        every = [(s, j) for s, j in every if -s > threshold][:candidates]
        if rerank is not None:
            every = sorted((-float(rerank[0][i] @ rerank[1][j]), j) for _, j in every)
        every = every[:k]
        rows.append([j for _, j in every] + [-1] * (k - len(every)))
        scores.append([-s for s, _ in every] + [math.nan] * (k - len(every)))
    return np.array(rows), np.array(scores)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_index_finds_what_brute_force_finds_also_with_ties_and_empty_rows(k, threshold):
    rng = np.random.default_rng(4)
    # Few values, whose products and sums are exact: many ties.
    queries, texts = (rng.choice([0.0, 0.25, 0.5], p=[0.6, 0.2, 0.2], size=(n, 6)) for n in (9, 30))
    queries[2] = texts[5] = 0
    texts[7] = texts[3]
    index = inverted_index(scipy.sparse.csr_array(texts))
    rows, scores = nearest(scipy.sparse.csr_array(queries), index, k=k, threshold=threshold)
    expected = by_brute_force(queries, texts, k, threshold)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(scores, expected[1])
    assert (rows[2] == -1).all()
    assert not (rows == 5).any()
    if k == 5 and threshold == 0:
        assert any(len(set(s)) < 5 for s in scores.tolist())  # there were ties


def test_queries_are_taken_in_blocks_with_the_same_result(monkeypatch):
    queries, texts = (scipy.sparse.csr_array(vectors_of(seed)) for seed in (1, 2))
    index = inverted_index(texts)
    whole = nearest(queries, index, k=4)
    monkeypatch.setattr(sys.modules["compress.retrieval.index"], "_SCORES", 70)
    for a, b in zip(whole, nearest(queries, index, k=4), strict=True):
        np.testing.assert_array_equal(a, b)


def test_candidates_are_put_in_order_by_dense_vectors_and_no_others_come_in():
    queries, texts = vectors_of(5, texts=6), vectors_of(6)
    rng = np.random.default_rng(7)
    dense = tuple(rng.standard_normal((n, 3)) for n in (6, 30))
    index = inverted_index(scipy.sparse.csr_array(texts))
    how = {"k": 4, "threshold": 0.25, "rerank": dense, "candidates": 8}
    rows, scores = nearest(scipy.sparse.csr_array(queries), index, **how)
    expected = by_brute_force(queries, texts, **how)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_allclose(scores, expected[1])
    assert (rows != nearest(scipy.sparse.csr_array(queries), index, k=4, threshold=0.25)[0]).any()


def test_numbers_of_numpy_are_whole_numbers():
    vectors = scipy.sparse.csr_array(vectors_of(0))
    rows, scores = nearest(vectors, inverted_index(vectors), k=np.int64(3), candidates=np.int64(9))
    expected = nearest(vectors, inverted_index(vectors), k=3)
    assert (rows == expected[0]).all()
    assert np.array_equal(scores, expected[1], equal_nan=True)
    assert recall(rows, rows[:, 0], np.int64(1)) == 1
    with pytest.raises(InputError, match="k=True: expected a whole number"):
        nearest(vectors, inverted_index(vectors), k=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k=0: expected a whole number of at least 1"),
        ({"threshold": -0.1}, "threshold=-0.1: expected a finite number of at least 0"),
        ({"threshold": math.nan}, "threshold=nan"),
        ({"rerank": (np.ones((30, 2)), np.ones((30, 3)))}, "rerank has shapes"),
        ({"rerank": (np.ones((30, 2)), np.ones((29, 2)))}, "expected 30 and 30"),
        ({"rerank": (np.ones((30, 2)), np.ones((30, 2))), "candidates": 3}, "candidates=3 and k=10"),
    ],
)
def test_settings_of_retrieval_that_cannot_be_meant_are_refused(settings, message):
    x = scipy.sparse.csr_array(vectors_of(1))
    with pytest.raises(InputError, match=message):
        nearest(x, inverted_index(x), **settings)


def test_vectors_that_do_not_fit_are_refused():
    x = scipy.sparse.csr_array(vectors_of(1))
    with pytest.raises(InputError, match="queries of 8 features and an index of 30"):
        nearest(x, x)
    with pytest.raises(InputError, match="queries is a ndarray: expected a sparse matrix"):
        nearest(x.toarray(), inverted_index(x))
    bad = x.copy()
    bad.data[0] = math.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        inverted_index(bad)
    with pytest.raises(InputError, match=r"shape \(0, 8\)"):
        inverted_index(x[:0])
