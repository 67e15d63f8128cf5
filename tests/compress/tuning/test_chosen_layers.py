"""Layers that are trained: chosen by variability, held to the probe; those above the head gone."""

import numpy as np
import pytest
import torch
import transformers
from trained import QUIET, WORDS, make_corpus, weights

import compress
import probes
from compress.training.masks import layer_numbers
from compress.tuning.chosen_layers import least_variable
from probes.errors import InputError


@pytest.fixture
def given(tokenizer):
    return {"train": make_corpus(), "tokenizer": tokenizer, "steps": 2, **QUIET}


@pytest.fixture
def planted(make_classifier):
    """A model whose last layer tells classes apart less than those below it."""
    model = make_classifier()
    with torch.no_grad():
        for name, parameter in model.bert.encoder.layer[2].named_parameters():
            if "LayerNorm.weight" in name:
                parameter.fill_(1.0)
            else:
                parameter.mul_(30.0)
    return model


def moved(before, model):
    after = weights(model)
    return {n for n in before if n in after and not torch.equal(before[n], after[n])}


pytestmark = pytest.mark.filterwarnings("ignore:variability of model")


def test_the_layer_is_the_one_where_the_probe_says_classes_vary_least(planted, given, tokenizer):
    train = given["train"].filter(lambda row: row["split"] == "train")
    reps = probes.capture(planted, tokenizer, train, pooling="mean", progress=False)
    nu = probes.variability(reps, draws=2).value.sel(language="pooled").values
    assert nu[3] > 2 * nu[1:3].max()
    layer, share = least_variable(planted, tokenizer, given["train"], seed=0)
    assert layer == 1 + int(np.argmin(nu[1:])) == 1
    assert 0.5 < share <= 1
    # What is not trained on plays no part.
    other = probes.load_corpus(
        given["train"].to_pandas().assign(label=lambda t: t["label"].where(t["split"] == "train", "x"))
    )
    assert least_variable(planted, tokenizer, other, seed=0) == (layer, share)


def test_the_head_reads_it_and_layers_above_are_gone(planted, given, tokenizer, tmp_path):
    before = weights(planted)
    tuned = compress.finetune(planted, layers="by variability", tuned=1, **given)
    assert tuned.config.num_hidden_layers == 1
    done = tuned.config.compression
    assert (done["method"], done["head_layer"], done["layers"], done["made_of"]) == ("finetune", 1, [1], [0])
    assert "before" not in done
    layers, _ = layer_numbers(tuned)
    assert {layers.get(n, "head") for n in moved(before, tuned)} == {1, "head"}
    assert all(torch.equal(v, before[k]) for k, v in planted.state_dict().items())
    compress.save(tuned, tmp_path / "it", tokenizer)
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "it").eval()
    batch = tokenizer(list(WORDS.values()), return_tensors="pt", padding=True)
    batch = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found = back(**batch).logits
        assert torch.equal(found, tuned.eval()(**batch).logits)
        state = tuned(**batch, output_hidden_states=True).hidden_states[1]
        whole = planted.eval()(**batch, output_hidden_states=True).hidden_states
    assert torch.equal(tuned.classifier(tuned.bert.pooler(state)), found)
    assert len(whole) == 4
    with torch.no_grad():  # frozen, the embeddings are those of the whole model
        assert torch.equal(tuned(**batch, output_hidden_states=True).hidden_states[0], whole[0])


@pytest.mark.parametrize(
    ("layers", "tuned", "expected"),
    [("top", 1, {3}), ("bottom", 2, {1, 2}), ("all", 2, {0, 1, 2, 3}), ([0, 2], 2, {0, 2}), ([], 2, set())],
)
def test_baselines_train_their_layers_and_keep_all(make_classifier, given, layers, tuned, expected):
    model = make_classifier()
    before = weights(model)
    made = compress.finetune(model, layers=layers, tuned=tuned, **given)
    numbers, depth = layer_numbers(made)
    assert depth == 3
    assert {numbers.get(n, "head") for n in moved(before, made)} == {*expected, "head"}
    assert made.config.compression.get("layers") == (None if layers == "all" else sorted(expected))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [4]}, r"layer 4 is not there: the model has the layers 0, its embeddings, to 3, the last one"),
        ({"layers": "middle"}, r"layers='middle'.*by variability"),
        ({"layers": "top", "tuned": 4}, r"tuned=4: expected a whole number from 1 to 3, the layers that are trained"),
        (
            {"layers": "top", "gradients": compress.GradDrop(0.3)},
            r"layers=... and gradients=... both say which weights",
        ),
    ],
)
def test_what_cannot_be(classifier, given, changes, message):
    with pytest.raises(InputError, match=message):
        compress.finetune(classifier, **given, **changes)


def test_without_classes_layers_are_not_chosen(classifier, tiny_models, given):
    how = given | {"layers": "by variability"}
    with pytest.raises(InputError, match="is told by classes: the corpus has no column 'label'"):
        compress.finetune(classifier, **how | {"train": given["train"].remove_columns("label")})
    one = given["train"].filter(lambda row: row["label"] == "x")
    with pytest.raises(InputError, match="is told by classes, and there is one: 'x'"):
        compress.finetune(classifier, **how | {"train": one})
    with pytest.raises(InputError, match="are of an encoder and a decoder, and none of them can be chosen by itself"):
        compress.finetune(tiny_models("T5ForConditionalGeneration"), **how)
