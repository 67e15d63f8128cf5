"""Factorisation: nearest of its rank, by energy, by budget, on texts, as tensor trains; and what is kept of it."""

import copy
import itertools
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import probes
from compress.costs import footprint
from compress.factorization.budget import ranks_by_budget
from compress.factorization.factorize import factorize
from compress.factorization.factors import Matrix, free_matrices, put_factors
from compress.factorization.low_rank import LowRank
from compress.factorization.moments import second_moments
from compress.factorization.tensor_train import TensorTrain, balanced, filled_sizes, tensor_train
from compress.matrices import block_matrices
from compress.objectives.labels import CrossEntropy
from compress.pruning.prune import prune
from compress.quantization.quantize import quantize
from compress.saving import save
from compress.training.loop import train
from probes.errors import InputError, LayerscopeWarning
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.factorized import LowRankEmbedding, LowRankLinear, TensorTrainEmbedding, TensorTrainLinear

FAMILIES = ["BertForSequenceClassification", "RobertaModel", "DistilBertModel", "GPT2LMHeadModel", "LlamaModel"]
QUERY = "bert.encoder.layer.1.attention.self.query.weight"
DENSE = "bert.encoder.layer.1.output.dense.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def states(model, batch):
    with torch.no_grad():
        return torch.stack(model(**batch, output_hidden_states=True).hidden_states)


def module_of(model, name):
    return model.get_submodule(name.removesuffix(".weight"))


def plain(values):
    """A matrix on its own, as `LowRank` and `TensorTrain` take it."""
    return Matrix(nn.Linear(1, 1), "", torch.as_tensor(values))


@pytest.fixture
def batch(make_tokenizer):
    return dict(make_tokenizer()(["the cat sat on mat", "a dog", "but then he"], return_tensors="pt", padding=True))


