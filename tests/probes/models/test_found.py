"""What a checkpoint is, found without its weights."""

import shutil
import sys

import pandas as pd
import pytest
import torch
import transformers

import probes
from probes.models.checkpoint import check_checkpoint
from probes.models.fingerprint import weights_fingerprint
from probes.models.found import find


def test_what_was_found_is_what_is_loaded(folder):
    found = find(folder)
    model, tokenizer = probes.load_checkpoint(folder)
    assert (found.name, found.source, found.headless, found.adapter) == (str(folder), folder, (), None)
    assert found.config.architectures == [type(model).__name__]
    assert len(found.tokenizer) == len(tokenizer)


def test_checkpoints_of_a_training_are_loaded_and_their_folder_says_which_there_are(folder, tmp_path):
    """Laid out by hand, as the Trainer of transformers leaves it."""
    run = tmp_path / "run"
    for step in (5, 10):
        shutil.copytree(folder, run / f"checkpoint-{step}")
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (run / f"checkpoint-{step}" / name).write_bytes(b"a pickle that is not opened")
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    model, _ = probes.load_checkpoint(run / "checkpoint-10")
    assert weights_fingerprint(model) == weights_fingerprint(probes.load_checkpoint(folder)[0])
    with pytest.raises(probes.InputError) as caught:
        probes.load_checkpoint(run)
    assert str(caught.value) == f"{run}: a training with 2 checkpoints: give one of them, as {run / 'checkpoint-10'}"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (run / "checkpoint-10" / name).rename(run / name)
    with pytest.raises(probes.InputError, match=r"tokenizer .* There is one in the folder above: copy it from there"):
        probes.load_checkpoint(run / "checkpoint-10")


# --- GGUF: written here with the package gguf, as llama.cpp lays a Llama out ------------------------------------------


LETTERS = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz"]


def turned(weight, heads):
    """The rows of queries and keys in the order of llama.cpp."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture
def gguf_file(tmp_path):
    """A file of GGUF at 8 bits, and the model with the same numbers."""
    gguf = pytest.importorskip("gguf")
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(LETTERS), **size)).eval()
    file = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    file.add_context_length(2048)
    file.add_embedding_length(64)
    file.add_block_count(2)
    file.add_feed_forward_length(64)
    file.add_head_count(4)
    file.add_head_count_kv(4)
    file.add_rope_freq_base(10000.0)
    file.add_layer_norm_rms_eps(1e-6)
    file.add_vocab_size(len(LETTERS))
    file.add_tokenizer_model("llama")
    file.add_token_list(LETTERS)
    file.add_token_scores([0.0] * len(LETTERS))
    file.add_token_types([2, 3, 3] + [1] * (len(LETTERS) - 3))
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    file.add_unk_token_id(0)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    names |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    outside = {"model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm"}
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, weight in model.state_dict().items():
        bare = name.removesuffix(".weight")
        if bare in outside:
            file.add_tensor(f"{outside[bare]}.weight", weight.numpy())
            continue
        _, _, block, part = bare.split(".", 3)
        stored = turned(weight, 4) if names[part] in ("attn_q", "attn_k") else weight
        if weight.ndim == 1:
            file.add_tensor(f"blk.{block}.{names[part]}.weight", stored.numpy())
            continue
        codes = gguf.quants.quantize(stored.numpy(), kind)
        file.add_tensor(f"blk.{block}.{names[part]}.weight", codes, raw_dtype=kind)
        rounded = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind))
        weight.copy_(rounded)  # the rows are rounded one by one, in whatever order they lie
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return tmp_path / "m.gguf", model


def test_a_file_of_gguf_is_loaded_as_plain_numbers_and_says_so(gguf_file):
    file, wanted = gguf_file
    model, tokenizer = probes.load_checkpoint(file)
    assert (type(model).__name__, model.config.dequantized, model.name_or_path) == ("LlamaModel", "gguf", str(file))
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).last_hidden_state, wanted.model(ids).last_hidden_state)
    assert check_checkpoint(file)[0].num_hidden_layers == 2
    corpus = probes.load_corpus(pd.DataFrame({"id": [0, 1], "language": "en", "text": ["cat", "dog"]}))
    assert probes.capture(model, tokenizer, corpus, progress=False).attrs["dequantized"] == "gguf"


def test_a_file_of_gguf_that_is_none_or_lacks_its_package_is_refused(gguf_file, monkeypatch):
    file, _ = gguf_file
    with pytest.raises(probes.InputError, match=r"none\.gguf: no such file"):
        probes.load_checkpoint(file.with_name("none.gguf"))
    (file.parent / "cut.gguf").write_bytes(file.read_bytes()[:100])
    with pytest.raises(probes.InputError, match=r"cut\.gguf: the model could not be loaded"):
        probes.load_checkpoint(file.parent / "cut.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(probes.DependencyError, match=r"a model in GGUF needs the package gguf, .*\[formats\]"):
        probes.load_checkpoint(file)
