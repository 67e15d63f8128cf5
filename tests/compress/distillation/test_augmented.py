"""Copies of texts with near words in place of some: which are near, how many are replaced, and what stays."""

import numpy as np
import pandas as pd
import pytest

import probes
from compress.distillation.augmented import augmented
from probes.errors import InputError

WORDS = ["red", "dog", "ran", "on", "mat", "small", "bird", "sang", "under", "tree"]


@pytest.fixture
def corpus():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(WORDS)) for _ in range(40)]
    rows = [{"id": i, "language": "en", "text": t, "label": "ab"[i % 2]} for i, t in enumerate(texts)]
    return probes.load_corpus(pd.DataFrame(rows).assign(split=["dev"] * 10 + ["train"] * 30))


def test_words_are_replaced_as_often_as_said_by_the_nearest_and_all_else_stays(tiny_models, make_tokenizer, corpus):
    model, tokenizer = tiny_models("BertForSequenceClassification"), make_tokenizer()
    more = augmented(corpus, model, tokenizer, copies=20, share=0.3, candidates=2, seed=1)
    assert more["text"][: len(corpus)] == corpus["text"][:]
    made = more.select(range(len(corpus), len(more)))
    assert set(made["split"]) == {"train"}
    ids = tokenizer.convert_tokens_to_ids(WORDS)
    z = model.get_input_embeddings().weight.detach().numpy()[ids].astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    near = {}
    for i, word in enumerate(WORDS):
        order = np.argsort(-(z @ z[i]))
        near[word] = {WORDS[j] for j in order if j != i and WORDS[j] != word}, [WORDS[j] for j in order if j != i][:2]
    replaced, words, chosen = 0, 0, []
    by_id = dict(zip(corpus["id"], corpus["text"], strict=True))
    for row in made:
        before, after = by_id[row["id"]].split(), row["text"].split()
        assert len(before) == len(after)
        assert row["label"] == "ab"[int(row["id"]) % 2]
        for a, b in zip(before, after, strict=True):
            words += 1
            if a != b:
                replaced += 1
                assert b in near[a][1]
                chosen.append(near[a][1].index(b))
    words += 10 * (20 * 30 - len(made))  # of copies that came out as their text
    assert abs(replaced / words - 0.3) < 5 * (0.3 * 0.7 / words) ** 0.5
    assert abs(np.mean(chosen) - 0.5) < 5 * 0.5 / len(chosen) ** 0.5  # both neighbours alike
    again = augmented(corpus, model, tokenizer, copies=20, share=0.3, candidates=2, seed=1)
    assert again["text"][:] == more["text"][:]


def test_words_of_several_pieces_stay(tiny_models, corpus):
    model, tokenizer = probes.load_checkpoint("bundled")
    texts = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(3))
    more = augmented(texts, model, tokenizer, copies=3, share=1.0)
    assert len(more) == 12
    for copy, of in zip(more["text"][3:], np.repeat(texts["text"][:], 3), strict=True):
        read = tokenizer(of, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = read.word_ids(), read["offset_mapping"]
        several = {w for w in ids if ids.count(w) > 1}
        kept = [of[a:b] for (a, b), w in zip(spans, ids, strict=True) if w in several]
        assert all(piece in copy for piece in kept)
        assert copy != of


def test_nothing_is_made_where_nothing_is_asked(tiny_models, make_tokenizer, corpus):
    model, tokenizer = tiny_models("BertForSequenceClassification"), make_tokenizer()
    for how in ({"copies": 0}, {"share": 0.0}):
        assert augmented(corpus, model, tokenizer, **how)["text"][:] == corpus["text"][:]
    one = probes.load_corpus(pd.DataFrame([{"id": 0, "language": "en", "text": "dog"}]))
    assert len(augmented(one, model, tokenizer, share=1.0)) == 1  # no other word there is


def test_what_is_refused(tiny_models, make_tokenizer, corpus):
    model, tokenizer = tiny_models("BertForSequenceClassification"), make_tokenizer()
    pairs = corpus.add_column("text_pair", corpus["text"][:])
    for given, how, message in (
        (corpus, {"copies": -1}, "copies=-1: expected a whole number of at least 0"),
        (corpus, {"share": 1.5}, "share=1.5: expected from 0 to 1"),
        (corpus, {"candidates": 0}, "candidates=0: expected a whole number of at least 1"),
        (pairs, {}, "the corpus has pairs of texts, of which copies are not made"),
    ):
        with pytest.raises(InputError, match=message):
            augmented(given, model, tokenizer, **how)
