"""The texts trained on: of which split, as which numbers, and side by side in a batch."""

import numpy as np
import pandas as pd
import pytest
import tiny

import probes
from compress.objectives.labels import CrossEntropy
from compress.rows import padding_for, trained_on, training_rows
from compress.training.loop import train
from probes.states.tokens import batches_of


@pytest.fixture
def corpus():
    texts = ["red dog ran", "bird", "big cat sat on mat", "he ran"]
    rows = [{"id": i, "language": "en", "text": t, "label": "xyyz"[i]} for i, t in enumerate(texts)]
    return probes.load_corpus(pd.DataFrame(rows))


def with_classes(model, names):
    model.config.id2label = dict(enumerate(names))
    return model


def test_rows_of_the_split_train_are_trained_on_or_all_without_splits(corpus):
    assert trained_on(corpus) == [0, 1, 2, 3]
    assert trained_on(corpus.add_column("split", ["dev", "train", "train", "test"])) == [1, 2]
    with pytest.raises(probes.InputError, match=r"no row of split 'train', only of 'dev', 'test'. Give one that has"):
        trained_on(corpus.add_column("split", ["dev", "test", "dev", "test"]))


def test_rows_hold_the_ids_of_the_tokenizer_and_are_numbered_among_those_that_are_trained_on(
    tiny_models, tokenizer, corpus
):
    model = with_classes(tiny_models("BertForSequenceClassification"), "xyz")
    rows, labelled = training_rows(corpus.add_column("split", ["dev", "train", "train", "train"]), model, tokenizer)
    assert labelled
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert [row["input_ids"] for row in rows] == [tokenizer(t)["input_ids"] for t in list(corpus["text"])[1:]]
    assert [row["labels"] for row in rows] == [1, 1, 2]
    bare, labelled = training_rows(corpus.remove_columns("label"), model, tokenizer)
    assert not labelled
    assert all("labels" not in row for row in bare)
    pairs, _ = training_rows(corpus.add_column("text_pair", ["the house"] * 4), model, tokenizer)
    assert pairs[1]["input_ids"] == tokenizer("bird", "the house")["input_ids"]


@pytest.mark.parametrize(
    ("by", "expected"), [("student", [0, 1, 1, 2]), ("teacher", [1, 2, 2, 0]), (None, [1, 2, 2, 3])]
)
def test_labels_are_numbers_of_the_classes_of_either_model_or_of_their_names_in_order(
    tiny_models, tokenizer, corpus, by, expected
):
    if by is None:  # no class of either model
        corpus = corpus.map(lambda row: {"label": {"x": "b", "y": "c", "z": "d"}[row["label"]]})
        corpus = probes.load_corpus(
            pd.concat([corpus.to_pandas(), corpus.to_pandas().assign(label="a")]).assign(id=range(8))
        )
    student, teacher = (with_classes(tiny_models("BertForSequenceClassification"), n) for n in ("xyz", "zxy"))
    rows, _ = training_rows(corpus, student, tokenizer, teacher, numbered_by=by)
    assert [row["labels"] for row in rows][:4] == expected


def test_texts_are_cut_at_the_shorter_of_the_models_and_a_foreign_label_is_refused(tiny_models, tokenizer, corpus):
    student = with_classes(tiny_models("BertForSequenceClassification"), "xyz")
    teacher = tiny_models("BertForSequenceClassification", max_position_embeddings=4)
    lengths = [
        max(len(row["input_ids"]) for row in training_rows(corpus, student, tokenizer, t)[0]) for t in (None, teacher)
    ]
    assert lengths == [7, 4]
    with pytest.raises(probes.InputError, match="label 'z' is no class of model"):
        training_rows(corpus, with_classes(student, "xyw"), tokenizer)


def test_rows_that_cannot_be_padded_for_a_model_and_its_teacher_are_refused(make_tokenizer):
    rows, tokenizer = [{"input_ids": [5, 6]}, {"input_ids": [5]}], make_tokenizer()
    bert, xlnet, fnet = (tiny.make(name) for name in ("bert", "xlnet", "fnet"))
    assert padding_for(rows, tokenizer, bert, tiny.make("roberta")) == (tokenizer.pad_token_id, False)
    assert padding_for(rows, tokenizer, xlnet).left
    with pytest.raises(probes.InputError, match=r"BertModel and its teacher XLNetModel .* different sides. Take"):
        padding_for(rows, tokenizer, bert, xlnet)
    for pair in ((fnet,), (bert, fnet)):
        with pytest.raises(probes.InputError, match=r"FNetModel reads padding as text.* Train on texts of one length"):
            padding_for(rows, tokenizer, *pair)
    padding_for(rows[:1], tokenizer, fnet)


def test_texts_are_read_as_capture_reads_them(tiny_models, make_tokenizer, corpus):
    """After the prompt and at the length that the checkpoint declares; each can be given in its place."""
    model, tokenizer = with_classes(tiny_models("BertForSequenceClassification"), "xyz"), make_tokenizer()
    plain = [row["input_ids"] for row in training_rows(corpus, model, tokenizer)[0]]
    model.config.text_embedding = {"prompt": "the dog ", "max_length": 5}
    read = [row["input_ids"] for row in training_rows(corpus, model, tokenizer)[0]]
    assert read == [tokenizer("the dog " + t, truncation=True, max_length=5)["input_ids"] for t in corpus["text"]]
    _, batches = batches_of(model, tokenizer, corpus, "tiny", batch_size=1)
    captured = {int(at[0]): batch["input_ids"][0].tolist() for at, batch in batches()}
    assert [captured[i] for i in range(len(corpus))] == read != plain
    asked = training_rows(corpus, model, tokenizer, prompt="", max_length=4)[0]
    assert [row["input_ids"] for row in asked] == [
        tokenizer(t, truncation=True, max_length=4)["input_ids"] for t in corpus["text"]
    ]
    with pytest.raises(probes.InputError, match=r"max_length=100000: expected 1 to \d+, the most tokens"):
        training_rows(corpus, model, tokenizer, max_length=100_000)
    given = {"objective": [CrossEntropy()], "steps": 1, "progress": False}
    history = train(model, tokenizer, corpus, prompt="", max_length=4, **given)
    assert np.isfinite(history["loss"]).all()


def test_columns_lie_beside_the_rows_and_the_texts_of_a_pair_apart(tiny_models, tokenizer, corpus):
    model = with_classes(tiny_models("BertForSequenceClassification"), "xyz")
    more = corpus.to_pandas().assign(topic=["p", "q", "q", "p"], split=["dev", "train", "train", "train"])
    more = probes.corpus.datasets.Dataset.from_pandas(more.assign(text_pair=["a", "the", "dog sat", "he"]))
    rows, _ = training_rows(more, model, tokenizer, columns=["topic", "id", "group"], apart=True)
    assert [row["beside"] for row in rows] == [
        {"topic": t, "id": str(i + 1), "pair": tokenizer(pair)["input_ids"]}
        for i, (t, pair) in enumerate([("q", "the"), ("q", "dog sat"), ("p", "he")])
    ]
    assert [row["input_ids"] for row in rows] == tokenizer(list(more["text"])[1:])["input_ids"]
    with pytest.raises(
        probes.InputError, match=r"no column 'theme', which this training reads; it has 'id', 'language'"
    ):
        training_rows(more, model, tokenizer, columns=["theme"])
    assert "beside" not in training_rows(more, model, tokenizer)[0][0]
