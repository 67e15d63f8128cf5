"""One sentence, token by token, as a table; the tokens that moved most."""

import numpy as np
import pandas as pd
import pytest
from speaking import masking, spoken, two_of

import probes
from probes.errors import InputError


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return masking(make_tokenizer)


@pytest.fixture(scope="module")
def models(tokenizer):
    return two_of(tokenizer)


def test_a_sentence_is_a_row_a_token(models, tokenizer):
    corpus = spoken()
    one = probes.tokens(*models, tokenizer, corpus, id=3, language="en")
    assert set(one["id"]) == {"3"}
    assert one["text"].tolist()[1:-1] == corpus["text"][3].split()
    assert one[["base_nats", "nats", "kl"]].iloc[0].isna().all()
    alone = probes.next_token(*models, tokenizer, corpus.select([3]), draws=2, progress=False).value
    assert one["kl"].mean() == pytest.approx(float(alone.sel(measure="kl", language="pooled")), rel=1e-4)
    assert one["nats"].mean() == pytest.approx(float(alone.sel(measure="nats_per_token", language="pooled")), rel=1e-4)
    assert [len(top) for top in one["top"]] == [0, *[5] * (len(one) - 1)]
    assert "kl" not in probes.tokens(models[0], None, tokenizer, corpus, id=3)
    with pytest.raises(InputError, match=r"no sentence of the corpus has id='gone'. Choose one of corpus\['id'\]"):
        probes.tokens(*models, tokenizer, corpus, id="gone")


def test_the_worst_tokens_are_those_with_the_largest_divergence_one_a_sentence(models, tokenizer):
    corpus = spoken()
    found = probes.next_token(*models, tokenizer, corpus, draws=2, progress=False)
    every = probes.tokens(*models, tokenizer, corpus)
    largest = every.groupby("id")["kl"].max().nlargest(10)
    worst = [one["tokens"][one["worst"]]["kl"] for one in found.attrs["worst_tokens"]]
    np.testing.assert_allclose(worst, largest, rtol=1e-4)
    assert len({one["id"] for one in found.attrs["worst_tokens"]}) == 10
    same = probes.next_token(models[0], models[0], tokenizer, corpus, draws=2, progress=False)
    assert same.attrs["worst_tokens"] == []


@pytest.fixture(scope="module")
def comparison(models, tokenizer):
    """Of the same sentences in two languages."""
    corpus = spoken().select(range(12)).to_pandas()
    corpus["language"], corpus["id"] = np.repeat(["en", "fr"], 6), np.tile(range(6), 2)
    named = dict(zip(("base", "other"), models, strict=True))
    how = {"tokenizer": tokenizer, "probes": ["next_token"], "draws": 2, "timing": False, "progress": False}
    return probes.compare(named, probes.load_corpus(corpus), **how)


def test_a_comparison_shows_the_sentences_that_it_keeps(comparison, models, tokenizer, tmp_path):
    kept = comparison.provenance["tokens"]["other"]
    keys = [(one["id"], one["language"]) for one in kept]
    assert len(set(keys)) == len(keys)
    drawn = [one for one in kept if "worst" not in one]
    assert len({one["id"] for one in drawn}) <= 1  # in the languages where it is not one of the worst
    every = probes.tokens(comparison)
    assert set(zip(every["id"], every["language"], strict=True)) == set(keys)
    identity, language = keys[0]
    one = probes.tokens(comparison, identity, language)
    assert one["model"].unique().tolist() == ["other"]
    assert one.equals(probes.tokens(comparison, id=identity, language=language))
    text = "".join(kept[0]["text"])
    corpus = probes.load_corpus(pd.DataFrame({"id": [identity], "language": [language], "text": [text]}))
    alone = probes.tokens(*models, tokenizer, corpus)
    np.testing.assert_allclose(one["kl"], alone["kl"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one["nats"], alone["nats"], rtol=1e-4)
    layers = one["layers"].iloc[1:]
    assert {len(x) for x in layers} == {3}  # the embeddings and two blocks
    assert [x[-1][0] for x in layers] == [top[0][0] for top in one["top"].iloc[1:]]
    opened = probes.Comparison.open(comparison.save(tmp_path / "run"))
    assert len(probes.tokens(opened, identity)) >= len(one)


def test_a_comparison_that_keeps_no_such_sentence_says_which_it_keeps(comparison, models, tokenizer):
    with pytest.raises(
        InputError,
        match=r"the comparison keeps no sentence of id='77', language='de'. It keeps \d in (en|fr), .*Give mo",
    ):
        probes.tokens(comparison, 77, "de")
    states = probes.compare({"a": probes.from_arrays(np.random.default_rng(0).normal(size=(9, 2)))}, probes=["norm"])
    with pytest.raises(InputError, match="keeps no sentences: expected one of at least two decoders of one tokenizer"):
        probes.tokens(states)
    with pytest.raises(InputError, match="tokens: expected two models, their tokenizer and a corpus, or a comparison"):
        probes.tokens(*models, tokenizer)
