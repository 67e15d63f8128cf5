"""What a head gets right and what two heads agree on: against scikit-learn and scipy, intervals, what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from labelled import corpus_of, model_of
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

import compress
import probes
from compress.outcomes import quality
from probes.errors import InputError


def logits_of(model, tokenizer, corpus):
    batch = tokenizer(list(corpus["text"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits.numpy(), batch["attention_mask"].numpy()


@pytest.fixture
def measured(tokenizer, tiny_models):
    def measured(kind, **given):
        corpus, model = corpus_of(kind), model_of(kind, tiny_models)
        found = quality(model, tokenizer, corpus, **given)
        assert found["language"].tolist() == ["en", "pooled"] * found["measure"].nunique()
        said, mask = logits_of(model, tokenizer, corpus)
        return found[found["language"] == "pooled"].set_index("measure"), said, corpus, mask

    return measured


def test_numbers_are_those_of_scipy(measured):
    found, said, corpus, _ = measured("numbers")
    x, y = said[:, 0].astype(float), np.array([float(label) for label in corpus["label"]])
    expected = {"pearson": stats.pearsonr(x, y)[0], "spearman": stats.spearmanr(x, y)[0]}
    expected |= {"squared_error": np.mean((x - y) ** 2)}
    assert found["value"].to_dict() == pytest.approx(expected, rel=1e-4)
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()


def test_texts_are_read_as_said(tokenizer, tiny_models):
    corpus, model = corpus_of("numbers"), model_of("numbers", tiny_models)
    found = quality(model, tokenizer, corpus, draws=2, max_length=5, prompt="big cat ")
    first = corpus.map(lambda row: {"text": " ".join(("big cat " + row["text"]).split()[:3])})  # and two special ones
    pd.testing.assert_frame_equal(found, quality(model, tokenizer, first, draws=2))
    assert not found.equals(quality(model, tokenizer, corpus, draws=2))


def test_several_classes_are_those_of_scikit_learn(measured):
    found, said, corpus, _ = measured("several")
    one = (said > 0).astype(int)
    two = np.array([[int(c in cell.split()) for c in "xyz"] for cell in corpus["labels"]])
    expected = {
        "accuracy": (one == two).mean(),
        "exact": accuracy_score(two, one),
        "f1": f1_score(two, one, average="micro"),
    }
    assert found["value"].to_dict() == pytest.approx(expected)


def test_words_are_counted_once_by_their_first_token(measured):
    found, said, corpus, _ = measured("words")
    right = [
        said[i, 1 + at].argmax() == "xyz".index(tag)
        for i, tags in enumerate(corpus["tags"])
        for at, tag in enumerate(tags.split())
    ]
    assert found.loc["accuracy", ["value", "n"]].tolist() == [pytest.approx(np.mean(right)), len(right)]


def test_accuracy_of_classes_is_that_of_the_probe(tokenizer, tiny_models):
    model, corpus = model_of("classes", tiny_models), corpus_of("classes")
    reps = probes.capture(model, tokenizer, corpus, progress=False)
    expected = float(probes.accuracy(reps).value.sel(language="pooled"))
    assert quality(model, tokenizer, corpus)["value"].iloc[-1] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["classes", "numbers", "several", "words"])
def test_a_model_agrees_with_itself_and_less_with_another(tokenizer, tiny_models, kind):
    model, corpus = model_of(kind, tiny_models), corpus_of(kind)
    same = quality(model, tokenizer, corpus, other=model).set_index("measure")["value"]
    assert set(same.round(9)) <= {0.0, 1.0}
    assert (same.drop("squared_error", errors="ignore").round(9) == 1).all()
    pruned = compress.prune(model, sparsity=0.7)
    less = quality(pruned, tokenizer, corpus, other=model).set_index("measure")["value"]
    assert (less.drop("squared_error", errors="ignore") <= 1).all()
    if kind == "numbers":
        assert less["squared_error"].min() > 0
        one, two = (logits_of(m, tokenizer, corpus)[0][:, 0].astype(float) for m in (pruned, model))
        assert less["pearson"].iloc[0] == pytest.approx(stats.pearsonr(one, two)[0], rel=1e-4)


def test_languages_stand_apart_and_the_order_does_not_matter(tokenizer, tiny_models):
    model, corpus = model_of("numbers", tiny_models), corpus_of("numbers")
    rows = corpus.to_pandas()
    both = probes.load_corpus(pd.concat([rows, rows.assign(language="fr", label="0")]))
    found = quality(model, tokenizer, both).set_index(["measure", "language"])
    assert np.isnan(found.loc[("pearson", "fr"), ["value", "low", "high"]].astype(float)).all()  # no spread
    assert found.loc[("squared_error", "en"), "value"] == pytest.approx(quality(model, tokenizer, corpus)["value"][0])
    shuffled = probes.load_corpus(both.to_pandas().sample(frac=1, random_state=1))
    again = quality(model, tokenizer, shuffled).set_index(["measure", "language"]).loc[found.index]
    pd.testing.assert_frame_equal(again, found, rtol=1e-4)


def test_what_cannot_be_measured_is_refused(tokenizer, tiny_models):
    numbers, words = model_of("numbers", tiny_models), model_of("words", tiny_models)
    with pytest.raises(InputError, match="BertModel is for no labels: expected a head of classes or numbers"):
        quality(tiny_models("BertModel"), tokenizer, corpus_of("numbers"))
    with pytest.raises(InputError, match="GPT2LMHeadModel is for tokens, whose loss held_out_loss tells"):
        quality(tiny_models("GPT2LMHeadModel"), tokenizer, corpus_of("numbers"))
    with pytest.raises(InputError, match="the heads differ: BertForSequenceClassification gives 1 and"):
        quality(numbers, tokenizer, corpus_of("numbers"), other=words)
    with pytest.raises(InputError, match="the corpus has no column 'tags', one class a word: there is nothing to hold"):
        quality(words, tokenizer, corpus_of("numbers"))
    with pytest.raises(InputError, match="draws=1: expected a whole number of at least 2"):
        quality(numbers, tokenizer, corpus_of("numbers"), draws=1)
