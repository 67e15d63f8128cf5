"""Kinds of labels: what a head is trained on, word by word and by hand, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
from labelled import CLASSES, HEADS, corpus_of, model_of
from transformers import PreTrainedTokenizerFast

import probes
from compress.kinds import IGNORED
from compress.rows import training_rows
from probes.errors import InputError
from probes.states.batches import collate
from probes.states.tokens import Padding


@pytest.fixture
def pieces():
    """A tokenizer of words in pieces: "dogcat" is two tokens."""
    known = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "dog",
        "##cat",
        "red",
        "the",
        ":",
        "##s",
        *(f"[{i}]" for i in range(17)),
    ]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({token: i for i, token in enumerate(known)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **names)


def test_the_first_piece_of_a_word_has_its_label_and_no_other(pieces, tiny_models):
    model = model_of("words", tiny_models)
    rows = [("dogcats red", "y z"), ("red: dog", "z x"), ("the dogcat dogs red", "x y z x")]
    corpus = probes.load_corpus(
        pd.DataFrame([{"id": i, "language": "en", "text": t, "tags": tags} for i, (t, tags) in enumerate(rows)])
    )
    found, labelled = training_rows(corpus, model, pieces)
    assert labelled
    by_hand = [
        [IGNORED, 1, IGNORED, IGNORED, 2, IGNORED],  # [CLS] dog ##cat ##s red [SEP]
        [IGNORED, 2, IGNORED, 0, IGNORED],  # [CLS] red : dog [SEP]
        [IGNORED, 0, 1, IGNORED, 2, IGNORED, 0, IGNORED],
    ]
    assert [row["tags"] for row in found] == by_hand
    prompted, _ = training_rows(corpus, model, pieces, prompt="red the ")
    assert [row["tags"] for row in prompted] == [[IGNORED] * 2 + row[:1] + row[1:] for row in by_hand]
    cut, _ = training_rows(corpus, model, pieces, max_length=5)
    assert cut[2]["tags"] == [IGNORED, 0, 1, IGNORED, IGNORED]  # [CLS] the dog ##cat [SEP]: two words are cut off
    batch = collate(Padding(0, left=True), found[:2])
    assert batch["labels"].tolist() == [by_hand[0], [IGNORED, *by_hand[1]]]
    assert "tags" not in batch


def test_of_a_pair_the_words_of_the_first_text_are_labelled(pieces, tiny_models):
    corpus = probes.load_corpus(
        pd.DataFrame({"id": [0], "language": "en", "text": "dog red", "text_pair": "red dog the", "tags": "y z"})
    )
    rows, _ = training_rows(corpus, model_of("words", tiny_models), pieces)
    assert rows[0]["tags"] == [IGNORED, 1, 2] + [IGNORED] * 5


def test_several_labels_are_ones_among_zeros_and_numbers_stay_numbers(tokenizer, tiny_models):
    corpus = corpus_of("several")
    rows, labelled = training_rows(corpus, model_of("several", tiny_models), tokenizer)
    assert labelled
    for row, labels in zip(rows, corpus["labels"], strict=True):
        assert row["labels"] == [float(c in labels.split()) for c in CLASSES]
    assert {sum(row["labels"]) for row in rows} == {0, 1, 2}
    corpus = corpus_of("numbers")
    rows, _ = training_rows(corpus, model_of("numbers", tiny_models), tokenizer)
    assert [row["labels"] for row in rows] == [float(label) for label in corpus["label"]]
    batch = collate(Padding(0, left=False), rows[:3])
    assert batch["labels"].dtype == torch.float32
    np.testing.assert_allclose(batch["labels"], [float(label) for label in corpus["label"][:3]])


def test_a_corpus_without_the_column_of_its_head_has_no_labels(tokenizer, tiny_models):
    for kind in HEADS:
        other = "classes" if kind in ("several", "words") else "several"
        rows, labelled = training_rows(corpus_of(other), model_of(kind, tiny_models), tokenizer)
        assert not labelled
        assert "labels" not in rows[0]


def test_labels_that_do_not_fit_their_head_are_refused(tokenizer, tiny_models):
    with pytest.raises(InputError, match=r"row 0: label 'y' is no number, and the head of .* gives one number a text"):
        training_rows(corpus_of("classes"), model_of("numbers", tiny_models), tokenizer)
    rows = {"id": [0], "language": "en", "text": "red dog"}
    with pytest.raises(InputError, match="label 'q' is no class of model"):
        training_rows(
            probes.load_corpus(pd.DataFrame({**rows, "tags": "x q"})), model_of("words", tiny_models), tokenizer
        )
    with pytest.raises(InputError, match="label 'q' is no class of model"):
        training_rows(
            probes.load_corpus(pd.DataFrame({**rows, "labels": "q"})), model_of("several", tiny_models), tokenizer
        )
