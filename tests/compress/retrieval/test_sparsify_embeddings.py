"""Sparse representations: losses against formulas, the index against brute force, a training from end to end."""

import copy
import itertools
import math
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from stops import Stops
from torch.autograd import gradcheck

import probes
from compress.objectives.base import Pass
from compress.objectives.sparse import SparseActivations, Translations
from compress.retrieval.index import inverted_index, nearest
from compress.retrieval.retrieval_cost import recall, retrieval_cost
from compress.retrieval.sparse_embeddings import sparse_embeddings
from compress.retrieval.sparsify_embeddings import sparsify_embeddings
from compress.rows import training_rows
from compress.saving import save
from probes.errors import InputError, LayerscopeWarning
from probes.models.formats.sparse_embeddings import SparseHead

NOUNS, VERBS, PLACES = (x.split() for x in ("dog cat bird he", "sat ran sang", "mat tree house"))


def a_corpus(languages=("one", "two"), **columns):
    """Sentences in made-up languages: the same words in another order, with another article."""
    rows = []
    for i, (noun, verb, place) in enumerate(itertools.product(NOUNS, VERBS, PLACES)):
        for language in languages:
            words = [noun, verb, "on", place] if language == "one" else ["the", place, "under", verb, noun]
            rows.append({"id": f"s{i}", "language": language, "text": " ".join(words), **columns})
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def trained(tiny_models, make_tokenizer):
    """Models with and without a regulariser, of one seed."""
    model, tokenizer = tiny_models("BertForSequenceClassification"), make_tokenizer()
    how = {"train": a_corpus(label="x"), "tokenizer": tokenizer, "steps": 30, "features": 64, "progress": False}
    how |= {"learning_rate": 5e-3, "batch_size": 16}
    before = copy.deepcopy(model.state_dict())
    made = {weight: sparsify_embeddings(model, flops=weight, **how) for weight in (0.0, 20.0)}
    assert not hasattr(model, "sparse_head")
    assert not hasattr(model.config, "sparse_embeddings")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return model, tokenizer, made


def vectors_of(seed, texts=30, features=8, chances=None):
    rng = np.random.default_rng(seed)
    x = rng.random((texts, features)) * (rng.random((texts, features)) < (0.4 if chances is None else chances))
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


# The losses


def test_flops_and_l1_are_their_formulas_with_their_gradients():
    f = torch.tensor(np.random.default_rng(0).standard_normal((5, 7)), requires_grad=True)
    x = f.detach().numpy()
    a = np.array([sum(abs(x[i, j]) for i in range(5)) / 5 for j in range(7)])
    flops, l1 = SparseActivations(), SparseActivations(form="l1")
    assert flops.of(f).item() == pytest.approx(sum(v**2 for v in a), rel=1e-12)
    assert l1.of(f).item() == pytest.approx(sum(a), rel=1e-12)
    (gradient,) = torch.autograd.grad(flops.of(f), f)
    np.testing.assert_allclose(gradient.numpy(), 2 * a[None] * np.sign(x) / 5, rtol=1e-12)
    assert gradcheck(flops.of, f)
    (gradient,) = torch.autograd.grad(l1.of(f), f)
    np.testing.assert_allclose(gradient.numpy(), np.sign(x) / 5, rtol=1e-12)


def test_at_equal_l1_flops_punishes_mass_in_one_feature_and_l1_does_not():
    one = torch.zeros(64, 64)
    one[:, 0] = 1
    spread = torch.eye(64)
    flops, l1 = SparseActivations(), SparseActivations(form="l1")
    assert float(flops.of(one)) == 1
    assert float(flops.of(spread)) == pytest.approx(1 / 64)
    assert float(l1.of(one)) == float(l1.of(spread)) == 1


