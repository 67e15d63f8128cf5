"""Transferability: the weights of texts by hand, between planted domains, and of the rows trained on; bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

import probes
from compress.objectives.domains import DomainHead, transferability
from probes.errors import InputError


@pytest.mark.parametrize("domain", ["language", "label", "topic"])
def test_weights_are_the_cosines_with_the_prototypes(teacher, make_tokenizer, corpus, domain):
    tokenizer = make_tokenizer()
    got = transferability(teacher, tokenizer, corpus, domain=domain, progress=False)
    h = []
    for text in corpus["text"]:  # one unpadded text at a time
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            h.append(teacher.bert(ids).last_hidden_state[0, 1:-1].double().numpy().mean(0))
    h, names = np.array(h), np.array(corpus[domain])
    assert (got["domain"] == names).all()
    p = {k: h[names == k].mean(0) for k in set(names)}
    for own, k, weight in zip(h, names, got["transferability"], strict=True):
        rest = np.mean([p[other] for other in p if other != k], axis=0)
        expected = cosine_similarity([own], [p[k], rest]).mean()
        assert weight == pytest.approx(expected, abs=1e-5)


def test_a_text_between_domains_is_more_transferable_than_one_apart(tiny_models, make_tokenizer):
    """Planted: domains of one word each, and a text of both words."""
    rows = [
        {"id": f"{word}{i}", "language": k, "text": " ".join([word] * i)}
        for k, word in (("en", "red"), ("de", "he"))
        for i in (1, 2, 3)
    ]
    rows.append({"id": "both", "language": "en", "text": "red he"})
    model = tiny_models("BertModel", num_hidden_layers=1)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(20)  # so that words are what states are of
    got = transferability(model, make_tokenizer(), probes.load_corpus(pd.DataFrame(rows)), progress=False)
    weights = got["transferability"]
    assert weights.iloc[-1] > weights[(got["domain"] == "en")].iloc[:-1].max()


def test_weights_are_of_the_rows_that_are_trained_on(teacher, make_tokenizer, corpus):
    split = ["train" if i % 3 else "dev" for i in range(len(corpus))]
    got = transferability(teacher, make_tokenizer(), corpus.add_column("split", split), domain="label", progress=False)
    rows = [i for i, s in enumerate(split) if s == "train"]
    alone = transferability(teacher, make_tokenizer(), corpus.select(rows), domain="label", progress=False)
    pd.testing.assert_frame_equal(got, alone)


def test_a_corpus_without_domains_is_refused(teacher, make_tokenizer, corpus):
    tokenizer = make_tokenizer()
    for given, domain, message in (
        (corpus, "genre", "no column 'genre' to take domains from, found id, language"),
        (corpus.select([0, 3]), "language", "all 2 texts have the language 'de': expected at least two domains"),
        (corpus.add_column("split", ["dev"] * len(corpus)), "label", "no row of split 'train', only of 'dev'"),
    ):
        with pytest.raises(InputError, match=message):
            transferability(teacher, tokenizer, given, domain=domain, progress=False)
    gap = corpus.remove_columns("topic").add_column("topic", ["p", None, "q"] * 6)
    with pytest.raises(InputError, match="topic is null in row 1: give each text its domain"):
        transferability(teacher, tokenizer, gap, domain="topic", progress=False)


@pytest.mark.parametrize(
    ("domains", "message"),
    [(["en"], r"domains=\['en'\]: expected at least two"), (["en", "en"], "each once")],
)
def test_a_head_of_one_domain_or_of_one_twice_is_refused(domains, message):
    with pytest.raises(InputError, match=message):
        DomainHead(domains, 4)
