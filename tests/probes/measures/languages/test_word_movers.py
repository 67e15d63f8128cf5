"""Word movers: matches free of order that means miss, against brute force, with intervals that hold."""

import sys

import numpy as np
import pytest
import xarray as xr

import probes
from probes.measures.languages.word_movers import nearest_of
from probes.states.movers import all_distances, bags_of


def of_words(states, counts, languages, texts=None, layers=1):
    """Representations of texts whose words have these states, the same ids in each language, pooled by mean."""
    counts = np.asarray(counts)
    n = len(counts)
    starts = np.cumsum(counts) - counts
    means = np.add.reduceat(states, starts, axis=0) / counts[:, None]
    per = n // len(languages)
    reps = probes.from_arrays(
        np.broadcast_to(means, (layers, *means.shape)),
        id=np.tile(np.arange(per), len(languages)),
        language=np.repeat(languages, per),
    )
    place = np.arange(counts.sum()) - np.repeat(starts, counts)
    code = np.zeros(len(place), int) if texts is None else np.asarray(texts)
    return reps.assign_coords(token_text=("vocabulary", [f"w{i}" for i in range(code.max() + 1)])).assign(
        tokens=(("layer", "token", "feature"), np.broadcast_to(states, (layers, *states.shape)).copy()),
        token_start=("example", starts),
        token_count=("example", counts),
        token_place=("token", place),
        token_code=("token", code),
    )


