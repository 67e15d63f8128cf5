import numpy as np
import pytest
import torch

import compress
import probes
from compress import footprint


def test_counts_are_those_of_the_weights(tiny_models, tmp_path):
    model = tiny_models("BertForSequenceClassification")
    pruned = compress.prune(model, sparsity=0.75)
    cost = footprint(model, pruned)
    assert list(cost.index) == ["model", "smaller", "share"]
    every = sum(p.numel() for p in model.parameters())
    assert cost.loc["model", "parameters"] == cost.loc["smaller", "parameters"] == every
    # Per layer four matrices of 12 x 12 and two of 12 x 20; three layers.
    assert cost.loc["smaller", "encoder"] == 3 * (4 * 144 + 2 * 240)
    assert cost.loc["smaller", "encoder_nonzero"] == 0.25 * 3 * (4 * 144 + 2 * 240)
    assert cost.loc["model", "nonzero"] - cost.loc["smaller", "nonzero"] == 0.75 * 3 * (4 * 144 + 2 * 240)
    pruned.save_pretrained(tmp_path)
    assert cost.loc["smaller", "bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert cost.loc["share", "bytes"] == pytest.approx(1)
    assert (cost["seconds"] > 0).all()


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "GPT2LMHeadModel"])
def test_packed_bytes_are_those_of_a_packed_model(tiny_models, tmp_path, architecture):
    model = tiny_models(architecture)
    pruned = compress.prune(model, sparsity=0.9)
    cost = footprint(model, pruned)
    compress.save(pruned, tmp_path / "out", packed=True)
    assert cost.loc["smaller", "packed_bytes"] == (tmp_path / "out" / "packed.safetensors").stat().st_size
    assert cost.loc["share", "packed_bytes"] < 0.9
    # Without zeros it is the plain file, but for a few bytes that say so.
    assert 0 <= cost.loc["model", "packed_bytes"] - cost.loc["model", "bytes"] < 100
    assert cost.loc["share", "bytes"] == pytest.approx(1)


def test_operations_by_hand_and_fewer_where_structure_is_removed(tiny_models):
    model = tiny_models("BertModel")
    texts, tokens, layers, d, f = 32, 32, 3, 12, 20
    linear = 2 * texts * tokens * (4 * d * d + 2 * d * f) * layers + 2 * texts * d * d  # with the pooler
    attention = 2 * 2 * texts * tokens * tokens * d * layers
    assert footprint(model).loc["model", "flops"] == linear + attention
    narrow = footprint(model, compress.prune_channels(model, 0.5))
    assert narrow.loc["model", "flops"] - narrow.loc["smaller", "flops"] == 2 * texts * tokens * d * f * layers
    assert narrow.loc["share", "bytes"] < 1


def test_models_are_left_as_they_were(tiny_models):
    model = tiny_models("BertModel").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    footprint(model)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(probes.InputError, match="smaller: expected a model of transformers, found Linear"):
        footprint(model, torch.nn.Linear(2, 2))


def test_counts_models_with_decoders_and_those_stored_by_codes(tiny_models):
    t5 = tiny_models("T5ForConditionalGeneration")
    assert footprint(t5).loc["model", "parameters"] == sum(p.numel() for p in t5.parameters())
    model, _ = probes.load_checkpoint("bundled")
    coded = compress.quantize(model, backend="torchao")
    cost = footprint(model, coded)
    assert cost.loc["share", "parameters"] == 1
    assert cost.loc["share", "bytes"] < 0.7
    assert 0.9 < cost.loc["share", "encoder_nonzero"] <= 1
    assert np.isnan(cost.loc["smaller", "packed_bytes"])
    with pytest.raises(probes.InputError, match=r"its weights are quantised already \(config.quantization_config\)"):
        compress.prune(coded, sparsity=0.5)
    with pytest.raises(probes.InputError, match="its weights are quantised already"):
        compress.prune_heads(coded, 0.5)
