"""Low rank: planted ranks, the least error there is, by energy, and over what a matrix is fed."""

import copy
import math

import numpy as np
import pytest
import torch
from factored import FAMILIES, QUERY, WORDS, inputs_of, module_of, plain, states
from trained import same, weights

from compress.factorization.factorize import factorize
from compress.factorization.low_rank import LowRank
from compress.matrices import block_matrices


def planted(model, rank, seed=0):
    """A copy whose matrices, and word embeddings, are of a rank."""
    model = copy.deepcopy(model)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for weight in [*block_matrices(model).values(), model.get_input_embeddings().weight]:
            made = rng.normal(size=(len(weight), rank)) @ rng.normal(size=(rank, weight.shape[1]))
            weight.copy_(torch.from_numpy(made / math.sqrt(weight.shape[1])))
    return model


@pytest.mark.parametrize("method", ["svd", "activation"])
def test_a_planted_rank_is_found_exactly_and_less_is_not_enough(classifier, batch, corpus, make_tokenizer, method):
    model = planted(classifier, 3)
    measured = {"method": method}
    if method == "activation":
        measured |= {"calibrate": corpus, "tokenizer": make_tokenizer()}
    for asked, good in (({"rank": 3}, True), ({"rank": 2}, False), ({"energy": 1 - 1e-10}, True)):
        low = factorize(model, embeddings=True, **asked, **measured)
        what = low.config.compression
        assert len(what["matrices"]) == len(block_matrices(model)) + 1
        assert {m["rank"] for m in what["matrices"].values()} == {2 + good}
        errors = [m["relative_error"] for m in what["matrices"].values()]
        assert max(errors) < 1e-6 if good else min(errors) > 0.05
        off = (states(low, batch) - states(model, batch)).abs().max()
        assert off < 1e-5 if good else off > 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_the_error_is_the_least_there_is_and_the_parameters_are_as_the_formula_says(tiny_models, family):
    model = tiny_models(family)
    before = weights(model)
    low = factorize(model, rank=4)
    assert same(weights(model), before)
    assert not hasattr(model.config, "factorized")
    assert type(low) is type(model)
    what, saved = low.config.compression, 0
    for name, weight in block_matrices(model).items():
        layer = module_of(low, name)
        matrix = weight.detach().double().numpy()
        matrix = matrix.T if family.startswith("GPT2") else matrix
        rows, columns = matrix.shape
        if 4 * (rows + columns) > rows * columns:
            assert name in what["left"]
            assert torch.equal(layer.weight, weight)
            continue
        made = layer.weight.detach().double().numpy()
        values = np.linalg.svd(matrix, compute_uv=False)
        tail = np.sqrt((values[4:] ** 2).sum())
        assert np.linalg.norm(matrix - made) == pytest.approx(tail, rel=1e-5)
        about = what["matrices"][name]
        assert about["rank"] == 4
        assert about["relative_error"] == pytest.approx(tail / np.linalg.norm(matrix), rel=1e-9)
        assert about["energy"] == pytest.approx(1 - (tail / np.linalg.norm(matrix)) ** 2, rel=1e-9)
        assert about["parameters"] == 4 * (rows + columns)
        assert layer.first.weight.numel() + layer.second.weight.numel() == 4 * (rows + columns)
        saved += rows * columns - 4 * (rows + columns)
        old = module_of(model, name).bias
        assert layer.second.bias is None if old is None else torch.equal(layer.second.bias, old)
        # Components of equal norms on both sides.
        norms = layer.first.weight.norm(dim=1), layer.second.weight.norm(dim=0)
        torch.testing.assert_close(*norms, rtol=1e-4, atol=1e-5)
    assert saved > 0
    count = [sum(p.numel() for p in m.parameters()) for m in (model, low)]
    assert count[0] - count[1] == saved
    assert (what["parameters_of_parent"], what["parameters"]) == tuple(count)
    assert what["parameters_of_matrices_before"] - what["parameters_of_matrices"] == saved


