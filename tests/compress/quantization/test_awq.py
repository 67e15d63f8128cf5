"""AWQ: scales change nothing before rounding, help where inputs are large, and go only where they may be folded."""

import pandas as pd
import pytest
import tiny
import torch

import probes
from compress import quantize
from compress.matrices import matrices_of
from compress.moments import Moments, squared_error
from compress.quantization import awq
from compress.quantization.awq import best_scale
from compress.quantization.quantizers import dequantize, quantize_tensor
from compress.quantization.weights import QuantizedMatrices
from probes.errors import InputError
from probes.states.batches import random_batch

HOW = {"group": "channel", "symmetric": True, "ranges": "minmax", "percentile": 99.9}


@pytest.fixture(scope="module")
def texts():
    words = [" ".join(tiny.WORDS[i : i + 6]) for i in range(16)] * 3
    return probes.load_corpus(pd.DataFrame({"id": range(48), "language": "en", "text": words}))


def scaled(name, texts, **how):
    settings = {"bits": 3, "method": "awq", "activation_bits": None, "progress": False}
    model = tiny.make(name)
    return model, quantize(model, calibrate=texts, tokenizer=tiny.tokenizer_of(name), **settings | how)


@pytest.mark.parametrize(
    ("name", "norms"),
    [("llama", True), ("gemma2", True), ("gpt2", True), ("phi", True), ("t5", True), ("bert", False), ("opt", True)],
)
def test_before_rounding_nothing_changes(name, norms, texts, monkeypatch):
    monkeypatch.setattr(QuantizedMatrices, "rounded", lambda *_: {})
    # Where a scale costs more than none is not asked here: all are tried.
    monkeypatch.setattr(awq, "best_scale", lambda m, readers, seen: torch.logspace(-0.5, 0.5, width(m, readers[0])))
    model, same = scaled(name, texts)
    batch = random_batch(model, [6, 3])
    given = {"decoder_input_ids": batch["input_ids"]} if name == "t5" else {}
    with torch.no_grad():
        before, after = (m(**batch, **given)[0] for m in (model, same))
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
    changed = {n for n, p in same.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert changed & matrices_of(model).keys()
    assert any("norm" in n.lower() or "ln_" in n for n in changed) == norms


def width(matrices, name):
    return matrices.by_unit(name, matrices.parameters[name].detach()).shape[1]


def test_large_inputs_are_given_finer_steps(texts):
    model, tokenizer = tiny.make("llama"), tiny.tokenizer_of("llama")
    for block in model.layers:
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            norm.weight.detach()[:3] *= 30
    given = {"calibrate": texts, "tokenizer": tokenizer, "activation_bits": None}
    found = [
        quantize(model, bits=4, method="awq", progress=False, **given),
        quantize(model, bits=4, activation_bits=None),
    ]
    states = [probes.capture(m, tokenizer, texts, progress=False).hidden.values[-1] for m in (model, *found)]
    ours, theirs = (((s - states[0]) ** 2).sum() for s in states[1:])
    assert ours < 0.6 * theirs
    assert found[0].config.compression["rounding"] == "awq"
    plain = found[1].config.compression
    assert found[0].config.compression["bytes_of_model"] == plain["bytes_of_model"]


def test_the_scale_is_the_best_of_those_that_are_tried():
    model = tiny.make("llama")
    names = [f"layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    matrices = QuantizedMatrices(model, dict.fromkeys(names, 3), HOW)
    x = torch.randn(100, 32, generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 1, 32)
    moments = dict.fromkeys(names, Moments.of(x))

    def cost(scale):
        total = 0.0
        for name in names:
            weight = matrices.parameters[name].detach()
            change = dequantize(quantize_tensor(weight * scale, 3)) / scale - weight
            total += float((x.double() @ change.double().T).square().sum())
            assert torch.allclose(
                squared_error(change, moments[name].products).sum().double(),
                torch.tensor((x.double() @ change.double().T).square().sum()),
                rtol=1e-3,
            )
        return total

    size = x.abs().mean(0)
    tried = [size ** (k / 20) for k in range(20)]
    found = best_scale(matrices, tuple(names), moments)
    assert cost(found) == pytest.approx(min(map(cost, tried)), rel=0.02)
    assert cost(found) < 0.75 * cost(torch.ones(32))
    assert best_scale(matrices, tuple(names), dict.fromkeys(names, Moments.none(32))) is None


def test_what_is_left_out_is_neither_rounded_nor_scaled(texts):
    model, found = scaled("llama", texts, only=r"up_proj|down_proj")
    for name in (
        "layers.1.mlp.gate_proj.weight",
        "layers.1.self_attn.v_proj.weight",
        "layers.1.input_layernorm.weight",
    ):
        assert torch.equal(found.get_parameter(name), model.get_parameter(name))
    assert torch.equal(
        found.get_parameter("layers.1.post_attention_layernorm.weight"),
        model.get_parameter("layers.1.post_attention_layernorm.weight"),
    )  # the gate reads it too


def test_experts_are_rounded_to_nearest(texts):
    model, found = scaled("mixtral", texts)
    name = "layers.1.mlp.experts.down_proj.2"
    weight, rounded = (matrices_of(m)[name].detach() for m in (model, found))
    assert torch.equal(rounded, dequantize(quantize_tensor(weight, 3)))


def test_an_architecture_without_a_row_is_refused_by_name(texts):
    with pytest.raises(InputError, match=r"fnet"):
        scaled("fnet", texts)
