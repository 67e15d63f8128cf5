"""One sentence, token by token, as a table; the tokens that moved most."""

import numpy as np
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
