"""Fingerprints: one hash for one function, and another where a weight or a setting changes it."""

import pytest
import torch

from probes.models.fingerprint import plain_parts, tokenizer_fingerprint, weights_fingerprint


def test_copies_have_one_fingerprint_and_a_changed_weight_or_setting_another(tiny_models):
    model = tiny_models("BertModel")
    copy = tiny_models("BertModel")
    assert weights_fingerprint(copy) == weights_fingerprint(model)
    copy.config._name_or_path = "elsewhere"
    assert weights_fingerprint(copy) == weights_fingerprint(model)
    with torch.no_grad():
        weight = copy.encoder.layer[1].output.dense.bias
        weight[3] = torch.nextafter(weight[3], torch.tensor(9.0))
    assert weights_fingerprint(copy) != weights_fingerprint(model)
    copy = tiny_models("BertModel")
    copy.config.hidden_act = "relu"
    assert weights_fingerprint(copy) != weights_fingerprint(model)


def test_a_fingerprint_does_not_depend_on_what_says_where_and_when_it_was_saved(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    before = weights_fingerprint(model)
    model.config.id2label = {0: "no", 1: "so", 2: "yes"}
    model.config.compression = {"method": "prune"}
    model.config.transformers_version = "0"
    assert weights_fingerprint(model) == before
    model.config.heads_kept = [2, 2, 2]  # a key of ours is a setting like any other
    assert weights_fingerprint(model) != before


def test_a_tokenizer_has_another_fingerprint_where_it_makes_other_tokens(make_tokenizer):
    one, other = make_tokenizer(), make_tokenizer()
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(other)
    other("a text", truncation=True, max_length=3)
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(other)
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(make_tokenizer(words=["other"]))


def test_a_quantised_tensor_is_the_tensors_that_it_is_made_of():
    torchao = pytest.importorskip("torchao.quantization")
    plain = torch.ones(2, 3)
    assert list(plain_parts(plain)) == [plain]
    layer = torch.nn.Sequential(torch.nn.Linear(32, 8))
    torchao.quantize_(layer, torchao.Int8WeightOnlyConfig())
    parts = list(plain_parts(layer[0].weight.detach()))
    assert len(parts) > 1
    assert any(part.dtype == torch.int8 for part in parts)
