"""Facts about models: names, positions, classes, bodies; what each of the architectures says."""

import pytest
import torch

import probes
from probes.models.facts import (
    body_of,
    check_fit,
    check_length,
    classes_of,
    classifies,
    embedding_rows,
    input_limit,
    layers_made_of,
    name_of,
    positions_of,
    size_of,
    types_tokens,
    weights_dtype,
)


def test_a_model_is_called_by_the_name_it_was_loaded_by_or_by_its_kind(tiny_models):
    model = tiny_models("BertModel")
    assert name_of(model) == "BertModel"
    model.config.name_or_path = "some/where"
    assert name_of(model) == "some/where"
    assert name_of(torch.nn.Linear(1, 1)) == "Linear"


@pytest.mark.parametrize(
    ("architecture", "positions", "types"),
    [
        ("BertModel", 32, True),
        ("RobertaModel", 64, True),  # two of its 66 are never used
        ("DistilBertModel", 32, False),
        ("GPT2LMHeadModel", 32, False),  # which would take them for words
        ("LlamaModel", 32, False),
        ("T5Model", None, False),
    ],
)
def test_positions_and_types_of_tokens(tiny_models, make_tokenizer, architecture, positions, types):
    model = tiny_models(architecture)
    assert positions_of(model) == positions
    assert types_tokens(model) == types
    assert embedding_rows(model) == len(make_tokenizer())
    assert size_of(model, "hidden_size") == 12
    assert input_limit(model, make_tokenizer(limit=20), None) == 20
    assert input_limit(model, make_tokenizer(limit=20), 5) == 5


def test_the_body_is_the_model_without_its_head_or_its_decoder(tiny_models):
    bert, t5 = tiny_models("BertForSequenceClassification"), tiny_models("T5Model")
    assert body_of(bert) is bert.bert
    assert body_of(t5) is t5.encoder
    assert body_of(t5.encoder) is t5.encoder


@pytest.mark.parametrize(
    ("architecture", "changes", "expected"),
    [
        ("BertForSequenceClassification", {}, True),
        ("LlamaForSequenceClassification", {}, True),
        ("BertForSequenceClassification", {"num_labels": 1}, False),  # a regression
        ("BertForSequenceClassification", {"problem_type": "multi_label_classification"}, False),
        ("BertModel", {}, False),
        ("GPT2LMHeadModel", {}, False),
    ],
)
def test_which_models_put_every_text_into_one_class(tiny_models, architecture, changes, expected):
    model = tiny_models(architecture, **changes)
    assert classifies(model) == expected
    model.config.architectures = [architecture]
    assert classifies(model.config) == expected


def test_classes_without_names_are_called_by_their_numbers(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    model.config.id2label = {0: "no", 2: "yes"}
    assert classes_of(model, 3) == ["no", "1", "yes"]


def test_the_type_of_weights_is_that_of_the_first_floats(tiny_models):
    assert weights_dtype(tiny_models("BertModel").to(torch.bfloat16)) == "bfloat16"
    assert weights_dtype(torch.nn.Identity()) == "float32"


def test_a_tokenizer_fits_a_model_with_as_many_embeddings(make_tokenizer):
    tokenizer = make_tokenizer()
    check_fit(len(tokenizer), tokenizer, "m")
    with pytest.raises(probes.InputError, match="m: tokenizer and model do not fit"):
        check_fit(len(tokenizer) - 1, tokenizer, "m")
    with pytest.warns(probes.LayerscopeWarning, match="do they belong together"):
        check_fit(2 * len(tokenizer), tokenizer, "m")


@pytest.mark.parametrize(
    ("wanted", "positions", "limit", "expected"),
    [(None, 32, 20, 20), (None, 16, 20, 16), (7, 16, 20, 7), (None, None, None, None), (99, None, None, 99)],
)
def test_the_longest_input_is_the_smallest_of_what_there_is(make_tokenizer, wanted, positions, limit, expected):
    assert check_length(wanted, positions, make_tokenizer(limit=limit)) == expected


def test_a_length_above_it_is_refused(make_tokenizer):
    with pytest.raises(probes.InputError, match="max_length=17: expected 1 to 16, the most tokens"):
        check_length(17, 16, make_tokenizer(limit=20))


def test_the_layers_that_were_left_are_those_of_a_model_of_as_many(tiny_models):
    model = tiny_models("BertModel")
    assert layers_made_of(model) is None
    model.config.compression = {"method": "drop_layers", "made_of": [0, 2, 5]}
    assert layers_made_of(model) == [0, 2, 5]
    model.config.compression["made_of"] = [0, 2]
    with pytest.warns(probes.LayerscopeWarning, match=r"BertModel: its configuration says which 2 layers .* has 3"):
        assert layers_made_of(model) is None
    model.config.compression["made_of"] = [0, -2, 5]
    with pytest.raises(probes.InputError, match=r"made_of\[1\]: expected a whole number"):
        layers_made_of(model)
