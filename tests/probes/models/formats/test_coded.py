"""Weights stored by codes: no verb works on them, and the package that reads them is needed."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from spoiled import changed

import compress
import probes
from probes.errors import DependencyError
from probes.models.formats.coded import CODED, check_installed, is_coded, method_of


def test_a_model_is_coded_where_its_configuration_says_so(tiny_models):
    model = tiny_models("BertModel")
    assert not is_coded(model)
    model.config.quantization_config = {"quant_method": "torchao"}
    assert is_coded(model)
    assert "are quantised already (config.quantization_config)" in CODED.forbids(model, "compress")
    assert "without packed=True" in CODED.forbids(model, "save packed")


def test_a_package_that_is_missing_is_named_before_weights_are_read(tiny_models, monkeypatch):
    config = tiny_models("BertModel").config
    config.quantization_config = {"quant_method": "torchao"}
    check_installed(config, "m")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(probes.errors.DependencyError, match="m: a model quantised by torchao needs the pack"):
        check_installed(config, "m")
    config.quantization_config = {"quant_method": "other"}  # which transformers says itself
    check_installed(config, "m")


# --- checkpoints of other packages: each made and saved by the package itself, or, where said, laid out by hand -----


IDS = torch.tensor([[5, 6, 7, 8, 9]])
LLAMA = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def llama(tmp_path, make_tokenizer):
    """A tiny decoder as plain numbers, in a folder."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=len(make_tokenizer()), max_position_embeddings=32, **LLAMA)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "plain")
    make_tokenizer().save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def states(model):
    with torch.inference_mode():
        return model(IDS, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes_runs_as_it_is(llama, tmp_path, make_tokenizer, bits):
    pytest.importorskip("bitsandbytes")
    how = {"load_in_8bit": True} if bits == 8 else {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}
    wanted = transformers.AutoModelForCausalLM.from_pretrained(
        llama, quantization_config=transformers.BitsAndBytesConfig(**how), dtype=torch.float32, device_map="cpu"
    )
    wanted.save_pretrained(tmp_path / "bnb")
    make_tokenizer().save_pretrained(tmp_path / "bnb")
    model, tokenizer = probes.load_checkpoint(tmp_path / "bnb")
    assert method_of(model.config) == "bitsandbytes"
    torch.testing.assert_close(states(model), states(wanted), rtol=0, atol=1e-6)
    plain, _ = probes.load_checkpoint(llama)
    assert not torch.allclose(states(plain)[-1], states(model)[-1], atol=1e-4)
    corpus = probes.load_corpus(pd.DataFrame({"id": [0, 1], "language": "en", "text": ["the cat", "a dog ran"]}))
    reps = [probes.capture(m, tokenizer, corpus, progress=False) for m in (model, wanted)]
    np.testing.assert_allclose(reps[0].hidden, reps[1].hidden, atol=1e-5)
    assert reps[0].attrs["dequantized"] == ""
    with pytest.raises(probes.InputError, match="its weights are quantised already"):
        compress.prune(model, sparsity=0.5)


def test_compressed_tensors_become_plain_numbers(llama, tmp_path, make_tokenizer):
    packed = pytest.importorskip("compressed_tensors.quantization")
    from compressed_tensors.compressors import ModelCompressor

    wanted = transformers.AutoModelForCausalLM.from_pretrained(llama)
    weights = packed.QuantizationArgs(num_bits=4, symmetric=True, strategy="group", group_size=32)
    group = packed.QuantizationScheme(targets=["Linear"], weights=weights)
    packed.apply_quantization_config(
        wanted,
        packed.QuantizationConfig(config_groups={"group_0": group}, ignore=["lm_head"], format="pack-quantized"),
    )
    for module in wanted.modules():
        if hasattr(module, "weight_scale"):
            steps = module.weight.detach().reshape(len(module.weight), -1, 32).abs().amax(-1) / 7.5
            module.weight_scale.data = steps.to(module.weight_scale.dtype)
            module.quantization_status = packed.QuantizationStatus.FROZEN
    expected = states(wanted)
    compressor = ModelCompressor.from_pretrained_model(wanted)
    compressor.compress_model(wanted)
    wanted.save_pretrained(tmp_path / "ct")
    compressor.update_config(str(tmp_path / "ct"))
    make_tokenizer().save_pretrained(tmp_path / "ct")
    model, _ = probes.load_checkpoint(tmp_path / "ct")
    torch.testing.assert_close(states(model), expected, rtol=0, atol=1e-5)
    assert (model.config.dequantized, method_of(model.config)) == ("compressed-tensors", "")
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear


def test_fp8_in_blocks_becomes_plain_numbers(llama, tmp_path):
    """Laid out by hand, as DeepSeek and transformers write it."""
    stored = load_file(llama / "model.safetensors")
    plain = {}
    for key, weight in [(k, v) for k, v in stored.items() if "_proj" in k]:
        blocks = weight.reshape(weight.shape[0] // 64, 64, weight.shape[1] // 64, 64)
        steps = blocks.abs().amax((1, 3)) / 448
        codes = (blocks / steps[:, None, :, None]).to(torch.float8_e4m3fn)
        stored |= {key: codes.reshape(weight.shape), f"{key}_scale_inv": steps}
        plain[key] = (codes.float() * steps[:, None, :, None]).reshape(weight.shape)
    save_file(stored, llama / "model.safetensors", {"format": "pt"})
    changed(llama, quantization_config={"quant_method": "fp8", "weight_block_size": [64, 64], "fmt": "e4m3"})
    model, _ = probes.load_checkpoint(llama)
    assert model.config.dequantized == "fp8"
    for key, value in plain.items():
        torch.testing.assert_close(model.state_dict()[key], value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_weights_of_few_bits_come_in_float32_also_in_several_files(llama, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(llama).to(torch.bfloat16)
    model.save_pretrained(llama, max_shard_size="100KB")
    (llama / "model.safetensors").unlink()
    files = list(llama.glob("model-*.safetensors"))
    assert len(files) > 1
    expected = {}
    for file in files:
        part = {k: v.to(dtype) for k, v in load_file(file).items()}
        save_file(part, file, {"format": "pt"})
        expected |= {k: v.float() for k, v in part.items()}
    loaded, _ = probes.load_checkpoint(llama)
    for key, value in expected.items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("method", "package", "extra"),
    [
        ("bitsandbytes", "bitsandbytes", "formats"),
        ("compressed-tensors", "compressed_tensors", "formats"),
        ("torchao", "torchao", "deploy"),
    ],
)
def test_what_lacks_its_package_names_feature_package_and_extra(llama, monkeypatch, method, package, extra):
    changed(llama, quantization_config={"quant_method": method, "load_in_8bit": method == "bitsandbytes"})
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError) as caught:
        probes.load_checkpoint(llama)
    assert str(caught.value) == (
        f"{llama}: a model quantised by {method} needs the package {package}, which is not installed: "
        f"pip install 'layerscope[{extra}]'"
    )


def test_hqq_is_refused_with_what_to_do(llama):
    changed(llama, quantization_config={"quant_method": "hqq", "weight_quant_params": {"nbits": 4}})
    with pytest.raises(probes.InputError, match=r"by HQQ, which transformers .* does not load\. Make its"):
        probes.load_checkpoint(llama)
