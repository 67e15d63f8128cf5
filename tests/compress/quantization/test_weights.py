"""Which matrices are rounded, to how many bits, in how many bytes."""

import pytest
import torch
from trained import same, weights

import probes
from compress.matrices import block_matrices
from compress.quantization.quantize import quantize
from compress.quantization.quantizers import dequantize, packed_bytes, quantize_tensor

QUERY = "bert.encoder.layer.1.attention.self.query.weight"
FAMILIES = ["BertModel", "RobertaModel", "DistilBertModel", "GPT2LMHeadModel", "LlamaModel", "T5Model"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("group", ["channel", 4])
def test_the_matrices_of_the_blocks_are_rounded_unit_by_unit_and_nothing_else(tiny_models, family, group):
    model = tiny_models(family)
    before = weights(model)
    quantized = quantize(model, bits=4, group=group, symmetric=False)
    assert same(weights(model), before)
    assert type(quantized) is type(model)
    assert quantized.config.compression["quantized"] == sorted(block_matrices(model))
    assert not hasattr(model.config, "quantized_inputs")
    assert not any(m._forward_pre_hooks for m in model.modules())
    after = weights(quantized)
    for name, weight in block_matrices(model).items():
        across = family.startswith("GPT2")
        units = after.pop(name).T if across else after.pop(name)
        expected = quantize_tensor(weight.T if across else weight, 4, group=group, symmetric=False)
        assert torch.equal(units, dequantize(expected))
        for row in units.reshape(-1, units.shape[1] if group == "channel" else 4):
            assert len(row.unique()) <= 16
        assert not torch.equal(units.T if across else units, weight)
    assert same(after, {k: before[k] for k in after})


def test_embeddings_only_where_asked_row_by_row(tiny_models):
    model = tiny_models("BertModel")
    table = model.get_input_embeddings().weight
    assert torch.equal(quantize(model).get_input_embeddings().weight, table)
    quantized = quantize(model, bits=5, embeddings=True)
    assert torch.equal(quantized.get_input_embeddings().weight, dequantize(quantize_tensor(table, 5)))
    assert "embeddings.word_embeddings.weight" in quantized.config.compression["quantized"]
    assert len(quantized.config.quantized_inputs) == len(block_matrices(model))  # words have no inputs
    tied = quantize(tiny_models("GPT2LMHeadModel"), embeddings=True)
    assert tied.lm_head.weight is tied.get_input_embeddings().weight


def test_each_matrix_has_the_bits_it_is_given(classifier):
    given = {QUERY: 2, QUERY.replace("query", "key"): 7}
    quantized = quantize(classifier, bits=given)
    uniform = {b: weights(quantize(classifier, bits=b)) for b in (2, 7)}
    after, before = weights(quantized), weights(classifier)
    for name in block_matrices(classifier):
        expected = uniform[given[name]] if name in given else before
        assert torch.equal(after[name], expected[name])
    what = quantized.config.compression
    assert what["bits"] == given
    assert what["bytes_of_quantized"] == packed_bytes((12, 12), 2) + packed_bytes((12, 12), 7)
    assert what["average_bits"] == 8 * what["bytes_of_quantized"] / 288


def test_bytes_by_hand(classifier):
    what = quantize(classifier, bits=4, group=4).config.compression
    # Three layers of four matrices 12 x 12 and two of 12 x 20.
    count = 3 * (4 * 144 + 2 * 240)
    assert what["bytes_of_quantized"] == count // 2 + 4 * count // 4
    assert what["average_bits"] == 4 + 32 / 4
    every = sum(p.numel() for p in classifier.parameters())
    assert what["bytes_of_model"] == what["bytes_of_quantized"] + 4 * (every - count)
    whole = quantize(classifier, bits=3, group="tensor", symmetric=False).config.compression
    assert whole["bytes_of_quantized"] == 3 * (4 * (54 + 4 + 1) + 2 * (90 + 4 + 1))


def test_weights_that_cannot_be_quantised_are_refused(tiny_models, classifier):
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        quantize(torch.nn.Linear(2, 2))
    with pytest.raises(probes.InputError, match="BertModel has no weight matrices inside repeated blocks"):
        quantize(tiny_models("BertModel", num_hidden_layers=0))
    with pytest.raises(probes.InputError, match=r"expected weights in float32, found torch.bfloat16, .* model.float"):
        quantize(tiny_models("BertModel").bfloat16())
    with torch.no_grad():
        classifier.get_parameter(QUERY)[5, 1] = float("nan")
    with pytest.raises(probes.InputError, match=rf"{QUERY}: row 5 holds nan; 1 of its 144 values are NaN or infinite"):
        quantize(classifier)
    quantize(classifier, only="layer.0")  # elsewhere it is not looked at
