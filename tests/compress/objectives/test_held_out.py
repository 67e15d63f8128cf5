"""The loss of language models on held-out text: against one text at a time, intervals, two models on the same texts."""

import numpy as np
import pandas as pd
import pytest
import torch
from speaking import masking_tokenizer, of_masked_tokens, of_the_next_token, spoken_corpus

from compress.objectives.held_out import held_out_loss, language_model_loss, text_losses
from probes.errors import InputError

tokenizer, corpus = masking_tokenizer, spoken_corpus


def test_held_out_loss_is_that_of_one_text_at_a_time(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    nats, tokens = 0.0, 0
    for text in corpus["text"]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            said = model.double()(ids).logits[0, :-1].log_softmax(-1)
        nats -= float(said[range(ids.shape[1] - 1), ids[0, 1:]].sum())
        tokens += ids.shape[1] - 1
    found = language_model_loss(model.float(), tokenizer, corpus, batch_size=7)
    assert found["tokens"] == tokens
    assert found["nats"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(nats / tokens), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nats / np.log(2) / sum(len(t.encode()) for t in corpus["text"]))


def test_held_out_loss_masks_the_same_tokens_whatever_the_batch_and_the_order(tokenizer, corpus):
    model = of_masked_tokens(tokenizer)
    found = language_model_loss(model, tokenizer, corpus)
    assert set(found) == {"nats", "tokens", "perplexity"}
    again = language_model_loss(model, tokenizer, corpus, batch_size=3)
    assert again["tokens"] == found["tokens"]
    assert again["nats"] == pytest.approx(found["nats"], rel=1e-5)
    assert language_model_loss(model, tokenizer, corpus, seed=1)["nats"] != found["nats"]


def test_the_loss_of_a_text_is_that_of_transformers(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    losses = text_losses(model, tokenizer, corpus, batch_size=5)
    for text, row in zip(corpus["text"], losses.itertuples(), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            assert row.nats / row.tokens == pytest.approx(float(model(ids, labels=ids).loss), rel=1e-6)
        assert row.bytes == len(text.encode())


def test_texts_are_read_as_said(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    found = text_losses(model, tokenizer, corpus, prompt="big cat ", max_length=6)
    expected = text_losses(model, tokenizer, corpus.map(lambda row: {"text": "big cat " + row["text"]}), max_length=6)
    pd.testing.assert_frame_equal(found.drop(columns="bytes"), expected.drop(columns="bytes"))
    assert found["tokens"].max() == 5
    assert found["bytes"].tolist() == [len(text.encode()) for text in corpus["text"]]  # of the text alone
    plain = language_model_loss(model, tokenizer, corpus)["nats"]
    assert language_model_loss(model, tokenizer, corpus, prompt="big cat ", max_length=6)["nats"] != plain


def by_languages(shift=0.0, ids=30, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 9, 2 * ids)
    return pd.DataFrame(
        {
            "id": [str(i % ids) for i in range(2 * ids)],
            "language": ["en"] * ids + ["fr"] * ids,
            "nats": tokens * (2 + shift) + np.tile(rng.normal(size=ids), 2),
            "tokens": tokens,
            "bytes": tokens * 4,
        }
    )


def test_by_language_it_is_the_ratio_of_sums_with_an_interval():
    losses = by_languages()
    found = held_out_loss(losses).set_index("language")
    assert list(found.index) == ["en", "fr", "pooled"]
    for language, part in [*losses.groupby("language"), ("pooled", losses)]:
        row = found.loc[language]
        assert row["nats"] == pytest.approx(part["nats"].sum() / part["tokens"].sum())
        assert row["perplexity"] == pytest.approx(np.exp(row["nats"]))
        assert row["bits_per_byte"] == pytest.approx(part["nats"].sum() / np.log(2) / part["bytes"].sum())
        assert row["low"] < row["nats"] < row["high"]
    shuffled = held_out_loss(losses.sample(frac=1, random_state=1)).set_index("language").loc[found.index]
    pd.testing.assert_frame_equal(shuffled, found)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    found = [held_out_loss(by_languages(seed=seed), draws=200).iloc[2] for seed in range(200)]
    holds = [row["low"] <= 2 <= row["high"] for row in found]
    assert 0.90 <= np.mean(holds) <= 0.98


def test_a_difference_is_paired_and_of_the_same_texts_alone(tokenizer, corpus):
    one, other = by_languages(shift=-0.5), by_languages()
    row = held_out_loss(one, other).iloc[-1]
    assert row["nats"] == pytest.approx(-0.5)
    assert (row["low"], row["high"]) == (pytest.approx(-0.5), pytest.approx(-0.5))  # each token by as much: no spread
    assert "perplexity" not in row
    same = held_out_loss(one, one)
    assert (same[["nats", "low", "high"]] == 0).all().all()
    with pytest.raises(InputError, match=r"not of the same texts and tokens: id differs\. Measure both models on one"):
        held_out_loss(one, other.iloc[::-1])
    with pytest.raises(InputError, match="not of the same texts and tokens: tokens differs"):
        held_out_loss(one, other.assign(tokens=1))
    with pytest.raises(InputError, match="draws=1: expected a whole number of at least 2"):
        held_out_loss(one, draws=1)
    with pytest.raises(InputError, match="batch_size=0: expected a whole number of at least 1"):
        text_losses(of_masked_tokens(tokenizer), tokenizer, corpus, batch_size=0)


def test_without_a_token_to_predict_there_is_no_loss(tokenizer, corpus):
    losses = text_losses(of_masked_tokens(tokenizer), tokenizer, corpus, masked=1e-9)
    assert losses["tokens"].sum() == 0
    assert held_out_loss(losses)[["nats", "low", "high"]].isna().all().all()