def planted(rng, sentences=24, words=4, features=12, noise=0.05, same_mean=True, matched=True):
    """Sentences whose words are those of their translation in another order, or (the control) of no other.

    With `same_mean` every sentence has nearly one mean, so that only which words there are tells them apart.
    """
    x = rng.normal(size=(sentences, words, features))
    if same_mean:  # words by words the negatives of each other, and a mean of its own that is all noise
        half = rng.normal(size=(sentences, words // 2, features))
        x = np.concatenate([half, -half], axis=1)
    y = x[:, rng.permutation(words)] if matched else rng.permutation(x.reshape(-1, features)).reshape(x.shape)
    both = np.concatenate([x, y]) + noise * rng.normal(size=(2 * sentences, words, features))
    return of_words(both.reshape(-1, features), np.full(2 * sentences, words), ["en", "de"])


def measured(reps, **options):
    return probes.word_movers(reps, pivot="en", progress=False, **{"draws": 60} | options)


def test_a_match_free_of_order_that_the_mean_misses_is_found_and_none_where_there_is_none():
    rng = np.random.default_rng(0)
    there = measured(planted(rng)).sel(language="de", layer=0)
    assert there.value.sel(measure="word_movers") == 1
    assert probes.retrieval(planted(np.random.default_rng(0)), pivot="en").value.sel(language="de") < 0.5
    assert there.low.sel(measure="word_movers_gain") > 0.2
    nothing = measured(planted(rng, matched=False)).sel(language="de", layer=0)
    assert nothing.value.sel(measure="word_movers") < 0.3
    assert nothing.low.sel(measure="word_movers_gain") < 0 < nothing.high.sel(measure="word_movers_gain")
    # Nor is there a gain where the mean knows as much.
    known = measured(planted(rng, same_mean=False)).sel(language="de", layer=0)
    assert known.value.sel(measure="word_movers_gain") == 0


def test_what_is_found_is_what_all_distances_say():
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 6, 15)
    x = bags_of(rng.normal(size=(counts.sum(), 4)), counts, rng.uniform(0.5, 2, counts.sum()))
    other = rng.permutation(counts)
    y = bags_of(rng.normal(size=(counts.sum(), 4)), other)
    found, distance = nearest_of(x, y), all_distances(x, y)
    for side, d in enumerate((distance, distance.T)):
        better = (d < np.diag(d)[:, None] - 1e-6).sum(axis=1)
        np.testing.assert_array_equal(found.better[side], np.minimum(better, 2))
        np.testing.assert_array_equal(found.best[side], np.where(better > 0, d.argmin(axis=1), np.arange(15)))
    assert found.solved < 15**2


def test_hubness_is_the_share_of_answers_that_are_given_twice():
    # All of x find the first of y but itself; each of y finds the first of x that is nearest.
    x = bags_of(np.array([[1, 0.0], [1, 0.1], [1, 0.2]]), np.ones(3, int))
    y = bags_of(np.array([[1, 0.05], [0, 1.0], [-1, 0.0]]), np.ones(3, int))
    found = nearest_of(x, y)
    assert found.best[0].tolist() == [0, 0, 0]
    reps = of_words(np.concatenate([x.states, y.states]), np.ones(6, int), ["en", "de"])
    hubness = measured(reps).sel(measure="word_movers_hubness", language="de", layer=0)
    others = np.bincount(found.best[1], minlength=3)
    assert hubness.value == pytest.approx((2 / 3 + np.maximum(others - 1, 0).sum() / 3) / 2)
    assert hubness.low.isnull().all()


def test_rare_words_weigh_more_by_inverse_frequency():
    """A word that all sentences have says nothing, and hides which of them are translations."""
    rng = np.random.default_rng(2)
    n, features = 20, 12
    own = rng.normal(size=(n, features))
    common = 3 * rng.normal(size=(2, n, 6, features))  # moved at random in every sentence
    rows = np.concatenate([np.concatenate([own[:, None], c], axis=1) for c in common])
    rows += 0.1 * rng.normal(size=rows.shape)
    codes = np.concatenate([np.concatenate([1 + np.arange(n)[:, None], np.zeros((n, 6), int)], axis=1)] * 2)
    reps = of_words(rows.reshape(-1, features), np.full(2 * n, 7), ["en", "de"], codes.ravel())
    value = [
        float(measured(reps, idf=idf).value.sel(measure="word_movers", language="de", layer=0)) for idf in (True, False)
    ]
    assert value[0] > value[1] + 0.1


def test_an_interval_of_a_gain_holds_where_there_is_none():
    """Copies of a sentence's mean as its only word: both find the same, whatever the sample."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(6):
        x = rng.normal(size=(25, 6))
        y = x + 0.8 * rng.normal(size=x.shape)
        out = measured(of_words(np.concatenate([x, y]), np.ones(50, int), ["en", "de"]), draws=30)
        gain = out.sel(measure="word_movers_gain", language="de", layer=0)
        assert gain.value == 0
        held += int(gain.low <= 0 <= gain.high)
    assert held == 6


def test_the_interval_of_the_share_holds_the_value_of_a_large_sample():
    rng = np.random.default_rng(4)

    def drawn(sentences):  # half of the translations are none, so that the share does not depend on how many there are
        return planted(rng, sentences=sentences, words=2, features=30, noise=0.01, same_mean=False), rng.random(
            sentences
        )

    held = 0
    for _ in range(12):
        reps, coin = drawn(30)
        states = reps.tokens.values.reshape(60, 2, 30)
        lost = 30 + np.flatnonzero(coin < 0.3)
        states[lost] = rng.normal(size=states[lost].shape)
        out = measured(reps.assign(tokens=(reps.tokens.dims, states.reshape(1, 120, 30))), draws=40)
        one = out.sel(measure="word_movers", language="de", layer=0)
        held += int(one.low <= 0.7 + 0.3 / 30 <= one.high)
    assert held >= 11


def test_states_that_are_all_equal_or_not_finite_have_no_value_and_are_named():
    reps = planted(np.random.default_rng(5), sentences=6)
    broken = reps.tokens.values.copy()
    broken[0, :3] = np.nan
    with pytest.warns(
        probes.LayerscopeWarning, match="word_movers of model arrays has no value at layer 0: 3 words are"
    ):
        out = measured(reps.assign(tokens=(reps.tokens.dims, broken)))
    assert out.value.isnull().all()
    with pytest.warns(probes.LayerscopeWarning, match="undefined here"):
        out = measured(reps.assign(tokens=xr.ones_like(reps.tokens), hidden=xr.ones_like(reps.hidden)))
    assert out.value.isnull().all()


def test_texts_of_one_word_need_no_program_and_are_measured():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(10, 5))
    out = measured(of_words(np.concatenate([x, x]), np.ones(20, int), ["en", "de"]))
    assert (out.value.sel(measure="word_movers") == 1).all()


def test_what_cannot_be_measured_is_refused(monkeypatch):
    reps = planted(np.random.default_rng(7), sentences=6)
    with pytest.raises(probes.InputError, match=r"word_movers: model arrays has no states of tokens\. Capture them"):
        measured(reps.drop_vars("tokens"))
    with pytest.raises(probes.InputError, match="pivot 'fr': no such language"):
        probes.word_movers(reps, pivot="fr", progress=False)
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(probes.DependencyError, match=r"pip install 'layerscope\[transport\]'"):
        measured(reps)


def test_a_comparison_captures_words_where_it_is_asked_for_by_name():
    corpus = probes.load_corpus("bundled", split="dev", languages=["en", "fr"])
    few = corpus.filter(lambda row: row["id"] < "s0060")
    found = probes.compare(
        {"base": "bundled"}, few, pivot="en", probes=["words"], draws=10, progress=False, timing=False
    )
    assert set(found.table["probe"]) == {"word_movers", "word_movers_gain", "word_movers_hubness"}
    assert found.representations["base"].attrs["tokens"] == "words"
    with pytest.raises(
        probes.InputError, match=r"word_movers cannot be measured with pooling=band\(1, 5\), which keeps no"
    ):
        probes.compare({"base": "bundled"}, few, pivot="en", probes=["word_movers"], pooling=probes.Band(1))
