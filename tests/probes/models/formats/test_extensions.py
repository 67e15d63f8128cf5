"""The list of formats: what a configuration promises is made, applied, kept and asked of verbs in one order."""

import pytest
import torch
import transformers

import probes
from probes.models.formats.extensions import (
    FORMATS,
    apply_formats,
    check_allowed,
    check_kept,
    check_loadable,
    from_pretrained,
    promised,
    unlike,
)
from probes.models.formats.sparse_embeddings import apply_sparse_head

SAID = {
    "layers_kept": {"numbers": [0, 2, 3], "of": {"num_hidden_layers": 4}},
    "heads_kept": [1, 2, 1],
    "channels_kept": [5, 6, 6],
    "factorized": {"encoder.layer.0.output.dense": {"rank": 2}},
    "hashed_weights": {"encoder.layer.0.attention.output.dense": {"buckets": 20, "seed": 5}},
    "sparse_embeddings": {"features": 16},
    "output_codes": {"bits": 7},
    "shared_layers": {"encoder.layer.2.intermediate.dense": "encoder.layer.1.intermediate.dense"},
    "quantized_inputs": {"encoder.layer.1.output.dense": {"bits": 4}},
}
CODES = {"quantization_config": {"quant_method": "torchao"}}


def whole(tiny_models, said=SAID):
    """A model with all that a configuration says."""
    model = tiny_models("BertForSequenceClassification")
    for key, value in said.items():
        setattr(model.config, key, value)
    for form in promised(model.config):
        if form.make is not None:
            form.make(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    for name, codes in model.named_buffers():
        if name.endswith(".codes"):  # of the output, one a word, as a file has them
            codes.copy_(torch.arange(len(codes), dtype=codes.dtype)[:, None])
    apply_formats(model)
    return model


def test_every_key_is_listed_once_and_said_in_words():
    assert [f.key for f in FORMATS] == [*SAID, *CODES, "text_embedding"]
    assert all(f.has for f in FORMATS)


def test_nothing_is_promised_by_a_plain_model(tiny_models):
    model = tiny_models("BertModel")
    assert promised(model.config) == []
    assert apply_formats(model) == set()
    check_kept(model)
    check_allowed(model, "compress")


@pytest.mark.parametrize("kind", [transformers.BertForSequenceClassification, transformers.AutoModel])
def test_a_model_is_made_as_its_configuration_says_and_is_of_its_own_class(tiny_models, tmp_path, kind):
    model = whole(tiny_models)
    check_kept(model)
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    loaded, told = from_pretrained(kind, config, tmp_path, config=config, output_loading_info=True)
    assert type(loaded) is (transformers.BertModel if kind is transformers.AutoModel else kind)
    filled = apply_formats(loaded, told["missing_keys"])
    assert set(told["missing_keys"]) == filled
    check_kept(loaded)
    mine = model.bert if kind is transformers.AutoModel else model
    state = mine.state_dict() | {k: v for k, v in model.state_dict().items() if k.startswith("sparse_head.")}
    assert {k: v.shape for k, v in loaded.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())


def test_a_checkpoint_without_the_name_of_an_architecture_has_its_formats(tiny_models, make_tokenizer, tmp_path):
    model = whole(tiny_models, {"heads_kept": SAID["heads_kept"]}).bert
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.architectures = None
    config.save_pretrained(tmp_path)
    loaded, _ = probes.load_checkpoint(tmp_path)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("key", "lacking"),
    [
        ("heads_kept", r"fewer heads \(config.heads_kept\), and says \[1, 2, 1\] of each layer where the model has"),
        ("factorized", r"matrices in factors .* and encoder.layer.0.output.dense is whole"),
        (
            "hashed_weights",
            "matrices of hashed weights .* and encoder.layer.0.attention.output.dense has a number",
        ),
        ("sparse_embeddings", "a sparse head .* and the model has none"),
        ("output_codes", "an output layer of codewords .* and its output layer has a number for each word"),
        ("shared_layers", "layers that share .* and encoder.layer.2.intermediate.dense has a weight of its own"),
        ("quantized_inputs", "inputs that are rounded .* those of encoder.layer.1.output.dense are rounded otherwise"),
    ],
)
def test_what_is_promised_and_not_there_is_said(tiny_models, key, lacking):
    model = tiny_models("BertForSequenceClassification")
    setattr(model.config, key, SAID[key])
    for check in (check_kept, lambda m: check_allowed(m, "compress")):
        with pytest.raises(probes.InputError, match=f"its configuration promises {lacking}"):
            check(model)


@pytest.mark.parametrize(
    ("key", "verb", "message"),
    [
        ("heads_kept", "narrow", "has lost some"),
        ("factorized", "distill", "1 matrices of its layers are in factors"),
        ("hashed_weights", "prune_heads", "1 of its matrices are few numbers dealt out by a hash"),
        ("shared_layers", "prune_channels", "channels are chosen in each layer, and layers of this model share"),
        ("sparse_embeddings", "onnxruntime", "an export to ONNX has none"),
        ("output_codes", "narrow", "read states of the width that it has"),
        ("quantization_config", "torchao", "quantised already"),
    ],
)
def test_what_a_format_forbids_is_forbidden_and_other_things_are_not(tiny_models, key, verb, message):
    said = SAID | CODES
    model = whole(tiny_models, {key: said[key]})
    with pytest.raises(probes.InputError, match=message):
        check_allowed(model, verb)
    if key == "hashed_weights":
        check_allowed(model, "sparsify_embeddings")
    if key != "quantization_config":
        if key != "hashed_weights":
            check_allowed(model, "compress")
        check_allowed(model, "save packed")


def test_a_checkpoint_that_needs_a_package_is_refused_before_its_weights(tiny_models, monkeypatch):
    config = tiny_models("BertModel").config
    check_loadable(config, "m")
    config.quantization_config = CODES["quantization_config"]
    monkeypatch.setitem(__import__("sys").modules, "torchao", None)
    with pytest.raises(probes.InputError, match="m: a model quantised by torchao needs"):
        check_loadable(config, "m")


def test_a_head_of_another_size_is_refused(tiny_models):
    model = whole(tiny_models, {"sparse_embeddings": {"features": 16}})
    model.config.sparse_embeddings = {"features": 8}
    with pytest.raises(probes.InputError, match="says 8 features and the model's head has 16"):
        apply_sparse_head(model)


def test_what_would_be_otherwise_is_said_by_name(tiny_models):
    model = tiny_models("BertModel")
    assert unlike(model) is None
    model.encoder.layer[1].attention.self.scaling = 2.0
    assert unlike(model, shapes_only=True) is None
    assert unlike(model).startswith("encoder.layer.1.attention.self.scaling is 2.0, and would be 0.")
    model.config.intermediate_size += 1
    assert unlike(model, shapes_only=True).startswith("encoder.layer.0.intermediate.dense.weight is ")
    model.config.num_attention_heads = 5
    assert "its configuration makes no model: The hidden size (12) is not a multiple" in unlike(model)
