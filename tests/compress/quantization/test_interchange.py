"""Codes that other tools open: the same weights and outputs in plain transformers and here; refused by name."""

import os

import pandas as pd
import pytest
import tiny
import torch
import transformers

import probes
from compress import prune, quantize, save_codes
from compress.__main__ import main
from compress.quantization.interchange import grid_in
from compress.quantization.quantizers import dequantize, quantize_tensor
from probes.errors import InputError
from probes.states.batches import random_batch

PLAIN = {"activation_bits": None}


@pytest.fixture(scope="module")
def texts():
    words = [" ".join(tiny.WORDS[i : i + 6]) for i in range(16)] * 3
    return probes.load_corpus(pd.DataFrame({"id": range(48), "language": "en", "text": words}))


@pytest.mark.parametrize(
    ("name", "kind", "how"),
    [
        ("llama", "lm", {"bits": 4, "group": 16, "method": "gptq", "act_order": True}),
        ("qwen2", "lm", {"bits": 3, "method": "awq"}),
        ("bert", "head", {"bits": 8, "group": "tensor"}),
    ],
)
def test_plain_transformers_and_we_open_them_with_the_same_outputs(name, kind, how, texts, tmp_path):
    pytest.importorskip("compressed_tensors", reason="needs compressed-tensors: pip install 'layerscope[formats]'")
    model, tokenizer = tiny.make(name, kind), tiny.tokenizer_of(name)
    given = {"calibrate": texts, "tokenizer": tokenizer, "progress": False} if "method" in how else {}
    rounded = quantize(model, **PLAIN, **how, **given)
    save_codes(rounded, tmp_path / "out", tokenizer)
    ours, _ = probes.load_checkpoint(tmp_path / "out")
    assert (ours.config.dequantized, ours.config.compression["bits"]) == ("compressed-tensors", how["bits"])
    assert all(torch.equal(v, rounded.state_dict()[k]) for k, v in ours.state_dict().items())
    plain = type(rounded).from_pretrained(tmp_path / "out")
    batch = random_batch(rounded, [7, 4])
    with torch.no_grad():
        expected, found, read = (m(**batch).logits for m in (rounded, plain, ours))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(read, expected, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="is not an empty folder"):
        save_codes(rounded, tmp_path / "out")


def test_from_the_command_line_codes_take_what_is_said(tmp_path, capsys):
    pytest.importorskip("compressed_tensors", reason="needs compressed-tensors: pip install 'layerscope[formats]'")
    out = tmp_path / "out"
    how = ["--bits", "4", "--grid", "64", "--activation-bits", "none", "--compressed-tensors"]
    assert main(["quantize", "bundled-decoder", *how, "--out", str(out)]) == 0
    written = os.path.getsize(out / "model.safetensors")
    said = transformers.AutoConfig.from_pretrained(out).compression["bytes_of_model"]
    assert said <= written <= 1.02 * said
    assert f"{written / 1e6:.2f} MB in codes; wrote {out}" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["channel", "tensor", 8])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_grid_is_read_off_the_weights(bits, group):
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 6)[:, None]
    weight[2] = 0
    codes = quantize_tensor(weight, bits, group=group)
    values = dequantize(codes)
    steps = grid_in(values, bits, group, "w")
    assert steps.shape == codes.scale.shape
    multiples = values.reshape(len(steps), -1) / steps[:, None]
    assert torch.equal(multiples, multiples.round())
    assert multiples.abs().max() <= 2 ** (bits - 1) - 1
    assert bool((steps >= codes.scale)[values.reshape(len(steps), -1).any(1)].all())


@pytest.mark.parametrize("far", [1.0, 1e30])
def test_what_lies_on_no_grid_is_refused(far):
    weight = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    weight[1, 3] *= far
    with pytest.raises(InputError, match=r"^layer: its weights lie on no grid of 4 bits"):
        grid_in(weight, 4, "channel", "layer")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: tiny.make("llama"), r"expected what compress\.quantize returned, found a plain model"),
        (lambda: prune(tiny.make("llama"), sparsity=0.5), r"expected what compress\.quantize returned, found prune"),
        (lambda: quantize(tiny.make("llama")), r"its inputs are rounded to 8 bits, and codes are of weights alone"),
        (lambda: quantize(tiny.make("llama"), symmetric=False, **PLAIN), r"its grids have zero points"),
        (
            lambda: quantize(tiny.make("gpt2"), **PLAIN),
            r"codes of torch\.nn\.Linear in blocks alone, and h\.0\..* is none",
        ),
        (lambda: quantize(tiny.make("mixtral"), **PLAIN), r"and layers\.0\.mlp\.experts\..* is none"),
    ],
)
def test_what_has_no_codes_is_refused_by_name(made, message, tmp_path):
    with pytest.raises(InputError, match=message):
        save_codes(made(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compressed-tensors"], "--compressed-tensors holds codes of weights alone: give --activation-bits none"),
        (
            ["--compressed-tensors", "--packed"],
            "--compressed-tensors stores the codes of a simulation: leave --backend and --packed out",
        ),
    ],
)
def test_the_command_says_what_does_not_fit(options, message, tmp_path, capsys):
    assert main(["quantize", "bundled", *options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
