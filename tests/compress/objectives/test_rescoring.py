"""The true sentence among others: what is corrupted, accuracy against choosing by hand, baselines, and bad lists."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from speaking import masking_tokenizer, of_masked_tokens, of_the_next_token, spoken_corpus

import compress
import probes
from compress.objectives.rescoring import corrupted_texts, rescore, share_right
from probes.errors import InputError

tokenizer, corpus = masking_tokenizer, spoken_corpus


@pytest.mark.parametrize("by", ["words", "order"])
def test_corrupted_texts_differ_from_the_right_one_as_they_should(corpus, by):
    lists = corrupted_texts(corpus, by=by, count=3, share=0.3).to_pandas()
    assert len(lists) == 4 * len(corpus)
    pool = {word for text in corpus["text"] for word in text.split()}
    for (_, group), text in zip(lists.groupby("group", sort=False), corpus["text"], strict=True):
        assert group["right"].tolist() == [1, 0, 0, 0]
        assert group["text"].iloc[0] == text
        words = text.split()
        for other in group["text"][1:]:
            changed = sum(a != b for a, b in zip(words, other.split(), strict=True))
            assert 0 < changed <= round(0.3 * len(words)) * (2 if by == "order" else 1)
            assert (sorted(other.split()) == sorted(words)) if by == "order" else set(other.split()) <= pool
    again, other = corrupted_texts(corpus, by=by, count=3, share=0.3), corrupted_texts(corpus, by=by, count=3, seed=1)
    assert again["text"][:] == lists["text"].tolist()
    assert other["text"][:] != lists["text"].tolist()


def test_texts_without_spaces_are_taken_by_letter():
    lists = corrupted_texts(
        probes.load_corpus(pd.DataFrame({"id": [0], "language": "zh", "text": ["我们去吃饭"]})), by="order"
    )
    assert all(sorted(text) == sorted("我们去吃饭") for text in lists["text"])


@pytest.mark.parametrize("normalized", [True, False])
def test_accuracy_is_that_of_scores_one_text_at_a_time(tokenizer, corpus, normalized):
    model = of_the_next_token(tokenizer)
    few = corpus.select(range(8)).to_pandas()
    both = pd.concat([few, few.assign(language="de", text=few["text"] + " and")])
    lists = corrupted_texts(probes.load_corpus(both), count=2)
    found = rescore(model, tokenizer, lists, normalized=normalized, batch_size=5, train=corpus)
    scores, counts = [], {}
    texts = [tokenizer(text)["input_ids"] for text in corpus["text"]]
    for token in (token for ids in texts for token in ids[1:]):
        counts[token] = counts.get(token, 0) + 1
    total, words = sum(counts.values()), len(tokenizer)
    rest = 0.75 * len(counts) / total / words
    unigram = []
    for text in lists["text"]:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].double()
        each = (logits.log_softmax(1) if normalized else logits)[torch.arange(len(ids) - 1), ids[1:]]
        scores.append(float(each.sum()))
        unigram.append(sum(np.log(max(counts.get(token, 0) - 0.75, 0) / total + rest) for token in ids[1:]))
    table = lists.to_pandas().assign(score=scores, unigram=unigram)
    for language in ("en", "de"):
        lists_of = [part for _, part in table[table["language"] == language].groupby("group")]
        row = found.set_index("language").loc[language]
        assert row["accuracy"] == np.mean([part["right"][part["score"].idxmax()] for part in lists_of])
        by_hand = [part["right"][np.isclose(part["unigram"], part["unigram"].max())].mean() for part in lists_of]
        assert row["unigram"] == pytest.approx(np.mean(by_hand))
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert found["lists"].tolist() == [8, 8, 16]
    assert found["chance"].tolist() == pytest.approx([1 / 3] * 3)


def test_of_another_order_single_tokens_are_at_chance_and_a_model_that_knows_the_text_is_above(tokenizer, corpus):
    lists = corrupted_texts(corpus.select(range(20)), by="order", count=4)
    model = of_the_next_token(tokenizer)
    how = {"steps": 20, "batch_size": 40, "learning_rate": 3e-2, "progress": False}
    made = compress.finetune(model, tokenizer, corpus, **how)
    found = rescore(made, tokenizer, lists, train=corpus).iloc[-1]
    assert found["unigram"] == pytest.approx(0.2)  # exactly: the same tokens in each
    assert found["low"] > 0.5
    with torch.no_grad():
        model.lm_head.weight.zero_()  # says the same of every token: a tie
    assert rescore(model, tokenizer, lists).iloc[-1]["accuracy"] == pytest.approx(0.2)
    assert np.isnan(rescore(model, tokenizer, lists).iloc[-1]["unigram"])


def test_of_equal_scores_each_is_chosen_as_often():
    assert share_right(np.array([1.0, 2.0, 2.0 + 1e-12]), np.array([0, 1, 0])) == 0.5
    assert np.isnan(share_right(np.array([np.nan, 1.0]), np.array([1, 0])))


def test_lists_that_are_none_are_refused(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    lists = corrupted_texts(corpus.select(range(2)), count=2).to_pandas()

    def refused(message, model=model, **changes):
        with pytest.raises(InputError, match=message):
            rescore(model, tokenizer, Dataset.from_pandas(lists.assign(**changes)))

    with pytest.raises(InputError, match="the lists have no column 'group': expected id, language, text, group, which"):
        rescore(model, tokenizer, corpus)
    refused("list '0' in language 'en' has no right candidate: expected one that is right", right=0)
    refused("list '0' in language 'en' has right candidates alone: expected one", right=1)
    refused("row 0: right is 2: expected 1 of the right candidate, 0 of others", right=2)
    refused("objective rescore: BertForMaskedLM predicts masked tokens", of_masked_tokens(tokenizer))
    with pytest.raises(InputError, match="batch_size=0: expected a whole number of at least 1"):
        rescore(model, tokenizer, corpus, batch_size=0)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a b"], {"by": "letters"}, r"by='letters': expected one of \('words', 'order'\)"),
        (["a b"], {"count": 0}, "count=0: expected a whole number of at least 1"),
        (["a b"], {"share": 0}, "share=0: expected a number above 0 and at most 1"),
        (["a a"], {"by": "order"}, "id '0', language 'en': by=\"order\" cannot change the text 'a a': expected words"),
        (["a"], {}, "cannot change the text 'a'"),
    ],
)
def test_what_cannot_be_corrupted_is_said(texts, options, message):
    corpus = probes.load_corpus(pd.DataFrame({"id": range(len(texts)), "language": "en", "text": texts}))
    with pytest.raises(InputError, match=message):
        corrupted_texts(corpus, **options)
