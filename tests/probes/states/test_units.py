"""Units: which tokens are a text's own, and which of them make a word, whatever tokenizer and script."""

import numpy as np
import pandas as pd
import pytest
import torch
from capturing import capture, make_corpus

import probes


@pytest.fixture
def bundled():
    return probes.load_checkpoint("bundled")


def units_in(reps, row):
    start, count = int(reps.token_start[row]), int(reps.token_count[row])
    return reps.token_text.values[reps.token_code.values[start : start + count]].tolist()


def alone(model, tokenizer, text, **options):
    """The states of one text by itself, (layer, token, feature) in float64, and what each token is in."""
    encoded = tokenizer(text, return_tensors="pt", **options)
    with torch.no_grad():
        states = model(**encoded, output_hidden_states=True).hidden_states
    return np.stack([s[0].double().numpy() for s in states]), encoded


TEXTS = ["The newspaper, it says", "Bananas", "the unspeakable antidisestablishment of things that were", "a b"]


def test_tokens_and_words_are_those_of_each_text_by_itself(bundled):
    model, tokenizer = bundled
    corpus = make_corpus(TEXTS)
    pieces = capture(model, tokenizer, corpus, tokens=True)
    words = capture(model, tokenizer, corpus, words=True)
    several = 0
    for row, text in enumerate(TEXTS):
        states, encoded = alone(model, tokenizer, text)
        of_word = encoded.word_ids()
        at = slice(int(pieces.token_start[row]), int(pieces.token_start[row]) + int(pieces.token_count[row]))
        np.testing.assert_allclose(pieces.tokens.values[:, at], states[:, 1:-1], atol=1e-5)
        assert units_in(pieces, row) == tokenizer.convert_ids_to_tokens(encoded["input_ids"][0].tolist())[1:-1]
        joined = [
            states[:, [i for i, w in enumerate(of_word) if w == word]].mean(1)
            for word in range(1 + max(w for w in of_word if w is not None))
        ]
        at = slice(int(words.token_start[row]), int(words.token_start[row]) + int(words.token_count[row]))
        np.testing.assert_allclose(words.tokens.values[:, at], np.stack(joined, 1), atol=1e-5)
        several += len(of_word) - 2 > len(joined)
    assert several >= 2  # words that are several pieces
    assert units_in(words, 0) == ["The", "newspaper", ",", "it", "says"]
    np.testing.assert_allclose(pieces.hidden, capture(model, tokenizer, corpus).hidden)


@pytest.mark.parametrize("settings", [{"pooling": "mean_all"}, {"pooling": "last"}, {"batch_size": 1}])
def test_pooling_and_batches_do_not_change_tokens(bundled, settings):
    corpus = make_corpus(TEXTS)
    plain = capture(*bundled, corpus, tokens=True, pooling="mean")
    other = capture(*bundled, corpus, tokens=True, **settings)
    np.testing.assert_allclose(other.tokens, plain.tokens, atol=1e-5)
    rows = np.split(np.arange(plain.sizes["token"]), plain.token_start.values[1:])
    means = np.stack([plain.tokens.values[:, at].mean(1) for at in rows], 1)
    np.testing.assert_allclose(means, plain.hidden, atol=1e-5)  # the mean is that of the tokens that are kept


def test_a_prompt_is_no_token_of_a_text(bundled):
    model, tokenizer = bundled
    for kept in ({"tokens": True}, {"words": True}):
        reps = capture(model, tokenizer, make_corpus(["the red dog", "a cat"]), prompt="query: ", **kept)
        assert units_in(reps, 1)[0].strip("Ġ") == "a"
        states, _ = alone(model, tokenizer, "query: a cat")
        if "tokens" in kept:
            np.testing.assert_allclose(reps.tokens.values[:, -1], states[:, -2], atol=1e-5)


def test_scripts_without_spaces_keep_pieces_unless_a_segmenter_says_words(make_tokenizer, bundled):
    frame = pd.DataFrame({"id": 0, "language": ["zh", "en"], "text": ["我爱北京天安门", "we love Beijing"]})
    corpus = probes.load_corpus(frame)
    model, tokenizer = bundled
    pieces = capture(model, tokenizer, corpus, words=True)
    assert all(len(piece) == 1 for piece in units_in(pieces, 0))
    cut = {"zh": lambda text: ["我", "爱", "北京", "天安门"]}
    words = capture(model, tokenizer, corpus, words=cut)
    assert units_in(words, 0) == ["我", "爱", "北京", "天安门"]
    assert units_in(words, 1) == units_in(pieces, 1)
    states, encoded = alone(model, tokenizer, "我爱北京天安门")
    within = [i for i, (low, high) in enumerate(encoded.encodings[0].offsets) if low >= 2 and 0 < high <= 4]
    np.testing.assert_allclose(words.tokens[:, 2], states[:, within].mean(1), atol=1e-5)
    with pytest.raises(probes.InputError, match=r"a segmenter gives the word '京', which is not in what is left"):
        capture(model, tokenizer, corpus, words={"zh": lambda text: ["北京", "京"]})
    # In a tokenizer that makes one word of a clause, its pieces are the units.
    assert len(units_in(pieces, 0)) == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"th": str.split}, "words has a segmenter for 'th'; the languages of the corpus are 'en'"),
        ("jieba", "words='jieba': expected True, or for languages without spaces a function from a text to its words"),
    ],
)
def test_segmenters_that_cannot_be_used_are_refused_before_the_model_runs(bundled, monkeypatch, words, message):
    model, tokenizer = bundled
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(probes.InputError, match=message):
        capture(model, tokenizer, make_corpus(TEXTS), words=words)


def test_words_of_a_tokenizer_that_does_not_say_where_tokens_lie_are_refused(bundled, monkeypatch):
    model, tokenizer = bundled
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda _: False))
    with pytest.raises(
        probes.InputError, match=r"does not say where in the text its tokens lie, and words are made of"
    ):
        capture(model, tokenizer, make_corpus(TEXTS), words=True)
    assert "tokens" in capture(model, tokenizer, make_corpus(TEXTS), tokens=True)


def test_words_are_what_spaces_separate_where_there_are_tags(bundled):
    corpus = make_corpus(["don't go, Mary", "yes"], tags=["V V N", "X"])
    reps = capture(*bundled, corpus, words=True)
    assert [units_in(reps, row) for row in (0, 1)] == [["don't", "go,", "Mary"], ["yes"]]
    assert reps.token_place.values.tolist() == [0, 1, 2, 0]


def test_texts_are_cut_and_paired_as_the_model_reads_them(bundled):
    corpus = make_corpus(["one two three four", "five"], text_pair=["six", "seven eight"])
    reps = capture(*bundled, corpus, words=True)
    assert units_in(reps, 1) == ["five", "seven", "eight"]
    with pytest.warns(probes.LayerscopeWarning, match="are cut there"):
        cut = capture(*bundled, make_corpus(["the the the the", "the"]), words=True, max_length=4)
    assert cut.token_count.values.tolist() == [2, 1]
