"""Codes of GPTQ and AWQ become numbers: packed here one code at a time, as the papers' packages lay them out.

Against gptqmodel 7.7 itself: matrices that its TorchLinear had packed (2, 3, 4 and 8 bits, in groups, in one, in groups
that follow g_idx) gave what its forward pass gives, to the rounding of float16 in which it runs.
"""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import compress
import probes
from probes.models.formats.integers import check_integers, read_integers

OUT, IN = 16, 64


def bits_of(rows, bits):
    """Rows of codes as 32-bit integers: one string of bits, the lowest first."""
    out = []
    for row in rows.tolist():
        string = sum(int(code) << (bits * i) for i, code in enumerate(row))
        words = [(string >> (32 * k)) & (2**32 - 1) for k in range(len(row) * bits // 32)]
        out.append([word - 2**32 if word >= 2**31 else word for word in words])
    return torch.tensor(out, dtype=torch.int32)


def drawn(bits, groups, shape=(OUT, IN)):
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, shape, generator=generator)
    zeros = torch.randint(1, 2**bits, (groups, shape[0]), generator=generator)
    return codes, zeros, (torch.rand(groups, shape[0], generator=generator) * 0.1 + 0.01).half()


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("order", ["groups", "one", "by input", "without g_idx"])
def test_gptq(tmp_path, bits, layout, order):
    groups = 1 if order == "one" else 2
    codes, zeros, steps = drawn(bits, groups, (32, IN))
    group = torch.arange(IN) // (IN // groups)
    if order == "by input":
        group = group[torch.randperm(IN, generator=torch.Generator().manual_seed(0))]
    stored = {
        "a.qweight": bits_of(codes, bits).T.contiguous(),
        "a.qzeros": bits_of((zeros - int(layout == "gptq")) % 2**bits, bits),
        "a.scales": steps,
        "a.bias": torch.ones(32),
    }
    if order != "without g_idx":
        stored["a.g_idx"] = group.int()
    save_file(stored, tmp_path / "model.safetensors")
    said = {"quant_method": "gptq", "bits": bits, "group_size": IN // groups, "checkpoint_format": layout}
    found = read_integers(tmp_path, said, "m")
    expected = torch.stack([(codes[:, i] - zeros[g]) * steps[g].float() for i, g in enumerate(group.tolist())], 1)
    assert set(found) == {"a.weight", "a.bias"}
    torch.testing.assert_close(found["a.weight"], expected)


def in_awq(codes):
    """(row, code) -> (row, code / 8): eight codes of a row in an integer, in the order of AWQ."""
    order = [8 * k + j for k in range(codes.shape[1] // 8) for j in (0, 2, 4, 6, 1, 3, 5, 7)]
    return bits_of(codes[:, order], 4)


def awq_of(codes, zeros, steps):
    return {"qweight": in_awq(codes.T), "qzeros": in_awq(zeros), "scales": steps}


def test_awq(tmp_path):
    codes, zeros, steps = drawn(4, 2)
    save_file({f"a.{k}": v for k, v in awq_of(codes, zeros, steps).items()}, tmp_path / "model.safetensors")
    found = read_integers(tmp_path, {"quant_method": "awq", "bits": 4}, "m")["a.weight"]
    expected = torch.stack([(codes[:, i] - zeros[i // 32]) * steps[i // 32].float() for i in range(IN)], 1)
    torch.testing.assert_close(found, expected)


@pytest.fixture
def awq_folder(tmp_path, make_tokenizer):
    """A Llama whose projections AWQ has stored, and the same with plain numbers."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(make_tokenizer()), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, pad_token_id=0, num_labels=3,
    )  # fmt: skip
    model = transformers.LlamaForSequenceClassification(config).eval()
    stored = {}
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            codes, zeros, steps = drawn(4, module.in_features // 32, tuple(module.weight.shape))
            stored |= {f"{name}.{k}": v for k, v in awq_of(codes, zeros, steps).items()}
            group = torch.arange(module.in_features) // 32
            module.weight.data = ((codes.T - zeros[group]) * steps.float()[group]).T.contiguous()
    stored |= {k: v for k, v in model.state_dict().items() if "_proj" not in k}
    said = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    config.quantization_config = said
    config.architectures = ["LlamaForSequenceClassification"]
    config.save_pretrained(tmp_path / "awq")
    del config.quantization_config
    make_tokenizer().save_pretrained(tmp_path / "awq")
    save_file(stored, tmp_path / "awq" / "model.safetensors", {"format": "pt"})
    return tmp_path / "awq", model


def test_a_checkpoint_of_awq_is_loaded_as_plain_numbers_and_says_so(awq_folder, tmp_path):
    folder, wanted = awq_folder
    model, tokenizer = probes.load_checkpoint(folder)
    assert model.config.dequantized == "awq"
    assert not hasattr(model.config, "quantization_config")
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, wanted(ids).logits)
    compress.save(compress.prune(model, sparsity=0.5), tmp_path / "pruned", tokenizer)
    assert probes.load_checkpoint(tmp_path / "pruned")[0].config.dequantized == "awq"


def test_parts_that_do_not_fit_together_are_refused(awq_folder):
    folder, _ = awq_folder
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.0.mlp.up_proj.scales"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(probes.InputError, match=r"codes, zeros and steps of model\.layers\.0\.mlp\.up_proj do not fit"):
        probes.load_checkpoint(folder)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"quant_method": "awq", "bits": 4, "version": "gemv"},
            "by awq to 4 bits in the layout 'gemv': expected 4",
        ),
        ({"quant_method": "gptq", "bits": 5}, "by gptq to 5 bits in the layout 'gptq': expected 2 or 3 or 4 or 8 bits"),
        ({"quant_method": "gptq", "bits": "4"}, r"bits'\]: expected a whole number of 2 to 8, found '4'"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "in 'gptq' or 'gptq_v2'. Save it again"),
    ],
)
def test_layouts_that_are_not_known_are_refused(awq_folder, said, message):
    folder, _ = awq_folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    with pytest.raises(probes.InputError, match=message):
        probes.load_checkpoint(folder)
    with pytest.raises(probes.InputError, match=message):
        check_integers(said, "m")
