"""Loyalty against loops over sentences, chance and the bundled model."""

import numpy as np
import pytest
import xarray as xr
from planted import with_logits
from scipy.spatial.distance import jensenshannon

import compress
import probes
from probes.measures.fidelity.accuracy import accuracy
from probes.measures.fidelity.drift import drift
from probes.measures.fidelity.loyalty import divergence, loyalty


def test_loyalty_equals_a_loop_over_sentences(rng, pair):
    one, other = rng.normal(size=(2, 80, 3))
    other = one + 0.7 * other
    out = loyalty(with_logits(pair[0], one), with_logits(pair[1], other))
    for language in ("l0", "l1", "pooled"):
        rows = [i for i in range(80) if language in ("pooled", pair[0].language.values[i])]
        same = np.mean([np.argmax(one[i]) == np.argmax(other[i]) for i in rows])
        p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (one, other))
        probability = np.mean([1 - jensenshannon(p[i], q[i], base=2) for i in rows])
        at = out.sel(language=language)
        np.testing.assert_allclose(at.value, [same, probability], rtol=1e-10)
        assert ((at.low <= at.value) & (at.value <= at.high)).all()


def test_divergence_reaches_one_bit_and_zero():
    far = divergence(np.array([[1000.0, 0.0]]), np.array([[0.0, 1000.0]]))
    assert far[0] == pytest.approx(1)
    assert divergence(np.array([[3.0, 1.0]]), np.array([[5.0, 3.0]]))[0] == pytest.approx(0, abs=1e-12)


def test_full_loyalty_has_the_exact_binomial_interval(rng, pair):
    base = with_logits(pair[0], rng.normal(size=(80, 3)))
    at = loyalty(base, base.copy()).sel(measure="label_loyalty", language="l0")
    assert (float(at.value), float(at.high)) == (1, 1)
    assert float(at.low) == pytest.approx(0.025 ** (1 / 40))


def test_loyalty_of_shuffled_outputs_is_that_of_chance(rng, pair):
    logits = 5 * rng.normal(size=(80, 3))
    out = loyalty(with_logits(pair[0], logits), with_logits(pair[1], logits[rng.permutation(80)]))
    assert float(out.value.sel(measure="label_loyalty", language="pooled")) == pytest.approx(1 / 3, abs=0.15)


def test_what_lacks_logits_or_labels_or_has_other_classes_is_refused(pair):
    base = with_logits(pair[0], np.zeros((80, 3)))
    with pytest.raises(probes.InputError, match=r"loyalty needs predictions, .* model 'small' hold no logits. Capture"):
        loyalty(base, pair[1])
    with pytest.raises(
        probes.InputError, match=r"'base' has the classes 'a', 'b', 'c' and model 'small' 'x', 'y', 'z'"
    ):
        loyalty(base, with_logits(pair[1], np.zeros((80, 3)), "xyz"))
    with pytest.raises(probes.InputError, match="accuracy needs labels"):
        accuracy(base.drop_vars("label"))


def test_logits_that_are_not_finite_are_named(rng, pair):
    logits = rng.normal(size=(80, 3))
    spoilt = logits.copy()
    spoilt[3] = np.inf
    with pytest.warns(
        probes.LayerscopeWarning, match=r"the output: the logits of 1 rows are not finite \(l0, pooled\)"
    ):
        out = loyalty(with_logits(pair[0], logits), with_logits(pair[1], spoilt))
    assert np.isfinite(out.value.sel(language="l1")).all()


def test_the_bundled_model_is_as_accurate_as_its_card_says_and_pruning_costs_loyalty():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="test", languages=["en", "hi"])
    base = probes.capture(model, tokenizer, corpus, progress=False)
    right = accuracy(base).value
    assert float(right.sel(language="en")) == pytest.approx(0.989, abs=0.005)
    assert float(right.sel(language="hi")) == pytest.approx(0.478, abs=0.005)
    loyal, error = [], []
    for sparsity in (0.3, 0.6, 0.9):
        other = probes.capture(compress.prune(model, sparsity=sparsity), tokenizer, corpus, progress=False)
        loyal.append(loyalty(base, other).value.sel(measure="probability_loyalty", language="en"))
        error.append(drift(base, other).value.sel(measure="signal_to_error", language="en"))
    assert loyal[0] > loyal[1] > loyal[2]
    # The embeddings are not pruned; after them every layer has moved further than the one before, or nearly so.
    assert all(np.isinf(e.sel(layer=0)) for e in error)
    assert (error[0][1:] > error[1][1:]).all()
    assert (error[1][1:] > error[2][1:]).all()
    assert isinstance(error[0], xr.DataArray)


def test_of_several_classes_and_of_words_both_are_over_decisions_that_both_models_made(rng):
    base = probes.from_arrays(np.ones((30, 2)))
    z = rng.normal(size=(2, 30, 3))
    one, two = (base.assign(several=(("example", "choice"), x)) for x in z)
    found = loyalty(one, two).value.sel(language="pooled")
    p = 1 / (1 + np.exp(-z))
    by_hand = [jensenshannon([a, 1 - a], [b, 1 - b], base=2) for a, b in zip(p[0].ravel(), p[1].ravel(), strict=True)]
    np.testing.assert_allclose(found, [((z[0] > 0) == (z[1] > 0)).mean(), 1 - np.mean(by_hand)])
    words = rng.normal(size=(2, 2, 30, 4))  # model, word, example, tag
    words[1, 1, 20:] = -np.inf  # the second model reads one word less of these
    one, two = (base.assign(words=(("word", "example", "tag"), x)) for x in words)
    found = loyalty(one, two)
    same = (words[0].argmax(-1) == words[1].argmax(-1)).T
    both = np.arange(2)[None] < np.where(np.arange(30) < 20, 2, 1)[:, None]
    assert float(found.value.sel(language="pooled", measure="label_loyalty")) == pytest.approx(same[both].mean())
    assert int(found.n.sel(language="pooled").values.ravel()[0]) == 30
    with pytest.raises(probes.InputError, match=r"compares predictions class by class.*\(heads of words and several\)"):
        loyalty(one, base.assign(several=(("example", "choice"), z[0])))
