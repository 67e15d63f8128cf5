"""What retrieval costs, by counted pairs; what it finds."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch

from compress.objectives.sparse import SparseActivations
from compress.retrieval.retrieval_cost import recall, retrieval_cost
from probes.errors import InputError


def vectors_of(seed, texts=30, features=8, chances=None):
    rng = np.random.default_rng(seed)
    x = rng.random((texts, features)) * (rng.random((texts, features)) < (0.4 if chances is None else chances))
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def test_costs_are_those_of_counted_pairs():
    x = vectors_of(1, texts=13)
    x[3, 2] = 1e-9  # counts as zero
    cost = retrieval_cost(scipy.sparse.csr_array(x))
    active = np.abs(x) > 1e-8
    every = [int((active[a] & active[b]).sum()) for a in range(13) for b in range(13)]
    different = [int((active[a] & active[b]).sum()) for a in range(13) for b in range(13) if a != b]
    assert cost["flops"] == pytest.approx(np.mean(every))
    assert cost["flops_unbiased"] == pytest.approx(np.mean(different))
    assert cost["flops_relaxed"] == pytest.approx(float(SparseActivations().of(torch.tensor(x))), abs=1e-8)
    assert cost["nonzeros"] == pytest.approx(active.sum() / 13)
    assert cost["suboptimality"] == pytest.approx(8 * np.mean(every) / (active.sum() / 13) ** 2)
    assert cost["speed_up"] == pytest.approx(8 / np.mean(every))


def test_the_ratio_is_one_for_evenly_spread_features_and_above_it_for_all_others():
    even = scipy.sparse.csr_array(np.kron(np.eye(4), np.ones((3, 2))))
    assert retrieval_cost(even)["suboptimality"] == pytest.approx(1, abs=1e-12)
    one = np.zeros((12, 8))
    one[:, 0] = 1
    assert retrieval_cost(scipy.sparse.csr_array(one))["suboptimality"] == 8
    for seed in range(20):
        chances = np.random.default_rng(seed).random(8)
        found = retrieval_cost(scipy.sparse.csr_array(vectors_of(seed, chances=chances)))["suboptimality"]
        assert found > 1 + 1e-6


def test_the_unbiased_estimate_has_the_right_mean_and_the_plain_one_is_too_large():
    chances = np.array([0.1, 0.5, 0.9, 0.3])
    rng, found = np.random.default_rng(0), []
    for _ in range(1500):
        cost = retrieval_cost(scipy.sparse.csr_array((rng.random((6, 4)) < chances).astype(float)))
        found.append((cost["flops_unbiased"], cost["flops"]))
    unbiased, plain = np.mean(found, axis=0)
    true = (chances**2).sum()
    error = np.std(found, axis=0)[0] / math.sqrt(1500)
    assert abs(unbiased - true) < 4 * error
    assert plain == pytest.approx(true + (chances * (1 - chances)).sum() / 6, abs=4 * error)


def test_costs_refuse_what_has_none():
    for x in (np.zeros((3, 2)), np.ones((1, 2))):
        with pytest.raises(InputError, match="expected at least two vectors that are not all zero"):
            retrieval_cost(scipy.sparse.csr_array(x))
    with pytest.raises(InputError, match="expected a sparse matrix"):
        retrieval_cost(np.ones((3, 2)))


def test_recall_counts_queries():
    found = np.array([[3, 1], [2, -1], [0, 2]])
    assert recall(found, np.array([1, 2, 1]), 1) == pytest.approx(1 / 3)
    assert recall(found, np.array([1, 2, 1]), 2) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="k=3: expected a whole number from 1 to 2"):
        recall(found, np.array([1, 2, 1]), 3)
    with pytest.raises(InputError, match="one wanted text a query"):
        recall(found, np.array([1, 2]), 1)