def head_and_batch(features=6, texts=4, width=12):
    """A model that only has a head, states with padding, and the vectors by hand, in float64."""
    torch.manual_seed(0)
    head = SparseHead(width, features).double()
    model = torch.nn.Module()
    model.sparse_head = head
    states = torch.randn(texts, 3, width, dtype=torch.float64)
    mask = torch.ones(texts, 3, dtype=torch.long)
    mask[1, 2:] = mask[2, 1:] = 0
    states[1, 2] = math.nan  # padding
    weight, bias = (p.detach().numpy() for p in (head.linear.weight, head.linear.bias))
    vectors = []
    for x, m in zip(states.numpy(), mask.numpy(), strict=True):
        z = np.maximum(weight @ x[m == 1].mean(0) + bias, 0)
        vectors.append(z / np.linalg.norm(z))
    return Pass(model, None, hidden_states=(states,)), {"attention_mask": mask}, np.array(vectors)


def test_the_objective_reads_the_head_without_padding_and_its_weight_rises_by_the_square():
    student, batch, vectors = head_and_batch()
    objective = SparseActivations(3.0, ramp=4)
    batch["modules"] = {"flops": objective.prepare(student.model, None, [], 0)}
    whole = 3 * (np.abs(vectors).mean(0) ** 2).sum()
    found = [objective(student, None, batch).item() for _ in range(6)]
    np.testing.assert_allclose(found, [whole * min(1, (t / 4) ** 2) for t in range(1, 7)], rtol=1e-12)
    steady = SparseActivations(3.0)
    batch["modules"] = {"flops": steady.prepare(student.model, None, [], 0)}
    assert steady(student, None, batch).item() == pytest.approx(whole)


def test_the_contrastive_loss_is_its_formula(tiny_models, make_tokenizer):
    model, tokenizer, corpus = tiny_models("BertModel"), make_tokenizer(), a_corpus()
    model.sparse_head = SparseHead(12, 24)
    rows, _ = training_rows(corpus, model, tokenizer)
    ids = corpus["id"][:]
    objective = Translations(ids, tokenizer, temperature=0.5, weight=2.0)
    index = [0, 1, 6, 9, 20]  # 0 and 1 are translations of each other
    modules = {objective.name: objective.prepare(model, None, rows, 3)}

    def vector(row):
        given = tokenizer([corpus[row]["text"]], return_tensors="pt")
        with torch.no_grad():
            z = model.sparse_head.linear(model(**given).last_hidden_state.mean(1))[0].clamp_min(0).double().numpy()
        return z / np.linalg.norm(z)

    given = tokenizer([corpus[i]["text"] for i in index], return_tensors="pt", padding=True)
    with torch.no_grad():
        states = model(**given, output_hidden_states=True).hidden_states
        batch = {"attention_mask": given["attention_mask"], "index": torch.tensor(index), "modules": modules}
        found = float(objective(Pass(model, None, hidden_states=states), None, batch))
    u = np.array([vector(i) for i in index])
    v = np.array([vector(i + 1 if i % 2 == 0 else i - 1) for i in index])  # the one translation there is
    total = 0.0
    for i in range(5):
        others = [j for j in range(5) if j == i or ids[index[j]] != ids[index[i]]]
        there, back = ([math.exp(float(s) / 0.5) for s in x] for x in (u[i] @ v[others].T, u[others] @ v[i]))
        total -= (math.log(there[others.index(i)] / sum(there)) + math.log(back[others.index(i)] / sum(back))) / 2
    assert found == pytest.approx(2 * total / 5, rel=1e-5)


def test_translations_are_drawn_of_the_same_sentence_all_alike_and_by_the_seed_and_batch_alone():
    ids = ["a", "b", "a", "c", "b", "a", "c", "a"]
    objective = Translations(ids, tokenizer=None)
    pairs = objective.prepare(None, None, [{"input_ids": [1]}] * 8, seed=0)
    drawn = np.array([pairs.draw(np.arange(8)) for _ in range(900)])
    for row, column in enumerate(drawn.T):
        others = [i for i in range(8) if i != row and ids[i] == ids[row]]
        counts = [int((column == i).sum()) for i in others]
        assert sum(counts) == 900  # never itself, never another sentence
        assert min(counts) > 0.8 * 900 / len(others)
    again = objective.prepare(None, None, [{"input_ids": [1]}] * 8, seed=0)
    again.load_state_dict({"batches": torch.tensor(500)})
    assert (again.draw(np.arange(8)) == drawn[500]).all()
    with pytest.raises(InputError, match=r"expected every id at least twice.*found 2 ids in 3 rows"):
        Translations(["a", "a", "b"], tokenizer=None)
    with pytest.raises(InputError, match="8 ids and 7 rows"):
        objective.prepare(None, None, [{}] * 7, seed=0)