@pytest.fixture
def corpus():
    rng = np.random.default_rng(0)
    words = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}
    rows = [
        {
            "id": i,
            "language": "en",
            "text": " ".join(rng.permutation(words["xyz"[i % 3]].split())[: 1 + i % 5]),
            "label": "xyz"[i % 3],
        }
        for i in range(40)
    ]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def classifier(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    return model


# --- at full rank, and at a planted one ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES, "T5Model"])
@pytest.mark.parametrize("method", ["svd", "tensor_train"])
def test_at_full_rank_every_state_is_that_of_the_original(tiny_models, batch, family, method):
    model = tiny_models(family)
    embeddings = family not in ("GPT2LMHeadModel", "T5Model")  # tied
    batch = batch | ({"decoder_input_ids": batch["input_ids"]} if family == "T5Model" else {})
    whole = copy.deepcopy(model)
    matrices = free_matrices(whole, None, embeddings)
    parts = {n: TensorTrain(m) if method == "tensor_train" else LowRank(m, None) for n, m in matrices.items()}
    put_factors(whole, matrices, {name: part.cut(part.full()) for name, part in parts.items()})
    kinds = (TensorTrainLinear, TensorTrainEmbedding) if method == "tensor_train" else (LowRankLinear, LowRankEmbedding)
    assert sum(isinstance(m, kinds) for m in whole.modules()) == len(block_matrices(model)) + embeddings
    with torch.no_grad():
        before, after = (m(**batch, output_hidden_states=True, return_dict=True) for m in (model, whole))
    for key in ("last_hidden_state", "logits"):
        if key in before:
            torch.testing.assert_close(after[key], before[key], atol=1e-5, rtol=1e-5)
    for key in ("hidden_states", "encoder_hidden_states", "decoder_hidden_states"):
        for one, other in zip(before.get(key) or (), after.get(key) or (), strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    # One component less is seen.
    fewer = copy.deepcopy(model)
    matrices = free_matrices(fewer, None, False)
    ranks = {name: [max(1, full - 3) for full in parts[name].full()] for name in matrices}
    put_factors(fewer, matrices, {name: parts[name].cut(ranks[name]) for name in matrices})
    with torch.no_grad():
        less = fewer(**batch, return_dict=True)[0]
    assert (less - before[0]).abs().max() > 1e-3


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


# --- truncated singular values ---------------------------------------------------------------------------------------


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


def test_what_would_grow_is_left_as_it_is(classifier, batch):
    low = factorize(classifier, rank=7)  # 12 x 12: up to 6; 12 x 20: up to 7
    what = low.config.compression
    assert all(("dense" in n) != ("attention" in n) for n in what["matrices"])
    assert {n.split(".")[-3] for n in what["left"]} == {"self", "output"}
    assert len(what["left"]) == 12
    assert sum(isinstance(m, LowRankLinear) for m in low.modules()) == 6
    with pytest.warns(LayerscopeWarning, match="rank=12: in factors each of the 18 matrices would need more"):
        nothing = factorize(classifier, rank=12)
    assert same(weights(nothing), weights(classifier))
    assert not hasattr(nothing.config, "factorized")
    assert nothing.config.compression["matrices"] == {}


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


# --- by a budget -----------------------------------------------------------------------------------------------------


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


# --- on texts --------------------------------------------------------------------------------------------------------


def inputs_of(model, name, corpus, tokenizer):
    """What a matrix is multiplied with, text by text, without padding: (token, input) in float64."""
    seen = []
    module = model.get_submodule(name.removesuffix(".weight"))
    handle = module.register_forward_pre_hook(lambda _, x: seen.append(x[0][0]))
    with torch.no_grad():
        for text in corpus["text"]:
            model(**tokenizer(text, return_tensors="pt"))
    handle.remove()
    return torch.cat(seen).double().numpy()


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


def test_the_second_moment_is_that_of_all_tokens_but_padding(classifier, corpus, make_tokenizer):
    tokenizer = make_tokenizer()
    before = weights(classifier)
    matrices = free_matrices(classifier, None, True)
    found = second_moments(classifier.train(), matrices, corpus, tokenizer)
    assert classifier.training
    assert same(weights(classifier), before)
    assert not any(m._forward_pre_hooks for m in classifier.modules())
    classifier.eval()
    for name in (QUERY, DENSE):
        x = inputs_of(classifier, name, corpus, tokenizer)
        np.testing.assert_allclose(found[name].numpy(), x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    tokens = np.concatenate([tokenizer(text)["input_ids"] for text in corpus["text"]])
    counts = np.bincount(tokens, minlength=len(found[WORDS]))
    np.testing.assert_allclose(found[WORDS].numpy(), counts / len(tokens), atol=1e-12)


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


# --- tensor trains ---------------------------------------------------------------------------------------------------


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


# --- what becomes of it ----------------------------------------------------------------------------------------------

HOW = [
    {"rank": 4},
    {"budget": 0.6, "method": "tensor_train", "embeddings": True},
    {"energy": 0.7, "embeddings": True},
]


@pytest.mark.parametrize("asked", HOW)
def test_it_saves_and_loads_bit_for_bit(classifier, make_tokenizer, batch, tmp_path, asked):
    low = factorize(classifier, **asked)
    folder = save(low, tmp_path / "low", make_tokenizer())
    written = json.loads((folder / "compression.json").read_text(encoding="utf-8"))
    assert written == low.config.compression
    loaded, _ = probes.load_checkpoint(folder)
    assert same(weights(loaded), weights(low))
    assert torch.equal(states(loaded, batch), states(low, batch))
    assert loaded.config.compression == low.config.compression


@pytest.mark.parametrize("asked", HOW)
def test_it_trains(classifier, corpus, make_tokenizer, asked):
    low = factorize(classifier, **asked)
    before = weights(low)
    history = train(
        low,
        make_tokenizer(),
        corpus,
        objective=[CrossEntropy()],
        steps=12,
        batch_size=8,
        learning_rate=3e-3,
        progress=False,
    )
    assert history["loss"].iloc[-3:].mean() < history["loss"].iloc[:3].mean()
    for name in low.config.compression["matrices"]:
        for key, parameter in module_of(low, name).named_parameters():
            assert not torch.equal(parameter, before[f"{name.removesuffix('.weight')}.{key}"])


@pytest.mark.parametrize("asked", HOW)
def test_it_quantises_and_prunes(classifier, corpus, make_tokenizer, batch, tmp_path, asked):
    low = factorize(classifier, **asked | ({"embeddings": False} if asked.get("method") else {}))
    found = block_matrices(low)
    inside = [n for n in low.config.compression["matrices"] if n != WORDS]
    for name in inside:
        parts = [k for k in found if k.startswith(name.removesuffix("weight"))]
        assert len(parts) == (3 if asked.get("method") else 2)
    quantized = quantize(low, bits=8, calibrate=corpus, tokenizer=make_tokenizer())
    assert quantized.config.compression["quantized"] == sorted(found)
    off = (states(quantized, batch) - states(low, batch)).abs().max()
    assert 0 < off < 0.3
    loaded, _ = probes.load_checkpoint(save(quantized, tmp_path / "quantized", make_tokenizer()))
    assert torch.equal(states(loaded, batch), states(quantized, batch))
    pruned = prune(low, sparsity=0.5)
    assert all(int((w == 0).sum()) == round(0.5 * w.numel()) for w in block_matrices(pruned).values())


@pytest.mark.parametrize("asked", HOW)
def test_it_is_captured_like_any_other(classifier, corpus, make_tokenizer, asked):
    low, tokenizer = factorize(classifier, **asked), make_tokenizer()
    reps = probes.capture(low, tokenizer, corpus, progress=False)
    for row in (0, 7, 39):
        inputs = tokenizer(corpus[row]["text"], return_tensors="pt")
        expected = states(low, dict(inputs))[:, 0, 1:-1].mean(1)  # but for the special tokens
        np.testing.assert_allclose(reps["hidden"].values[:, row], expected.numpy(), atol=1e-5)
    assert probes.module_error(classifier, low, tokenizer, corpus, draws=10, progress=False).value.notnull().any()
    cost = footprint(low, classifier)
    assert cost.loc["model", "parameters"] == low.config.compression["parameters"]


def test_only_some_matrices_and_one_after_another(classifier, batch):
    low = factorize(classifier, rank=3, only=r"layer\.1\..*query")
    assert list(low.config.compression["matrices"]) == [QUERY]
    after = weights(low)
    assert all(torch.equal(v, after[k]) for k, v in weights(classifier).items() if k in after)
    assert set(weights(classifier)) - set(after) == {QUERY, QUERY.replace("weight", "bias")}
    both = factorize(low, rank=2, method="tensor_train")
    assert len(both.config.factorized) == 18
    assert both.config.compression["before"] == low.config.compression
    assert both.config.compression["parent"] == weights_fingerprint(low)
    assert torch.equal(module_of(both, QUERY).weight, module_of(low, QUERY).weight)
    at_once = factorize(classifier, rank=2, method="tensor_train")
    assert torch.equal(module_of(both, DENSE).weight, module_of(at_once, DENSE).weight)
    with pytest.raises(InputError, match="all matrices inside its blocks are in factors already"):
        factorize(both, rank=2)


def test_inputs_that_were_rounded_still_are(classifier, batch):
    quantized = quantize(classifier, bits=8, activation_bits=2)
    low = factorize(quantized, rank=4)
    assert low.config.quantized_inputs == quantized.config.quantized_inputs
    without = copy.deepcopy(low)
    del without.config.quantized_inputs
    probes.models.formats.quantized_inputs.apply_quantized_inputs(without)
    assert not torch.equal(states(low, batch), states(without, batch))


def test_what_is_frozen_stays_so_and_random_numbers_are_not_touched(classifier):
    for parameter in classifier.bert.parameters():
        parameter.requires_grad_(False)
    state = torch.get_rng_state()
    low = factorize(classifier, rank=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad for p in low.bert.parameters())
    assert same(weights(factorize(classifier, rank=3)), weights(low))
    half = factorize(classifier.to(torch.bfloat16), rank=3)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_a_rank_of_numpy_is_saved(classifier, make_tokenizer, tmp_path):
    low = factorize(classifier, rank=np.int64(2))
    loaded, _ = probes.load_checkpoint(save(low, tmp_path / "out", make_tokenizer()))
    assert same(weights(loaded), weights(factorize(classifier, rank=2)))
    assert loaded.config.compression["rank"] == 2


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected exactly one of rank, energy and budget, found none"),
        ({"rank": 2, "energy": 0.5}, "expected exactly one of rank, energy and budget, found rank=2 and energy=0.5"),
        ({"rank": 0}, "rank=0: expected a whole number of at least 1"),
        ({"rank": 2.5}, "rank=2.5: expected a whole number of at least 1"),
        ({"rank": True}, "rank=True: expected a whole number of at least 1"),
        ({"rank": 13}, "layer.0.attention.self.query.weight, 12 x 12, has at most 12. Ask for less"),
        ({"rank": 37, "method": "tensor_train"}, "query.weight, 12 x 12, has at most 6. Ask for less"),
        ({"energy": 0}, "energy=0: expected a number above 0 and at most 1, the share of the squared singular values"),
        ({"energy": 1.1}, "energy=1.1: expected a number above 0 and at most 1"),
        ({"energy": math.nan}, "energy=nan: expected a number above 0 and at most 1"),
        ({"budget": 0.0}, "budget=0.0: expected a number above 0 and at most 1, the share of the parameters kept"),
        ({"budget": 2}, "budget=2: expected a number above 0 and at most 1"),
        ({"budget": "half"}, "budget='half': expected a number above 0 and at most 1"),
        ({"rank": 2, "method": "cp"}, "method='cp' is not known; choose one of 'svd', 'activation', 'tensor_train'"),
        ({"rank": 2, "only": "nothing"}, "only='nothing' finds none of the matrices; they are bert.encoder.layer.0"),
        ({"rank": 2, "method": "activation"}, "method='activation' looks at text: give calibrate=..., a corpus, and"),
        ({"rank": 2, "method": "activation", "calibrate": "corpus"}, "calibrate=... looks at text: give tokenizer="),
        ({"rank": 2, "calibrate": "corpus"}, "calibrate=... is looked at by method='activation', not by 'svd'"),
        ({"rank": 2, "method": "activation", "calibrate": "empty", "tokenizer": True}, "found one of no rows"),
    ],
)
def test_bad_settings(classifier, corpus, make_tokenizer, settings, message):
    given = {"corpus": corpus, "empty": corpus.select([])}
    settings = {k: given.get(v, v) if k == "calibrate" else v for k, v in settings.items()}
    if "tokenizer" in settings:
        settings["tokenizer"] = make_tokenizer()
    with pytest.raises(InputError) as error:
        factorize(classifier, **settings)
    assert message in str(error.value)


def test_bad_models(tiny_models, classifier, corpus, make_tokenizer):
    with pytest.raises(InputError, match="expected a model of transformers, found Linear"):
        factorize(nn.Linear(2, 2), rank=1)
    broken = copy.deepcopy(classifier)
    with torch.no_grad():
        broken.get_parameter(QUERY)[3, 4] = math.nan
    with pytest.raises(InputError, match=rf"{re.escape(QUERY)}: row 3 holds nan; 1 of its 144 values are NaN or"):
        factorize(broken, rank=2)
    factorize(broken, rank=2, only="key")  # the others may be
    for family in ("GPT2LMHeadModel", "T5Model"):
        with pytest.raises(InputError, match=r"is one with .* Leave out embeddings=True"):
            factorize(tiny_models(family), rank=2, embeddings=True)
    shared = copy.deepcopy(classifier)
    shared.bert.encoder.layer[1].output.dense.weight = shared.bert.encoder.layer[0].output.dense.weight
    with pytest.raises(InputError, match=r"is one with .*layer\.1\.output\.dense\.weight, which factors would part"):
        factorize(shared, rank=2)
    low = factorize(classifier, rank=2, embeddings=True)
    with pytest.raises(InputError, match=r"expected one plain torch.nn.Embedding of tokens, found LowRankEmbedding"):
        factorize(low, rank=2, embeddings=True)
    packed = copy.deepcopy(classifier)
    packed.config.quantization_config = {"quant_method": "torchao"}
    with pytest.raises(InputError, match="expected weights that are plain numbers, found quantised ones"):
        factorize(packed, rank=2)
    with pytest.raises(InputError, match=r"calibrate: no text reaches 'decoder\.block\.0"):
        factorize(tiny_models("T5Model"), rank=2, method="activation", calibrate=corpus, tokenizer=make_tokenizer())
    loud = copy.deepcopy(classifier)
    with torch.no_grad():
        loud.bert.embeddings.LayerNorm.weight.fill_(math.inf)
    with pytest.raises(InputError, match="its inputs are not finite"):
        factorize(loud, rank=2, method="activation", calibrate=corpus, tokenizer=make_tokenizer())
    with pytest.raises(InputError, match=r"expected a datasets.Dataset, found list"):
        factorize(classifier, rank=2, method="activation", calibrate=["a text"], tokenizer=make_tokenizer())
