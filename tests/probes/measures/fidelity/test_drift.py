import numpy as np
import pytest
import xarray as xr
from planted import planted
from scipy.spatial.distance import jensenshannon

import compress
import probes
from probes.measures.fidelity.accuracy import accuracy
from probes.measures.fidelity.drift import drift
from probes.measures.fidelity.loyalty import divergence, loyalty


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def pair(rng):
    base = planted(rng, ids=40, layers=3).assign_attrs(model="base")
    noise = np.array([0.1, 0.5, 2.0])[:, None, None] * rng.normal(size=base.hidden.shape)
    return base, base.assign(hidden=1.2 * base.hidden + noise).assign_attrs(model="small")


def with_logits(reps, logits, classes=("a", "b", "c")):
    return reps.assign(logits=(("example", "class"), np.asarray(logits))).assign_coords({"class": list(classes)})


# --- states ----------------------------------------------------------------------------------------------------------


def test_equals_a_loop_over_sentences_in_every_layer_and_language(pair):
    base, other = pair
    out = drift(base, other)
    assert out.value.dims == ("measure", "layer", "language")
    for layer in range(3):
        for language in ("l0", "l1", "pooled"):
            rows = [i for i in range(80) if language in ("pooled", base.language.values[i])]
            x, y = base.hidden.values[layer], other.hidden.values[layer]
            cosine = np.mean([x[i] @ y[i] / np.linalg.norm(x[i]) / np.linalg.norm(y[i]) for i in rows])
            error = sum((y[i] - x[i]) @ (y[i] - x[i]) for i in rows)
            decibel = 10 * np.log10(sum(x[i] @ x[i] for i in rows) / error)
            ratio = sum(np.linalg.norm(y[i]) for i in rows) / sum(np.linalg.norm(x[i]) for i in rows)
            at = out.sel(layer=layer, language=language)
            np.testing.assert_allclose(at.value, [cosine, decibel, ratio], rtol=1e-10)
            assert ((at.low <= at.value) & (at.value <= at.high)).all()
            assert (at.n == len(rows)).all()


def test_more_noise_is_more_drift(pair):
    value = drift(*pair).value.sel(language="pooled")
    assert (value.sel(measure=["cosine_to_baseline", "signal_to_error"]).diff("layer") < 0).all()


def test_a_tenth_of_the_length_is_twenty_decibel(rng):
    x = probes.from_arrays(rng.normal(size=(50, 8)))
    at = drift(x, x.assign(hidden=1.1 * x.hidden)).value.sel(language="pooled").squeeze()
    np.testing.assert_allclose(at, [1, 20, 1.1])


def test_a_rotation_of_both_changes_nothing_and_of_one_all_but_the_length(rng, pair):
    base, other = pair
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    turned = [r.assign(hidden=(r.hidden.dims, r.hidden.values @ turn)) for r in pair]
    plain = drift(base, other).value
    np.testing.assert_allclose(drift(*turned).value, plain, rtol=1e-9)
    one = drift(base, turned[1]).value
    np.testing.assert_allclose(one.sel(measure="norm_ratio"), plain.sel(measure="norm_ratio"), rtol=1e-9)
    assert (one.sel(measure="cosine_to_baseline") < plain.sel(measure="cosine_to_baseline") - 0.1).all()
    # What similarity does not see.
    assert float(probes.similarity(base, turned[0]).value.sel(layer=0, other_layer=0, language="pooled")) > 1 - 1e-9


def test_no_change_is_infinitely_many_decibel_and_certain(pair):
    base = pair[0]
    at = drift(base, base.copy()).sel(measure="signal_to_error")
    assert (at.value == np.inf).all()
    assert (at.low == np.inf).all()
    assert (at.high == np.inf).all()
    same = drift(base, base.copy()).sel(measure="cosine_to_baseline")
    np.testing.assert_allclose(same.value, 1)


def test_only_layers_that_both_have_are_compared(pair):
    base, other = pair
    out = drift(base, other.isel(layer=slice(0, 2)))
    assert out.layer.values.tolist() == [0, 1]
    with pytest.raises(probes.InputError, match="none of the same number"):
        drift(base.isel(layer=[0]), other.isel(layer=[1]))


def test_another_width_is_refused_with_the_probe_that_takes_it(pair):
    with pytest.raises(
        probes.InputError, match=r"'base' has 16 and model 'small' 9. Models of different width can be comp"
    ):
        drift(pair[0], pair[1].isel(feature=slice(0, 9)))


def test_another_order_is_aligned_and_other_sentences_are_refused(rng, pair):
    base, other = pair
    shuffled = drift(base, other.isel(example=rng.permutation(80)))
    np.testing.assert_allclose(shuffled.value, drift(base, other).value)
    with pytest.raises(probes.InputError, match="different sentences"):
        drift(base, other.isel(example=slice(1, None)))


def test_rows_that_are_not_finite_are_named_with_their_model(pair):
    base, other = pair
    other = other.copy(deep=True)
    other.hidden.values[1, 0, 0] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match=r"layer 1: 1 rows of model small are not finite \(l0, pooled\)"):
        out = drift(base, other)
    assert np.isnan(out.value.sel(layer=1, language=["l0", "pooled"])).all()
    assert np.isfinite(out.value.sel(layer=[0, 2])).all()


def test_intervals_hold_the_true_drift():
    held = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(10, 60, 12))
        y = x + 0.5 * rng.normal(size=x.shape)
        out = drift(probes.from_arrays(x), probes.from_arrays(y), seed=seed).sel(language="pooled")
        error = out.sel(measure="signal_to_error")
        held.append(((error.low <= 10 * np.log10(4)) & (10 * np.log10(4) <= error.high)).values)
    assert 0.9 <= np.mean(held) <= 0.985


# --- outputs ---------------------------------------------------------------------------------------------------------


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


def test_accuracy_by_name_and_by_number(rng):
    label = np.arange(60) % 3
    logits = np.eye(3)[np.where(np.arange(60) < 45, label, (label + 1) % 3)]
    named = probes.from_arrays(np.ones((60, 2)), label=np.array(["a", "b", "c"])[label])
    numbered = probes.from_arrays(np.ones((60, 2)), label=label)
    for reps, classes in ((named, "abc"), (numbered, "abc"), (numbered, ("LABEL_0", "LABEL_1", "LABEL_2"))):
        out = accuracy(with_logits(reps, logits, list(classes)))
        assert float(out.value.sel(language="pooled")) == 0.75
        assert out.value.dims == ("language",)
        assert out.low.sel(language="pooled") < 0.75 < out.high.sel(language="pooled")


def test_a_label_that_is_no_class_is_refused_with_what_to_do(rng):
    reps = probes.from_arrays(np.ones((4, 2)), label=["a", "b", "dog", "c"])
    with pytest.raises(
        probes.InputError, match=r"label 'dog' is no class of model 'arrays'; it has 'a', 'b', 'c'.*id2label"
    ):
        accuracy(with_logits(reps, np.eye(4)[:, :3]))


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


def test_classes_of_one_name_are_refused():
    reps = probes.from_arrays(np.ones((4, 2)), label=["a", "b", "a", "b"])
    with pytest.raises(probes.InputError, match=r"two classes of model 'arrays' have one name, among 'a', 'b', 'b'"):
        accuracy(with_logits(reps, np.eye(4)[:, :3], "abb"))