# What it costs


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


# The index


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


def test_recall_counts_queries():
    found = np.array([[3, 1], [2, -1], [0, 2]])
    assert recall(found, np.array([1, 2, 1]), 1) == pytest.approx(1 / 3)
    assert recall(found, np.array([1, 2, 1]), 2) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="k=3: expected a whole number from 1 to 2"):
        recall(found, np.array([1, 2, 1]), 3)
    with pytest.raises(InputError, match="one wanted text a query"):
        recall(found, np.array([1, 2]), 1)


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


# The whole of it


def test_vectors_are_those_of_the_mean_states_of_capture_whatever_the_batch(trained):
    _, tokenizer, made = trained
    corpus, sparse = a_corpus(), made[20.0]
    vectors = sparse_embeddings(sparse, tokenizer, corpus, progress=False)
    assert isinstance(vectors, scipy.sparse.csr_array)
    assert vectors.dtype == np.float32
    states = probes.capture(sparse, tokenizer, corpus, pooling="mean_all", progress=False).hidden.values[-1]
    linear = sparse.sparse_head.linear
    weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
    z = np.maximum(states.astype(float) @ weight.T + bias, 0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors.toarray(), z, atol=2e-5)
    for size in (1, 7):
        again = sparse_embeddings(sparse, tokenizer, corpus, batch_size=size, progress=False)
        np.testing.assert_allclose(again.toarray(), vectors.toarray(), atol=2e-5)


def test_the_regulariser_makes_vectors_sparser_and_without_it_they_are_not(trained):
    model, tokenizer, made = trained
    costs = {}
    for weight, sparse in made.items():
        vectors = sparse_embeddings(sparse, tokenizer, a_corpus(), progress=False)
        costs[weight] = retrieval_cost(vectors)
        rows, _ = nearest(vectors[::2], inverted_index(vectors[1::2]), k=3)
        assert recall(rows, np.arange(36), 1) > 0.8  # translations are found: chance is 1 / 36
    assert costs[0.0]["nonzeros"] > 1.3 * costs[20.0]["nonzeros"]
    assert costs[0.0]["flops"] > 1.8 * costs[20.0]["flops"]
    done = made[20.0].config.compression
    assert done["method"] == "sparsify_embeddings"
    assert (done["flops"], done["features"], done["steps"], done["ramp"]) == (20.0, 64, 30, 15)
    assert (done["texts"], done["texts_left_out"]) == (72, 0)
    assert done["cost"] == pytest.approx(costs[20.0], rel=1e-4)  # all texts are fewer than those it is measured on
    assert list(made[20.0].history) == ["step", "translations", "flops", "loss"]
    assert list(made[0.0].history) == ["step", "translations", "loss"]
    assert made[20.0].training == model.training
    assert not made[20.0]._forward_hooks


@pytest.mark.parametrize("packed", [False, True])
def test_it_is_saved_and_loaded_with_the_same_vectors(trained, tmp_path, packed):
    _, tokenizer, made = trained
    out = save(made[20.0], tmp_path / "sparse", tokenizer, packed=packed)
    back, tokens = probes.load_checkpoint(out)
    assert type(back) is type(made[20.0])
    expected, found = (
        sparse_embeddings(m, t, a_corpus(), progress=False) for m, t in ((made[20.0], tokenizer), (back, tokens))
    )
    assert (expected != found).nnz == 0
    assert (out / "compression.json").is_file()
    assert probes.models.fingerprint.weights_fingerprint(back) == probes.models.fingerprint.weights_fingerprint(
        made[20.0]
    )


def test_rows_without_a_translation_are_left_out_and_rows_of_other_splits(tiny_models, make_tokenizer):
    frame = a_corpus(split="train").to_pandas()
    frame.loc[4:5, "split"] = "test"
    frame = frame.drop(index=[0, 3])
    how = {"tokenizer": make_tokenizer(), "steps": 1, "features": 24, "progress": False}
    done = sparsify_embeddings(tiny_models("BertModel"), train=probes.load_corpus(frame), **how).config.compression
    assert (done["texts"], done["texts_left_out"]) == (66, 2)