@pytest.mark.parametrize("energy", [0.3, 0.6, 0.8])
def test_energy_is_kept_by_the_lowest_rank(classifier, energy):
    low = factorize(classifier, energy=energy, embeddings=True)
    what = low.config.compression
    assert what["energy"] == energy
    ranks = set()
    for name in [*block_matrices(classifier), WORDS]:
        values = np.linalg.svd(classifier.get_parameter(name).detach().double().numpy(), compute_uv=False) ** 2
        rank = next(r for r in range(1, len(values) + 1) if values[:r].sum() >= energy * values.sum())
        shape = classifier.get_parameter(name).shape
        if rank * sum(shape) > math.prod(shape):
            assert name in what["left"]
            continue
        assert what["matrices"][name]["rank"] == rank
        assert what["matrices"][name]["energy"] == pytest.approx(values[:rank].sum() / values.sum(), rel=1e-9)
        ranks.add(rank)
    assert len(ranks) > 1


def test_a_matrix_of_zeros(classifier, batch):
    with torch.no_grad():
        classifier.get_parameter(QUERY).zero_()
    for asked in ({"rank": 2}, {"energy": 0.5}, {"budget": 0.5}):
        for method in ("svd", "tensor_train"):
            low = factorize(classifier, method=method, **asked)
            about = low.config.compression["matrices"][QUERY]
            assert (about["energy"], about["relative_error"]) == (1.0, 0.0)
            assert not module_of(low, QUERY).weight.any()
            assert bool(states(low, batch).isfinite().all())


def test_on_texts_the_outputs_are_the_nearest_there_are(classifier, corpus, make_tokenizer):
    tokenizer = make_tokenizer()
    low = {
        "activation": factorize(classifier, rank=3, method="activation", calibrate=corpus, tokenizer=tokenizer),
        "svd": factorize(classifier, rank=3),
    }
    gains = []
    for name in block_matrices(classifier):
        x = inputs_of(classifier, name, corpus, tokenizer)
        matrix = classifier.get_parameter(name).detach().double().numpy()
        outputs = x @ matrix.T
        tail = (np.linalg.svd(outputs, compute_uv=False)[3:] ** 2).sum()
        errors = {}
        for method, model in low.items():
            made = module_of(model, name).weight.detach().double().numpy()
            errors[method] = ((x @ (matrix - made).T) ** 2).sum()
        assert errors["activation"] == pytest.approx(tail, rel=1e-3)
        assert errors["activation"] <= errors["svd"] * (1 + 1e-9)
        gains.append(errors["svd"] / errors["activation"])
        about = low["activation"].config.compression["matrices"][name]
        assert about["energy"] == pytest.approx(1 - tail / (outputs**2).sum(), abs=1e-4)
        weights_alone = low["svd"].config.compression["matrices"][name]["relative_error"]
        assert about["relative_error"] >= weights_alone * (1 - 1e-9)
    assert np.median(gains) > 1.3


def test_embeddings_on_texts_count_tokens_as_often_as_they_occur(classifier, corpus, make_tokenizer):
    tokenizer = make_tokenizer()
    asked = {"rank": 4, "embeddings": True, "only": "word_embeddings"}
    low = factorize(classifier, method="activation", calibrate=corpus, tokenizer=tokenizer, **asked)
    tokens = np.concatenate([tokenizer(text)["input_ids"] for text in corpus["text"]])
    table = classifier.get_parameter(WORDS).detach().double().numpy()
    tail = (np.linalg.svd(table[tokens], compute_uv=False)[4:] ** 2).sum()

    def error(model):
        with torch.no_grad():
            made = model.get_input_embeddings()(torch.from_numpy(tokens)).double().numpy()
        return ((made - table[tokens]) ** 2).sum()

    assert error(low) == pytest.approx(tail, rel=1e-3)
    assert error(factorize(classifier, **asked)) > 1.05 * tail


@pytest.mark.parametrize("rank", [1, 4, 7])
def test_inputs_that_are_all_alike_change_nothing(rank):
    torch.manual_seed(0)
    values = torch.randn(8, 9)
    one = LowRank(plain(values), None).cut([rank])
    other = LowRank(plain(values), 0.3 * torch.eye(9, dtype=torch.float64)).cut([rank])
    torch.testing.assert_close(one.values[1] @ one.values[0], other.values[1] @ other.values[0])
    # Inputs of few directions: these are right, and the rest is what the ridge makes of it.
    x = torch.randn(2, 9, dtype=torch.float64)
    first, second = LowRank(plain(values), x.T @ x / 2).cut([2]).values
    torch.testing.assert_close(second @ first @ x.T, values.double() @ x.T, atol=1e-3, rtol=1e-3)
