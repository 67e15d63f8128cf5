"""Words: the token that stands for each, whatever the tokenizer, and its scores in padded batches."""

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
from labelled import corpus_of, model_of
from transformers import PreTrainedTokenizerFast

import probes
from probes.states.predictions import KEPT, predicts
from probes.states.words import first_tokens, scores_of_words, word_places


def test_words_are_found_where_tokens_begin_with_the_space():
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({"a": 0, "b": 1, "Ġ": 2, "Ġa": 3, "ab": 4}, [("Ġ", "a"), ("a", "b")])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    texts = ["ab a b", "b  a"]
    encoded = tokenizer(texts)
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in encoded["input_ids"]] == [
        ["ab", "Ġa", "Ġ", "b"],
        ["b", "Ġ", "Ġa"],
    ]
    assert first_tokens(texts, 0, encoded) == [[0, 1, 3], [0, 2]]


def test_words_beyond_the_cut_and_of_shorter_texts_have_no_place(make_tokenizer):
    corpus = probes.load_corpus(pd.DataFrame({"id": [0, 1], "language": "en", "text": ["the red dog sat", "a cat"]}))
    assert word_places(make_tokenizer(), corpus, 0, 4).tolist() == [[1, 2, -1, -1], [1, 2, -1, -1]]
    prompted = corpus.map(lambda row: {"text": f"the mat {row['text']}"})
    assert word_places(make_tokenizer(), prompted, len("the mat "), None).tolist() == [[3, 4, 5, 6], [3, 4, -1, -1]]


def test_scores_are_taken_behind_padding_on_the_left():
    logits = torch.randn(2, 4, 3)
    places, before = np.array([[1, 2], [0, -1]]), np.array([0, 2])
    found = scores_of_words(logits, places, before)
    assert found.shape == (2, 2, 3)
    assert torch.equal(found[0], torch.stack([logits[0, 1], logits[1, 2]]))
    assert torch.equal(found[1, 0], logits[0, 2])
    assert torch.isneginf(found[1, 1]).all()


def test_a_tokenizer_that_does_not_say_where_tokens_lie_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(probes.InputError, match="the tokenizer does not say where in the text its tokens lie"):
        first_tokens(["a"], 0, Slow())


@pytest.mark.parametrize("kind", ["several", "numbers", "words"])
def test_what_a_head_says_is_kept_as_the_model_says_it_in_memory_and_in_a_store(
    kind, tiny_models, make_tokenizer, tmp_path
):
    """One text at a time by the model itself, and in padded batches."""
    model, tokenizer, corpus = model_of(kind, tiny_models), make_tokenizer(), corpus_of(kind, 12)
    given = {"progress": False, "batch_size": 5}
    reps = probes.capture(model, tokenizer, corpus, **given)
    stored = probes.capture(model, tokenizer, corpus, store=tmp_path / "s.zarr", **given)
    again = probes.open_representations(tmp_path / "s.zarr")
    assert predicts(reps) == kind
    assert "logits" not in reps
    for other in (stored, again):
        np.testing.assert_array_equal(other[kind].values, reps[kind].values)
        assert kind == "numbers" or other[KEPT[kind][1]].values.tolist() == ["x", "y", "z"]
    with torch.no_grad():
        alone = [model(**tokenizer(t, return_tensors="pt")).logits[0].numpy() for t in corpus["text"]]
    for i, (own, text) in enumerate(zip(alone, corpus["text"], strict=True)):
        said = reps[kind].isel(example=i).values
        if kind == "words":
            count = len(text.split())
            np.testing.assert_allclose(said[:count], own[1 : count + 1], atol=1e-5)  # a word is a token here
            assert np.isneginf(said[count:]).all()
        else:
            np.testing.assert_allclose(said, own, atol=1e-5)