@pytest.mark.parametrize(
    "architecture", ["BertModel", "DistilBertModel", "RobertaModel", "GPT2LMHeadModel", "LlamaModel"]
)
def test_other_architectures_are_trained_saved_and_loaded(architecture, tiny_models, make_tokenizer, tmp_path):
    # Of RoBERTa the padding says where positions begin, and training takes over the tokenizer's.
    model = tiny_models(architecture, **({"pad_token_id": 0} if architecture == "RobertaModel" else {}))
    tokenizer = make_tokenizer()
    how = {"train": a_corpus(), "tokenizer": tokenizer, "features": 24, "flops": 0.01, "progress": False}
    sparse = sparsify_embeddings(model, steps=2, batch_size=8, **how)
    back, _ = probes.load_checkpoint(save(sparse, tmp_path / "sparse", tokenizer))
    expected, found = (sparse_embeddings(m, tokenizer, a_corpus(), progress=False) for m in (sparse, back))
    assert (expected != found).nnz == 0


def test_an_interrupted_training_ends_as_it_would_have(tiny_models, make_tokenizer, tmp_path):
    model = tiny_models("BertForSequenceClassification")
    how = {"train": a_corpus(), "tokenizer": make_tokenizer(), "steps": 4, "features": 24, "progress": False}
    whole = sparsify_embeddings(model, **how)
    how |= {"folder": tmp_path / "run", "save_every": 2}
    with pytest.raises(KeyboardInterrupt):
        sparsify_embeddings(model, callbacks=[Stops(3)], **how)
    resumed = sparsify_embeddings(model, **how)
    finished = sparsify_embeddings(model, **how)
    for other in (resumed, finished):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in whole.state_dict().items())
        pd.testing.assert_frame_equal(whole.history, other.history)
    with pytest.raises(InputError, match=r"temperature is 0.1 here and was 0.05 there"):
        sparsify_embeddings(model, temperature=0.1, **how)


