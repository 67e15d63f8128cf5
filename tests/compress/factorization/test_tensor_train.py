"""Tensor trains: planted, within the bound, by energy; sizes of cores."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from factored import FAMILIES, module_of, states

from compress.factorization.factorize import factorize
from compress.factorization.tensor_train import balanced, filled_sizes, tensor_train
from compress.matrices import block_matrices


def test_a_matrix_that_is_a_kronecker_product_is_a_tensor_train_of_rank_one(classifier, batch):
    model = copy.deepcopy(classifier)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for weight in block_matrices(model).values():
            sizes = zip(balanced(len(weight)), balanced(weight.shape[1])[::-1], strict=True)
            parts = [rng.normal(size=size) for size in sizes]
            made = np.kron(np.kron(parts[0], parts[1]), parts[2])
            weight.copy_(torch.from_numpy(made / np.linalg.norm(made)))
    low = factorize(model, rank=1, method="tensor_train")
    for about in low.config.compression["matrices"].values():
        assert about["rank"] == [1, 1]
        assert about["relative_error"] < 1e-6
    torch.testing.assert_close(states(low, batch), states(model, batch), atol=1e-5, rtol=1e-5)
    errors = factorize(classifier, rank=1, method="tensor_train").config.compression["matrices"].values()
    assert min(m["relative_error"] for m in errors) > 0.3


def unfoldings(matrix, rows, columns):
    """The matrix by its digits, cut after each core, in float64."""
    count = len(rows)
    order = [axis for k in range(count) for axis in (k, count + k)]
    digits = np.asarray(matrix, float).reshape(*rows, *columns).transpose(order)
    return [digits.reshape(math.prod(digits.shape[: 2 * k]), -1) for k in range(1, count)]


@pytest.mark.parametrize("ranks", [(1, 1), (3, 5), (4, 4), (6, 12), (2, 30)])
def test_the_error_of_a_train_is_below_the_bound_of_what_was_discarded(ranks):
    rng = np.random.default_rng(0)
    rows, columns = (2, 3, 4), (3, 2, 5)
    matrix = torch.from_numpy(rng.normal(size=(24, 30)))
    cores, lost = tensor_train(matrix, rows, columns, ranks=ranks)
    made = torch.einsum("xijr,rkls,smny->ikmjln", *cores).reshape(24, 30)
    error = float((matrix - made).norm())
    assert error == pytest.approx(math.sqrt(sum(part**2 for part in lost)), abs=1e-10)
    tails = [
        (np.linalg.svd(u, compute_uv=False)[r:] ** 2).sum()
        for u, r in zip(unfoldings(matrix, rows, columns), ranks, strict=True)
    ]
    assert error <= math.sqrt(sum(tails)) + 1e-10
    assert error >= math.sqrt(max(tails)) - 1e-10  # no train of these ranks is nearer than the nearest at one cut
    assert [core.shape[3] for core in cores[:-1]] == [min(ranks[0], 6), min(ranks[1], 6 * min(ranks[0], 6), 20)]
    norms = [float(core.norm()) for core in cores]
    assert norms == pytest.approx([norms[0]] * 3)
    if ranks == (6, 12):
        assert lost[0] < 1e-12 < lost[1]


@pytest.mark.parametrize("energy", [0.2, 0.5, 0.9, 0.99, 1.0])
def test_a_train_keeps_the_energy_asked_for_and_not_much_more(energy):
    rng = np.random.default_rng(0)
    matrix = torch.from_numpy(rng.normal(size=(24, 30)))
    cores, lost = tensor_train(matrix, (2, 3, 4), (3, 2, 5), energy=energy)
    total = float(matrix.square().sum())
    assert sum(part**2 for part in lost) <= (1 - energy) * total + 1e-9
    # One rank less at the first cut would lose more than the half that it may.
    values = np.linalg.svd(unfoldings(matrix, (2, 3, 4), (3, 2, 5))[0], compute_uv=False)
    rank = cores[0].shape[3]
    assert rank == 1 or (values[rank - 1 :] ** 2).sum() > (1 - energy) * total / 2


@pytest.mark.parametrize("family", [*FAMILIES, "T5Model"])
def test_models_of_tensor_trains(tiny_models, family):
    model = tiny_models(family)
    low = factorize(model, rank=3, method="tensor_train")
    what = low.config.compression
    assert what["matrices"]
    for name, about in what["matrices"].items():
        layer = module_of(low, name)
        matrix = model.get_parameter(name).detach().double()
        matrix = (matrix.T if family.startswith("GPT2") else matrix).numpy()
        assert (math.prod(layer.rows), math.prod(layer.columns)) == matrix.shape
        around = [1, *about["rank"], 1]
        sizes = [layer.rows[k] * layer.columns[k] * around[k] * around[k + 1] for k in range(3)]
        assert about["parameters"] == sum(sizes) <= matrix.size
        assert sum(core.numel() for core in layer.cores()) == sum(sizes)
        made = layer.weight.detach().double().numpy()
        error = np.linalg.norm(matrix - made) / np.linalg.norm(matrix)
        assert about["relative_error"] == pytest.approx(error, rel=1e-4)
        assert about["energy"] == pytest.approx(1 - error**2, abs=1e-4)
        tails = [
            (np.linalg.svd(u, compute_uv=False)[r:] ** 2).sum()
            for u, r in zip(unfoldings(matrix, layer.rows, layer.columns), about["rank"], strict=True)
        ]
        assert np.linalg.norm(matrix - made) <= math.sqrt(sum(tails)) * (1 + 1e-5)


@pytest.mark.parametrize("size", [1, 2, 7, 12, 20, 28, 30, 60, 128, 210])
def test_balanced_against_all_triples(size):
    every = [t for t in itertools.combinations_with_replacement(range(1, size + 1), 3) if math.prod(t) == size]
    least = min(t[2] for t in every)
    assert balanced(size) == max((t for t in every if t[2] == least), key=lambda t: t[0])


def test_tokens_are_filled_up_near_their_cube_root():
    for size in [*range(1, 300), 4096, 30522, 119547, 250002]:
        found = filled_sizes(size)
        assert math.prod(found) >= size
        assert max(found) <= math.ceil(size ** (1 / 3) - 1e-9) < size ** (1 / 3) + 1
        assert math.prod(found) - size <= found[0] * found[1] + found[0] * found[2]
    assert filled_sizes(10_000) == (22, 22, 21)
