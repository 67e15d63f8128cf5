"""Word mover's distance against linear programming, its lower bound, and random features of its kernel."""

import sys

import numpy as np
import pytest
from capturing import capture, make_corpus
from scipy.optimize import linprog

import probes
from probes.states.movers import all_distances, bags_of, costs, movers_distance, relaxed


def by_linear_program(cost, a, b):
    rows, columns = cost.shape
    equal = np.zeros((rows + columns, rows * columns))
    for i in range(rows):
        equal[i, i * columns : (i + 1) * columns] = 1
    for j in range(columns):
        equal[rows + j, j::columns] = 1
    return linprog(cost.ravel(), A_eq=equal, b_eq=np.concatenate([a, b]), method="highs").fun


def texts(rng, counts, features=5, weighted=True):
    n = int(np.sum(counts))
    weights = rng.uniform(0.2, 3, n) if weighted else None
    return bags_of(rng.normal(size=(n, features)), np.array(counts), weights)


def test_the_distance_is_that_of_a_linear_program_and_the_bound_lies_below():
    rng = np.random.default_rng(0)
    x, y = texts(rng, [1, 4, 7, 3]), texts(rng, [5, 1, 6])
    exact, bound = all_distances(x, y), relaxed(x, y)
    for i in range(4):
        for j in range(3):
            own, at = (slice(side.ends[k], side.ends[k + 1]) for side, k in ((x, i), (y, j)))
            apart = np.linalg.norm(x.states[own][:, None] - y.states[at], axis=2)
            np.testing.assert_allclose(costs(x.states[own], y.states[at]), apart, atol=1e-12)
            assert exact[i, j] == pytest.approx(by_linear_program(apart, x.weights[own], y.weights[at]), abs=1e-10)
            one, other = (apart.min(1) @ x.weights[own], apart.min(0) @ y.weights[at])
            assert bound[i, j] == pytest.approx(max(one, other), abs=1e-12)
    assert (bound <= exact + 1e-12).all()
    assert (bound < exact - 1e-3).any()


def test_the_bound_does_not_depend_on_how_many_texts_are_read_at_once(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = texts(rng, rng.integers(1, 6, 20)), texts(rng, rng.integers(1, 6, 15))
    whole = relaxed(x, y)
    monkeypatch.setattr("probes.states.movers._ENTRIES", 60)
    np.testing.assert_allclose(relaxed(x, y), whole, atol=1e-12)


def test_the_order_of_words_does_not_matter_and_other_words_do():
    rng = np.random.default_rng(2)
    states = rng.normal(size=(6, 4))
    x, same, other = (bags_of(s, np.array([6])) for s in (states, states[::-1], rng.normal(size=(6, 4))))
    assert all_distances(x, same)[0, 0] == pytest.approx(0, abs=1e-7)
    assert all_distances(x, other)[0, 0] > 0.3


def features_of(pooling, x, box):
    (random,) = pooling.begun(box[None])
    return pooling.vectors(x.states, x.counts, random)


def test_the_kernel_is_positive_definite_and_its_error_falls_with_the_features():
    rng = np.random.default_rng(3)
    x = texts(rng, [3, 5, 2, 6, 1], features=3, weighted=False)
    box = rng.normal(size=(50, 3))
    exact = features_of(probes.WordMoversEmbedding(2_000, seed=99), x, box)
    kernel = exact @ exact.T
    errors = {}
    for features in (4, 64):
        found = [features_of(probes.WordMoversEmbedding(features, seed=seed), x, box) for seed in range(12)]
        assert min(np.linalg.eigvalsh(z @ z.T).min() for z in found) > -1e-12
        errors[features] = np.sqrt(np.mean([(z @ z.T - kernel) ** 2 for z in found]))
    assert all(error < 1.05 * probes.WordMoversEmbedding(features).error for features, error in errors.items())
    assert errors[4] / errors[64] == pytest.approx(4, rel=0.35)  # one over the square root of 16
    by_hand = exact[:1, :3] * np.sqrt(2_000)
    (random,) = probes.WordMoversEmbedding(2_000, seed=99).begun(box[None])
    for r in range(3):
        at = slice(random.ends[r], random.ends[r + 1])
        cost = costs(x.states[:3], random.states[at])
        assert by_hand[0, r] == pytest.approx(np.exp(-by_linear_program(cost, np.full(3, 1 / 3), random.weights[at])))


def test_random_texts_lie_in_the_box_of_the_words_and_are_the_same_for_a_seed():
    box = np.random.default_rng(4).uniform(0.5, 1.0, size=(1, 40, 3))
    (one,), (same,), (other,) = (probes.WordMoversEmbedding(64, seed=s).begun(box) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.states, same.states)
    assert one.counts.max() <= 6
    assert one.counts.min() == 1
    assert one.states.shape != other.states.shape or not np.allclose(one.states, other.states)
    assert (one.states > 0).all()  # as all words are
    np.testing.assert_allclose(np.linalg.norm(one.states, axis=1), 1)


def test_a_pooling_by_it_is_computed_of_the_words_that_are_kept(tmp_path):
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = make_corpus(["The red dog sat", "a cat", "it"])
    pooling = probes.WordMoversEmbedding(features=6, gamma=0.7, longest=2, seed=3)
    words = capture(model, tokenizer, corpus, words=True, modules=["bert.embeddings", "bert.encoder.layer.0"])
    kept = {"modules": ["bert.embeddings", "bert.encoder.layer.0"], "pooling": pooling}
    reps = capture(model, tokenizer, corpus, store=tmp_path / "s.zarr", **kept)
    for layer, random in enumerate(pooling.begun(words.tokens.values)):
        expected = pooling.vectors(words.tokens.values[layer], words.token_count.values, random)
        np.testing.assert_allclose(reps.hidden[layer], expected, atol=1e-5)
    assert reps.attrs["pooling"] == "word_movers(6, 0.7, 2, 3)"
    one_by_one = capture(model, tokenizer, corpus, batch_size=1, **kept)
    np.testing.assert_allclose(one_by_one.hidden, reps.hidden, atol=1e-5)
    with pytest.raises(probes.InputError, match="tokens=True keeps states of another width than"):
        capture(model, tokenizer, corpus, words=True, tokens=True, **kept)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "features=0: expected a whole number, at least 1"),
        ({"longest": 1.5}, "longest=1.5: expected a whole number, at least 1"),
        ({"gamma": -1}, "gamma=-1: expected a number above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(probes.InputError, match=f"WordMoversEmbedding: {message}"):
        probes.WordMoversEmbedding(**settings)


def test_without_pot_it_is_said_how_to_install_it_before_the_model_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    model, tokenizer = probes.load_checkpoint("bundled")
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("the model was run"))
    message = (
        r"word mover's distance needs the package ot, which is not installed: pip install 'layerscope\[transport\]'"
    )
    with pytest.raises(probes.DependencyError, match=message):
        capture(model, tokenizer, make_corpus(["a b"]), pooling=probes.WordMoversEmbedding())
    with pytest.raises(probes.DependencyError, match=message):
        movers_distance(np.ones((2, 2)), np.full(2, 0.5), np.full(2, 0.5))
    assert movers_distance(np.array([[1.0, 3.0]]), np.ones(1), np.full(2, 0.5)) == 2.0  # one word has one way