def test_the_weight_rises_by_updates_also_where_batches_are_accumulated(tiny_models, make_tokenizer):
    how = {"train": a_corpus(), "tokenizer": make_tokenizer(), "steps": 4, "features": 24, "progress": False}
    how |= {"learning_rate": 1e-12, "batch_size": 36, "ramp": 3, "flops": 1.0}
    model = tiny_models("BertModel", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    once = sparsify_embeddings(model, **how).history.flops
    twice = sparsify_embeddings(model, accumulate=2, **how).history.flops
    a = once.iloc[3]
    assert once.iloc[0] == pytest.approx(a / 9, rel=0.1)
    assert once.iloc[1] == pytest.approx(a * 4 / 9, rel=0.1)
    assert twice.iloc[0] == pytest.approx(a * (1 + 4) / 2 / 36, rel=0.1)
    assert twice.iloc[2] == pytest.approx(a * (25 + 36) / 2 / 36, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "features=0: expected a whole number of at least 1"),
        ({"flops": -1.0}, "flops=-1.0: expected a finite number of at least 0"),
        ({"l1": math.nan}, "l1=nan: expected a finite number of at least 0"),
        ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
        ({"ramp": -1}, "ramp=-1: expected a whole number of steps"),
        ({"temperature": 0.0}, "temperature=0.0: expected a finite number above 0"),
        ({"batchsize": 3}, "batchsize=3: no such setting. Did you mean batch_size"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message, tiny_models, make_tokenizer):
    how = {"train": a_corpus(), "tokenizer": make_tokenizer(), "steps": 1} | settings
    with pytest.raises(InputError, match=message):
        sparsify_embeddings(tiny_models("BertModel"), **how)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_models_of_other_precision_give_vectors_of_length_one(dtype, tiny_models, make_tokenizer, tmp_path):
    model, tokenizer = tiny_models("BertModel").to(dtype), make_tokenizer()
    how = {"steps": np.int64(2), "features": np.int64(16), "ramp": np.int64(1), "batch_size": 8, "progress": False}
    sparse = sparsify_embeddings(model, train=a_corpus(), tokenizer=tokenizer, **how)
    assert sparse.sparse_head.linear.weight.dtype == dtype
    vectors = sparse_embeddings(sparse, tokenizer, a_corpus(), progress=False)
    assert np.sqrt((vectors.toarray() ** 2).sum(1)) == pytest.approx(1, abs=1e-6)
    loaded, _ = probes.load_checkpoint(save(sparse, tmp_path / "out", tokenizer))  # all of it is JSON
    assert loaded.config.sparse_embeddings == {"features": 16}
    assert torch.equal(loaded.sparse_head.linear.weight.float(), sparse.sparse_head.linear.weight.float())


def test_a_corpus_without_translations_is_refused(tiny_models, make_tokenizer):
    model, tokenizer = tiny_models("BertModel"), make_tokenizer()
    with pytest.raises(InputError, match=r"36 rows in 1 language\(s\) \(one\) and no id in two of them"):
        sparsify_embeddings(model, train=a_corpus(["one"]), tokenizer=tokenizer, steps=1)
    frame = a_corpus().to_pandas()
    frame["id"] = [f"s{i}" for i in range(len(frame))]
    with pytest.raises(InputError, match=r"72 rows in 2 language\(s\) \(one, two\) and no id in two of them"):
        sparsify_embeddings(model, train=probes.load_corpus(frame), tokenizer=tokenizer, steps=1)
    with pytest.raises(InputError, match="only one sentence has translations"):
        sparsify_embeddings(model, train=a_corpus().select([0, 1, 2]), tokenizer=tokenizer, steps=1)
    with pytest.raises(InputError, match="expected at least one row"):
        sparsify_embeddings(model, train=a_corpus().select([]), tokenizer=tokenizer, steps=1)


def test_models_that_cannot_be_taken_are_refused(trained, tiny_models, make_tokenizer):
    model, tokenizer, made = trained
    how = {"train": a_corpus(), "tokenizer": tokenizer, "steps": 1}
    with pytest.raises(InputError, match="is an encoder-decoder"):
        sparsify_embeddings(tiny_models("T5Model"), **how)
    with pytest.raises(InputError, match="has a sparse head already"):
        sparsify_embeddings(made[20.0], **how)
    with pytest.raises(InputError, match=r"has no sparse head: expected a model of compress.sparsify_embeddings"):
        sparse_embeddings(model, tokenizer, a_corpus())


def test_a_dead_head_is_named_and_zero_vectors_are_counted(trained):
    _, tokenizer, made = trained
    dead = copy.deepcopy(made[20.0])
    linear = dead.sparse_head.linear
    with torch.no_grad():
        linear.bias.fill_(-1e6)
    with pytest.raises(
        InputError, match=r"the vectors of all 72 texts are zero: the head is dead. Train it again with"
    ):
        sparse_embeddings(dead, tokenizer, a_corpus(), progress=False)
    states = probes.capture(dead, tokenizer, a_corpus(), pooling="mean_all", progress=False).hidden.values[-1]
    with torch.no_grad():  # only the text that is furthest along some direction is left
        linear.weight.copy_(torch.tensor(states[:1]).expand_as(linear.weight))
        best = np.sort(states @ states[0])
        linear.bias.fill_(-float(best[-1] + best[-2]) / 2)
    with pytest.warns(LayerscopeWarning, match="the vectors of 71 of 72 texts are zero"):
        vectors = sparse_embeddings(dead, tokenizer, a_corpus(), progress=False)
    assert (np.diff(vectors.indptr) > 0).sum() == 1
    with torch.no_grad():
        assert not torch.isnan(dead.sparse_head(torch.zeros(1, 12))).any()


def test_a_folder_without_the_weights_of_its_head_is_refused(trained, tmp_path):
    model, tokenizer, made = trained
    out, bare = save(made[20.0], tmp_path / "sparse", tokenizer), save(model, tmp_path / "bare", tokenizer)
    shutil.copy(bare / "model.safetensors", out / "model.safetensors")
    with pytest.raises(
        InputError, match=r"weights of the model are missing in the checkpoint: sparse_head.linear.bias"
    ):
        probes.load_checkpoint(out)
