"""Sparse representations: losses against formulas, the index against brute force, a training from end to end."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from stops import Stops
from translated import a_corpus

import probes
from compress.retrieval.index import inverted_index, nearest
from compress.retrieval.retrieval_cost import recall, retrieval_cost
from compress.retrieval.sparse_embeddings import sparse_embeddings
from compress.retrieval.sparsify_embeddings import sparsify_embeddings
from compress.saving import save
from probes.errors import InputError


def test_the_regulariser_makes_vectors_sparser_and_without_it_they_are_not(trained):
    model, tokenizer, made = trained
    costs = {}
    for weight, sparse in made.items():
        vectors = sparse_embeddings(sparse, tokenizer, a_corpus(), progress=False)
        costs[weight] = retrieval_cost(vectors)
        rows, _ = nearest(vectors[::2], inverted_index(vectors[1::2]), k=3)
        assert recall(rows, np.arange(36), 1) > 0.8  # translations are found: chance is 1 / 36
    assert costs[0.0]["nonzeros"] > 1.3 * costs[20.0]["nonzeros"]
    assert costs[0.0]["flops"] > 1.8 * costs[20.0]["flops"]
    done = made[20.0].config.compression
    assert done["method"] == "sparsify_embeddings"
    assert (done["flops"], done["features"], done["steps"], done["ramp"]) == (20.0, 64, 30, 15)
    assert (done["texts"], done["texts_left_out"]) == (72, 0)
    assert done["cost"] == pytest.approx(costs[20.0], rel=1e-4)  # all texts are fewer than those it is measured on
    assert list(made[20.0].history) == ["step", "translations", "flops", "loss"]
    assert list(made[0.0].history) == ["step", "translations", "loss"]
    assert made[20.0].training == model.training
    assert not made[20.0]._forward_hooks


@pytest.mark.parametrize("packed", [False, True])
def test_it_is_saved_and_loaded_with_the_same_vectors(trained, tmp_path, packed):
    _, tokenizer, made = trained
    out = save(made[20.0], tmp_path / "sparse", tokenizer, packed=packed)
    back, tokens = probes.load_checkpoint(out)
    assert type(back) is type(made[20.0])
    expected, found = (
        sparse_embeddings(m, t, a_corpus(), progress=False) for m, t in ((made[20.0], tokenizer), (back, tokens))
    )
    assert (expected != found).nnz == 0
    assert (out / "compression.json").is_file()
    assert probes.models.fingerprint.weights_fingerprint(back) == probes.models.fingerprint.weights_fingerprint(
        made[20.0]
    )


def test_a_soft_threshold_is_trained_saved_and_loaded(tiny_models, make_tokenizer, tmp_path):
    model, tokenizer = tiny_models("BertModel"), make_tokenizer()
    how = {"train": a_corpus(), "tokenizer": tokenizer, "features": 32, "batch_size": 16, "progress": False}
    made = sparsify_embeddings(model, steps=3, threshold=0.05, moving=0.9, flops=0.1, **how)
    assert made.config.sparse_embeddings == {"features": 32, "threshold": 0.05}
    assert made.config.compression["threshold"] == 0.05
    vectors = sparse_embeddings(made, tokenizer, a_corpus(), progress=False)
    assert (vectors.data < 0).any()
    back, _ = probes.load_checkpoint(save(made, tmp_path / "sparse", tokenizer))
    assert (sparse_embeddings(back, tokenizer, a_corpus(), progress=False) != vectors).nnz == 0
    with pytest.raises(InputError, match="threshold=-1: expected a finite number of at least 0, 0 for ReLU"):
        sparsify_embeddings(model, steps=3, threshold=-1, **how)


def test_rows_without_a_translation_are_left_out_and_rows_of_other_splits(tiny_models, make_tokenizer):
    frame = a_corpus(split="train").to_pandas()
    frame.loc[4:5, "split"] = "test"
    frame = frame.drop(index=[0, 3])
    how = {"tokenizer": make_tokenizer(), "steps": 1, "features": 24, "progress": False}
    done = sparsify_embeddings(tiny_models("BertModel"), train=probes.load_corpus(frame), **how).config.compression
    assert (done["texts"], done["texts_left_out"]) == (66, 2)


@pytest.mark.parametrize(
    "architecture", ["BertModel", "DistilBertModel", "RobertaModel", "GPT2LMHeadModel", "LlamaModel"]
)
def test_other_architectures_are_trained_saved_and_loaded(architecture, tiny_models, make_tokenizer, tmp_path):
    # Of RoBERTa the padding says where positions begin, and training takes over the tokenizer's.
    model = tiny_models(architecture, **({"pad_token_id": 0} if architecture == "RobertaModel" else {}))
    tokenizer = make_tokenizer()
    how = {"train": a_corpus(), "tokenizer": tokenizer, "features": 24, "flops": 0.01, "progress": False}
    sparse = sparsify_embeddings(model, steps=2, batch_size=8, **how)
    back, _ = probes.load_checkpoint(save(sparse, tmp_path / "sparse", tokenizer))
    expected, found = (sparse_embeddings(m, tokenizer, a_corpus(), progress=False) for m in (sparse, back))
    assert (expected != found).nnz == 0


def test_an_interrupted_training_ends_as_it_would_have(tiny_models, make_tokenizer, tmp_path):
    model = tiny_models("BertForSequenceClassification")
    how = {"train": a_corpus(), "tokenizer": make_tokenizer(), "steps": 4, "features": 24, "progress": False}
    whole = sparsify_embeddings(model, **how)
    how |= {"folder": tmp_path / "run", "save_every": 2}
    with pytest.raises(KeyboardInterrupt):
        sparsify_embeddings(model, callbacks=[Stops(3)], **how)
    resumed = sparsify_embeddings(model, **how)
    finished = sparsify_embeddings(model, **how)
    for other in (resumed, finished):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in whole.state_dict().items())
        pd.testing.assert_frame_equal(whole.history, other.history)
    with pytest.raises(InputError, match=r"temperature is 0.1 here and was 0.05 there"):
        sparsify_embeddings(model, temperature=0.1, **how)


def test_the_weight_rises_by_updates_also_where_batches_are_accumulated(tiny_models, make_tokenizer):
    how = {"train": a_corpus(), "tokenizer": make_tokenizer(), "steps": 4, "features": 24, "progress": False}
    how |= {"learning_rate": 1e-12, "batch_size": 36, "ramp": 3, "flops": 1.0}
    model = tiny_models("BertModel", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    once = sparsify_embeddings(model, **how).history.flops
    twice = sparsify_embeddings(model, accumulate=2, **how).history.flops
    a = once.iloc[3]
    assert once.iloc[0] == pytest.approx(a / 9, rel=0.1)
    assert once.iloc[1] == pytest.approx(a * 4 / 9, rel=0.1)
    assert twice.iloc[0] == pytest.approx(a * (1 + 4) / 2 / 36, rel=0.1)
    assert twice.iloc[2] == pytest.approx(a * (25 + 36) / 2 / 36, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "features=0: expected a whole number of at least 1"),
        ({"flops": -1.0}, "flops=-1.0: expected a finite number of at least 0"),
        ({"l1": math.nan}, "l1=nan: expected a finite number of at least 0"),
        ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
        ({"ramp": -1}, "ramp=-1: expected a whole number of steps"),
        ({"temperature": 0.0}, "temperature=0.0: expected a finite number above 0"),
        ({"batchsize": 3}, "batchsize=3: no such setting. Did you mean batch_size"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message, tiny_models, make_tokenizer):
    how = {"train": a_corpus(), "tokenizer": make_tokenizer(), "steps": 1} | settings
    with pytest.raises(InputError, match=message):
        sparsify_embeddings(tiny_models("BertModel"), **how)


def test_a_corpus_without_translations_is_refused(tiny_models, make_tokenizer):
    model, tokenizer = tiny_models("BertModel"), make_tokenizer()
    with pytest.raises(InputError, match=r"36 rows in 1 language\(s\) \(one\) and no id in two of them"):
        sparsify_embeddings(model, train=a_corpus(["one"]), tokenizer=tokenizer, steps=1)
    frame = a_corpus().to_pandas()
    frame["id"] = [f"s{i}" for i in range(len(frame))]
    with pytest.raises(InputError, match=r"72 rows in 2 language\(s\) \(one, two\) and no id in two of them"):
        sparsify_embeddings(model, train=probes.load_corpus(frame), tokenizer=tokenizer, steps=1)
    with pytest.raises(InputError, match="only one sentence has translations"):
        sparsify_embeddings(model, train=a_corpus().select([0, 1, 2]), tokenizer=tokenizer, steps=1)
    with pytest.raises(InputError, match="expected at least one row"):
        sparsify_embeddings(model, train=a_corpus().select([]), tokenizer=tokenizer, steps=1)


def test_models_that_cannot_be_taken_are_refused(trained, tiny_models, make_tokenizer):
    model, tokenizer, made = trained
    how = {"train": a_corpus(), "tokenizer": tokenizer, "steps": 1}
    with pytest.raises(InputError, match="is an encoder-decoder"):
        sparsify_embeddings(tiny_models("T5Model"), **how)
    with pytest.raises(InputError, match="has a sparse head already"):
        sparsify_embeddings(made[20.0], **how)
    with pytest.raises(InputError, match=r"has no sparse head: expected a model of compress.sparsify_embeddings"):
        sparse_embeddings(model, tokenizer, a_corpus())


def test_a_folder_without_the_weights_of_its_head_is_refused(trained, tmp_path):
    model, tokenizer, made = trained
    out, bare = save(made[20.0], tmp_path / "sparse", tokenizer), save(model, tmp_path / "bare", tokenizer)
    shutil.copy(bare / "model.safetensors", out / "model.safetensors")
    with pytest.raises(
        InputError, match=r"weights of the model are missing in the checkpoint: sparse_head.linear.bias"
    ):
        probes.load_checkpoint(out)
