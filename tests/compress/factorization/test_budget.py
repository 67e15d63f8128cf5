"""Ranks by a budget: greedy by hand, near the best there is, within it."""

import itertools
import math

import numpy as np
import pytest
from factored import module_of, plain, states

from compress.factorization.budget import ranks_by_budget
from compress.factorization.factorize import factorize
from compress.factorization.low_rank import LowRank
from compress.factorization.tensor_train import TensorTrain
from probes.errors import InputError


def greedy(matrices, budget):
    """The ranks by the words of the documentation: component by component, each time over all matrices."""
    values = [np.linalg.svd(m, compute_uv=False) ** 2 for m in matrices]
    sizes, steps = [m.size for m in matrices], [sum(m.shape) for m in matrices]
    ranks = [1] * len(matrices)
    left = math.floor(budget * sum(sizes) + 1e-9) - sum(steps)
    while True:
        best = None
        for i, rank in enumerate(ranks):
            if rank is None:
                continue
            cost, gain = steps[i], values[i][rank] if rank < len(values[i]) else 0
            if (rank + 1) * steps[i] > sizes[i]:
                cost, gain = sizes[i] - rank * steps[i], values[i][rank:].sum()
            if cost <= left and gain > 0 and (best is None or gain / max(cost, 1e-9) > best[0]):
                best = gain / max(cost, 1e-9), i, cost
        if best is None:
            return ranks
        _, i, cost = best
        left -= cost
        ranks[i] = None if (ranks[i] + 1) * steps[i] > sizes[i] else ranks[i] + 1


@pytest.mark.parametrize("budget", [0.2, 0.35, 0.5, 0.8, 0.99, 1.0])
def test_a_budget_goes_to_the_largest_singular_values(budget):
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=s) * scale for s, scale in (((9, 14), 1), ((20, 20), 3), ((16, 9), 0.5), ((8, 8), 2))]
    parts = {str(i): LowRank(plain(m), None) for i, m in enumerate(matrices)}
    found = ranks_by_budget(parts, budget, shares=False)
    expected = greedy(matrices, budget)
    assert [r if r is None else r[0] for r in found.values()] == expected
    if budget == 1.0:
        assert expected == [None] * 4
    shared = ranks_by_budget(parts, budget, shares=True)
    expected = greedy([m / np.linalg.norm(m) for m in matrices], budget)
    assert [r if r is None else r[0] for r in shared.values()] == expected


def test_a_budget_is_spent_better_than_evenly_and_near_the_best_there_is():
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=(12, 12)) * 0.7 ** np.arange(12) * scale for scale in (4, 1, 0.2)]
    found = ranks_by_budget({str(i): LowRank(plain(m), None) for i, m in enumerate(matrices)}, 1 / 2, shares=False)
    values = [np.linalg.svd(m, compute_uv=False) ** 2 for m in matrices]

    def error(ranks):
        return sum(v[r:].sum() for v, r in zip(values, ranks, strict=True))

    ranks = [r[0] for r in found.values()]
    most = math.floor(432 / 2 / 24)
    assert sum(ranks) == most
    every = [r for r in itertools.product(range(1, 7), repeat=3) if sum(r) <= most]
    assert error(ranks) == pytest.approx(min(map(error, every)))
    assert error(ranks) < 0.7 * error([3, 3, 3])


@pytest.mark.parametrize("method", ["svd", "activation", "tensor_train"])
def test_the_model_keeps_within_its_budget(classifier, corpus, make_tokenizer, batch, method):
    measured = {"method": method, "embeddings": True}
    if method == "activation":
        measured |= {"calibrate": corpus, "tokenizer": make_tokenizer()}
    last = math.inf
    for budget in (0.5, 0.7, 0.9):
        low = factorize(classifier, budget=budget, **measured)
        what = low.config.compression
        share = what["parameters_of_matrices"] / what["parameters_of_matrices_before"]
        assert budget - 0.03 < share <= budget
        left = sum(classifier.get_parameter(name).numel() for name in what["left"])
        count = 0
        for name in what["matrices"]:
            bias = getattr(module_of(classifier, name), "bias", None)
            parameters = sum(p.numel() for p in module_of(low, name).parameters())
            count += parameters - (0 if bias is None else bias.numel())
        assert count + left == what["parameters_of_matrices"]
        whole = sum(p.numel() for p in classifier.parameters()) - what["parameters_of_matrices_before"]
        assert sum(p.numel() for p in low.parameters()) == whole + what["parameters_of_matrices"]
        error = float((states(low, batch) - states(classifier, batch)).norm())
        assert error < last
        last = error


def test_a_budget_too_small_for_rank_one(classifier):
    with pytest.raises(InputError, match=r"budget=0.01: rank 1 in every matrix takes 1[0-9]\.\d% of the parameters"):
        factorize(classifier, budget=0.01)


def unfoldings(matrix, rows, columns):
    """The matrix by its digits, cut after each core, in float64."""
    count = len(rows)
    order = [axis for k in range(count) for axis in (k, count + k)]
    digits = np.asarray(matrix, float).reshape(*rows, *columns).transpose(order)
    return [digits.reshape(math.prod(digits.shape[: 2 * k]), -1) for k in range(1, count)]


def test_a_budget_of_trains_adds_where_a_matrix_discards_most():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 20))
    part = TensorTrain(plain(values))
    ranks = ranks_by_budget({"a": part}, 0.5, shares=False)["a"]
    spectra = [np.linalg.svd(u, compute_uv=False) ** 2 for u in unfoldings(values, part.rows, part.columns)]
    expected = [1, 1]

    def parameters(ranks):
        return sum(s * a * b for s, a, b in zip(part.sizes, [1, *ranks], [*ranks, 1], strict=True))

    while True:
        cut = int(np.argmax([spectrum[r:].sum() for spectrum, r in zip(spectra, expected, strict=True)]))
        larger = [rank + (k == cut) for k, rank in enumerate(expected)]
        if parameters(larger) > 120:
            break
        expected = larger
    assert ranks == expected
    assert parameters(ranks) <= 120
