"""Adapters that peft itself writes: merged they give what peft gives; what cannot be merged is refused by name."""

import json
import shutil
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import probes
from probes.errors import DependencyError, LayerscopeWarning
from probes.models.adapters import CONFIG, WEIGHTS, find_adapter
from probes.models.checkpoint import check_checkpoint

peft = pytest.importorskip("peft")
IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture
def base(tmp_path, tiny_models, make_tokenizer):
    """A folder with a model without a head."""
    tiny_models("BertModel").save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def filled(model):
    """Fill what peft begins with zeros or ones with other numbers."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(kind in name for kind in ("lora_", "ia3_", "lokr_", "modules_to_save")):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def adapted(base, folder, config, labels=None):
    """A model of peft on the base, and its folder as peft writes it."""
    if labels is None:
        model = transformers.AutoModel.from_pretrained(base)
    else:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    model = filled(peft.get_peft_model(model, config))
    model.save_pretrained(folder)
    return model, folder


CONFIGS = {
    "lora": lambda: peft.LoraConfig(target_modules=["query", "value"], r=4),
    "all linear": lambda: peft.LoraConfig(target_modules="all-linear", r=2, use_rslora=True),
    "dora": lambda: peft.LoraConfig(target_modules=["query"], r=4, use_dora=True),
    "ia3": lambda: peft.IA3Config(target_modules=["query", "output.dense"], feedforward_modules=["output.dense"]),
    "lokr": lambda: peft.LoKrConfig(target_modules=["key"], r=2),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_an_adapter_is_merged_into_the_model_that_it_names(base, tmp_path, config):
    wanted, folder = adapted(base, tmp_path / "adapter", config())
    model, tokenizer = probes.load_checkpoint(folder)
    assert type(model).__name__ == "BertModel"
    assert model.name_or_path == str(folder)
    assert len(tokenizer) == len(probes.load_checkpoint(base)[1])
    with torch.inference_mode():
        expected, found = (m(IDS, output_hidden_states=True).hidden_states for m in (wanted, model))
        plain = probes.load_checkpoint(base)[0](IDS).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(plain, found[-1], atol=1e-3)
    assert not any("lora" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("labels", [2, 4])
def test_a_head_that_an_adapter_brings_is_kept(base, tmp_path, labels):
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=4)
    wanted, folder = adapted(base, tmp_path / "adapter", config, labels)
    model, _ = probes.load_checkpoint(folder)
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, wanted(IDS).logits, rtol=0, atol=1e-5)
    assert check_checkpoint(folder)[0].architectures == ["BertForSequenceClassification"]


def test_an_adapter_onto_a_quantised_model_is_merged_into_its_plain_numbers(tmp_path, tiny_models, make_tokenizer):
    pytest.importorskip("bitsandbytes")
    base = tmp_path / "base"
    tiny_models("BertModel", hidden_size=64, intermediate_size=64).save_pretrained(base)
    how = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    loaded = {"quantization_config": how, "dtype": torch.float32, "device_map": "cpu"}
    transformers.AutoModel.from_pretrained(base, **loaded).save_pretrained(tmp_path / "bnb")
    make_tokenizer().save_pretrained(tmp_path / "bnb")
    quantised = transformers.AutoModel.from_pretrained(tmp_path / "bnb", dtype=torch.float32)
    filled(peft.get_peft_model(quantised, CONFIGS["lora"]())).save_pretrained(tmp_path / "qlora")
    # The kernel of bitsandbytes for a CPU rounds to bfloat16: the same weights in float32.
    plain = transformers.AutoModel.from_pretrained(tmp_path / "bnb", dtype=torch.float32).dequantize()
    wanted = peft.PeftModel.from_pretrained(plain, tmp_path / "qlora").eval()
    model, _ = probes.load_checkpoint(tmp_path / "qlora")
    assert not hasattr(model.config, "quantization_config")
    torch.testing.assert_close(model(IDS).last_hidden_state, wanted(IDS).last_hidden_state, rtol=0, atol=1e-4)


def test_an_adapter_beside_full_weights_is_refused(base, tmp_path):
    _, folder = adapted(base, tmp_path / "adapter", CONFIGS["lora"]())
    for file in (CONFIG, WEIGHTS):
        shutil.copy(folder / file, base / file)
    with pytest.raises(probes.InputError) as caught:
        probes.load_checkpoint(base)
    assert str(caught.value).startswith(
        f"{base}: expected a model or an adapter, found model.safetensors and adapter_config.json: whether the adapter "
        "is merged into these weights cannot be known. Move one of them away, or merge it where the model is: peft."
    )


def changed(folder, **keys):
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


SPOILT = {
    "no base": (lambda f: changed(f, base_model_name_or_path="./none"), r"onto '\./none', which cannot be loaded"),
    "of prompts": (
        lambda f: changed(f, peft_type="PROMPT_TUNING"),
        "of the type PROMPT_TUNING, which cannot be",
    ),
    "no weights": (lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"), r"without adapter_model\.saf.*model\.bin"),
    "code": (lambda f: changed(f, megatron_config={"a": 1}), "names code of other packages, which is not run"),
    "no name": (lambda f: changed(f, base_model_name_or_path=None), r"base_model_name_or_path'\]: expected a text"),
    "itself": (
        lambda f: changed(f, base_model_name_or_path=str(f)),
        r"onto another adapter, .* merge that one",
    ),
    "another rank": (lambda f: changed(f, r=2), "the model could not be loaded|the adapter does not fit the model"),
    "more modules": (
        lambda f: changed(f, target_modules=["query", "key"]),
        r"not fit the model .*lora_A\.weight",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_an_adapter_that_is_not_whole_is_refused(base, tmp_path, spoil, message):
    _, folder = adapted(base, tmp_path / "adapter", peft.LoraConfig(target_modules=["query"], r=4))
    spoil(folder)
    with pytest.raises(probes.InputError, match=message):
        probes.load_checkpoint(folder)


def test_what_a_head_reads_that_neither_base_nor_adapter_has_is_said(base, tmp_path):
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=4)
    _, folder = adapted(base, tmp_path / "adapter", config, 2)
    weights = load_file(base / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, base / "model.safetensors", {"format": "pt"})
    with pytest.warns(LayerscopeWarning, match=r"its head is not in its weights \(bert\.pooler"):
        model, _ = probes.load_checkpoint(folder)
    assert type(model).__name__ == "BertModel"


def test_without_peft_the_feature_the_package_and_the_extra_are_named(base, tmp_path, monkeypatch):
    _, folder = adapted(base, tmp_path / "adapter", CONFIGS["lora"]())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DependencyError) as caught:
        probes.load_checkpoint(folder)
    assert str(caught.value) == (
        f"{folder}: an adapter of peft needs the package peft, which is not installed: "
        "pip install 'layerscope[formats]'"
    )
    assert find_adapter(base) is None
