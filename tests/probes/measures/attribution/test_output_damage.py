"""Damage at the output: against plain formulas, text by text and without padding."""

import copy

import numpy as np
import pytest
import torch
from patched import TEXTS, corpus_of, hurt
from scipy.special import log_softmax

from probes.errors import InputError
from probes.measures.attribution.output_damage import OutputDamage, found, kind_of


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@torch.no_grad()
def alone(model, tokenizer, texts, head=True):
    run = model if head else model.base_model
    given = [run(**tokenizer(text, return_tensors="pt")) for text in texts]
    return [(g.logits if head else g.last_hidden_state)[0].double().numpy() for g in given]


def test_classes_against_plain_formulas(tiny_models, tokenizer):
    base = tiny_models("BertForSequenceClassification")
    other, corpus = hurt(base, 2), corpus_of()
    damage = OutputDamage(base, tokenizer, corpus)
    out = damage.of(other)
    p, q = (log_softmax(np.stack(alone(m, tokenizer, corpus["text"])), axis=1) for m in (base, other))
    label = np.array([int(x) for x in corpus["label"]])
    every = np.arange(len(label))
    expected = {
        "kl": (np.exp(p) * (p - q)).sum(axis=1),
        "label_loyalty": p.argmax(axis=1) != q.argmax(axis=1),
        "loss": p[every, label] - q[every, label],
        "accuracy": (p.argmax(axis=1) == label) * 1.0 - (q.argmax(axis=1) == label),
    }
    assert damage.measures == tuple(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(out.sel(measure=name), values, atol=2e-6)
    assert out["language"].values.tolist() == list(corpus["language"])
    assert not damage.of(base).any()


def test_tokens_against_plain_formulas(tiny_models, make_tokenizer):
    base, plain = tiny_models("GPT2LMHeadModel"), make_tokenizer(special=False)
    other, corpus = hurt(base, 1), corpus_of(("en",))
    damage = OutputDamage(base, plain, corpus)
    out = damage.of(other)
    assert damage.measures == ("kl", "label_loyalty", "loss")
    logits = [[log_softmax(x, axis=1) for x in alone(m, plain, TEXTS)] for m in (base, other)]
    for row, (text, p, q) in enumerate(zip(TEXTS, *logits, strict=True)):
        ids = plain(text)["input_ids"]
        p, q = p[:-1], q[:-1]  # what follows the last token is not in the text
        told = [(p - q)[k, token] for k, token in enumerate(ids[1:])]
        expected = [(np.exp(p) * (p - q)).sum(axis=1).mean(), (p.argmax(1) != q.argmax(1)).mean(), np.mean(told)]
        np.testing.assert_allclose(out.isel(example=row), expected, atol=2e-6)


def test_vectors_against_plain_formulas(tiny_models, tokenizer):
    base = tiny_models("BertModel")
    other, corpus = hurt(base, 3, by=1.0), corpus_of()
    damage = OutputDamage(base, tokenizer, corpus, pivot="en")
    out = damage.of(other)
    p, q = (np.stack([x[1:-1].mean(axis=0) for x in alone(m, tokenizer, corpus["text"], False)]) for m in (base, other))
    cosine = (p * q).sum(axis=1) / np.linalg.norm(p, axis=1) / np.linalg.norm(q, axis=1)
    np.testing.assert_allclose(out.sel(measure="cosine"), 1 - cosine, atol=1e-6)
    right = []
    for vectors in (p, q):
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        similar = units[len(TEXTS) :] @ units[: len(TEXTS)].T
        own = np.arange(len(TEXTS))
        right.append(((similar.argmax(axis=1) == own) * 1.0 + (similar.argmax(axis=0) == own)) / 2)
    np.testing.assert_allclose(out.sel(measure="retrieval"), np.tile(right[0] - right[1], 2))


def test_tensors_stand_in_while_a_model_runs_and_not_after(tiny_models, tokenizer):
    base = tiny_models("BertForSequenceClassification")
    other, damage = hurt(base, 2), OutputDamage(base, tokenizer, corpus_of())
    before = {k: v.clone() for k, v in other.state_dict().items()}
    own = {k: v for k, v in base.named_parameters() if ".layer.1." in k}
    assert float(damage.of(other).sel(measure="kl").mean()) > 0.001
    assert np.abs(damage.of(other, own)).max() < 1e-6
    half = dict(list(own.items())[:4])
    assert 0 < damage.of(other, half).sel(measure="kl").mean() != damage.of(other).sel(measure="kl").mean()
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
    # Of a model without a head names are its own too.
    body, hurt_body = base.bert, hurt(base.bert, 1)
    of_body = OutputDamage(body, tokenizer, corpus_of(), pivot="en")
    given = {k: v for k, v in body.named_parameters() if ".layer.0." in k}
    assert np.abs(of_body.of(hurt_body, given)).max() < 1e-6


def test_texts_find_their_translations_ties_count_as_right_and_others_have_none():
    vectors = np.array([[1.0, 0], [0, 1], [1, 0.1], [1, 0.2], [1, 1]])
    ids, languages = np.array([0, 1, 0, 1, 9]), np.array(["en", "en", "fr", "fr", "fr"])
    # Both French ones are nearest to the first English one, which finds its own.
    assert found(vectors, ids, languages, "en").tolist()[:4] == [1.0, 0.5, 1.0, 0.5]
    assert np.isnan(found(vectors, ids, languages, "en")[4])
    assert found(np.ones((4, 2)), ids[:4], languages[:4], "en").tolist() == [1.0] * 4


def test_what_cannot_be_used_is_said_before_a_model_runs(tiny_models, tokenizer, make_tokenizer):
    base, corpus = tiny_models("BertForSequenceClassification"), corpus_of()

    def never(*_args, **_kwargs):
        raise AssertionError("it ran")

    base.forward = base.bert.forward = never
    damage = OutputDamage(base, tokenizer, corpus)
    more = copy.deepcopy(base)
    more.resize_token_embeddings(28)
    with pytest.raises(
        InputError, match=r"embeddings and 'more' 28: they read other tokens\. Compare models that share"
    ):
        damage.check(more, "more")
    with pytest.raises(InputError, match=r"gives classes of texts, that of 'body' no classes or tokens\. Compare"):
        damage.check(base.bert, "body")
    named = tiny_models("BertForSequenceClassification", id2label={0: "x", 1: "y", 2: "z"})
    with pytest.raises(InputError, match=r"has the classes LABEL_0, .* and 'named' x, y, z\. Compare models of the"):
        damage.check(named, "named")
    with pytest.raises(
        InputError, match=r"has no head that gives classes or tokens.*give pivot=\.\.\., one of 'en', 'xx'"
    ):
        OutputDamage(base.bert, tokenizer, corpus)
    with pytest.raises(InputError, match=r"pivot 'sw': no such language in the corpus; there are 'en', 'xx'"):
        OutputDamage(base.bert, tokenizer, corpus, pivot="sw")
    with pytest.raises(InputError, match=r"has no tensor 'x'\. Name them as model\.named_parameters\(\) does"):
        damage.of(base, {"x": torch.ones(1)})
    with pytest.raises(InputError, match=r"classifier\.bias: expected a tensor of shape \(3,\), found \(4,\)"):
        damage.of(base, {"classifier.bias": torch.ones(4)})
    with pytest.raises(InputError, match="tokens, but 27 embeddings"):
        OutputDamage(base, make_tokenizer(words=[str(i) for i in range(40)]), corpus)


def test_labels_that_are_no_classes_leave_accuracy_out(tiny_models, tokenizer):
    base = tiny_models("BertForSequenceClassification")
    assert OutputDamage(base, tokenizer, corpus_of(labels="abc")).measures == ("kl", "label_loyalty")
    assert (kind_of(base), kind_of(base.bert)) == ("classes", "vectors")
    assert OutputDamage(base.bert, tokenizer, corpus_of(("en",)), pivot="en").measures == ("cosine",)
