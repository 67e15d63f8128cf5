"""Checkpoints whose configuration or index says what their weights do not bear out: refused before anything is made."""

import json
import resource
import time

import pytest
import torch
from safetensors.torch import save_file
from spoiled import changed
from transformers import BertConfig, BertModel

import probes
from probes.errors import InputError
from probes.models.declared import INDEX, check_index, check_said, check_sizes, stored_shapes


def in_shards(folder, name):
    state = probes.load_checkpoint(folder)[0].state_dict()
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(state, name)}))
    return {k: v.contiguous().clone() for k, v in state.items()}


def test_an_index_of_files_of_its_own_is_read(folder):
    state = in_shards(folder, "part.safetensors")
    save_file(state, folder / "part.safetensors", {"format": "pt"})
    assert torch.equal(probes.load_checkpoint(folder)[0].state_dict()["classifier.bias"], state["classifier.bias"])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../other.safetensors", "/other.safetensors", "..", "a\0.bin"])
def test_an_index_that_names_anything_else_is_refused(folder, name):
    state = in_shards(folder, name)
    torch.save(state, folder / "pytorch_model.bin")
    save_file(state, folder.parent / "other.safetensors", {"format": "pt"})
    save_file({"x": torch.zeros(1)}, folder / "x.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json names the file .* of its own folder only"):
        probes.load_checkpoint(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "gone.safetensors"}}, "names the file 'gone.safetensors', which is not there"),
        ({"weight_map": {"a": "x" * 300 + ".safetensors"}}, "x.safetensors', which is not there"),
        ({"weight_map": {"a": 3}}, r"\['weight_map'\]\['a'\]: expected a text, found 3"),
        ({}, "expected the key 'weight_map'"),
        ([], "expected an object, found"),
    ],
)
def test_an_index_of_another_form_is_refused(tmp_path, index, message):
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        check_index(tmp_path)


def test_an_index_that_is_not_followed_is_left_alone(folder):
    (folder / INDEX).write_text("{")
    probes.load_checkpoint(folder)


HUGE = 10**9
LIES = [
    ({"num_hidden_layers": HUGE}, "num_hidden_layers=1,000,000,000, and its files hold"),
    ({"vocab_size": HUGE}, "describes .* numbers that its files, of .*, do not hold, most of them in embeddings.word"),
    ({"max_position_embeddings": HUGE}, "do not hold, most of them in embeddings"),
    ({"intermediate_size": HUGE}, "do not hold, most of them in encoder.layer"),
    ({"type_vocab_size": HUGE}, "do not hold, most of them in embeddings.token_type_embeddings"),
    ({"num_labels": HUGE}, "num_labels=1,000,000,000"),
    ({"heads_kept": [HUGE]}, r"heads_kept\[0\]: expected a whole number of 1 to 65535 or a list, found 1000000000"),
    ({"heads_kept": [2, 3, 2]}, "says 3 heads of a layer, and num_attention_heads 2"),
    ({"heads_kept": "many"}, "config.heads_kept: expected a list, found 'many'"),
    ({"heads_kept": {"0": 1}}, "config.heads_kept: expected a list, found {'0': 1}"),
    ({"hashed_weights": {"encoder": {"buckets": 0, "seed": 1}}}, r"\['buckets'\]: expected a whole number of 1 to"),
    ({"shared_layers": ["encoder.layer.0"]}, "config.shared_layers: expected an object"),
    ({"shared_layers": {"encoder.layer.0": 1}}, r"config.shared_layers\['encoder.layer.0'\]: expected a text, found 1"),
    ({"factorized": {"a": 3}}, r"config.factorized\['a'\]: expected an object or an object, found 3"),
    ({"factorized": {"a": {"rank": "8"}}}, r"config.factorized\['a'\].*: expected .*, found"),
    ({"sparse_embeddings": {"features": HUGE}}, "do not hold, most of them in sparse_head.linear.weight"),
    ({"output_codes": {"bits": HUGE}}, r"config.output_codes\['bits'\]: expected a whole number of 1 to 65535, found"),
    ({"sparse_embeddings": 7}, "config.sparse_embeddings: expected an object, found 7"),
    ({"quantized_inputs": {"encoder": {"bits": 99}}}, r"\['bits'\]: expected a whole number of 2 to 8, found 99"),
    ({"quantization_config": "x"}, "config.quantization_config: expected an object, found 'x'"),
    ({"attn_implementation": "owner/kernel"}, "asks for attn_implementation='owner/kernel', which is none of"),
    ({"_attn_implementation": "owner/kernel"}, "code from a hub is never run"),
    ({"attn_implementation": {"": "owner/kernel"}}, "code from a hub is never run"),
    ({"text_config": {"attn_implementation": "owner/kernel"}}, "code from a hub is never run"),
    ({"experts_implementation": "owner/kernel"}, "code from a hub is never run"),
    ({"transformers_weights": "pytorch_model.bin"}, "names its weights itself"),
    ({"architectures": True}, "config.architectures: expected a list or null, found True"),
    ({"compression": [1]}, r"config.compression: expected an object or null, found \[1\]"),
    ({"compression": {"before": "pruned"}}, r"config.compression\['before'\]: expected an object, found 'pruned'"),
    ({"architectures": [None]}, r"config.architectures\[0\]: expected a text, found None"),
    ({"hidden_size": -4}, "could not be loaded"),
    ({"hidden_size": 10**30}, "could not be loaded"),
    ({"vocab_size": "many"}, "could not be loaded"),
]


@pytest.mark.parametrize(("lie", "message"), LIES, ids=[str(lie)[:40] for lie, _ in LIES])
def test_a_configuration_that_its_weights_do_not_bear_out_is_refused_at_once(folder, lie, message):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError, match=message):
        probes.load_checkpoint(changed(folder, **lie))
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024


@pytest.mark.parametrize("own", [{}, {"attn_implementation": "eager"}, {"attn_implementation": None}])
def test_attention_of_transformers_itself_is_taken(folder, own):
    probes.load_checkpoint(changed(folder, **own))


def test_counts_are_held_against_what_is_known():
    check_said({"num_hidden_layers": 260, "id2label": {"0": "a"}}, "m", tensors=10)
    check_said({"num_hidden_layers": 10_000, "num_labels": 10_000}, "m")
    with pytest.raises(InputError, match=r"m: config\.json says num_hidden_layers=20,000: configuration"):
        check_said({"num_hidden_layers": 20_000}, "m")


def test_the_shapes_of_all_files_are_read_from_their_headers(tmp_path):
    config = BertConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, vocab_size=30)
    model = BertModel(config)
    model.save_pretrained(tmp_path)
    assert stored_shapes(tmp_path)["embeddings.word_embeddings.weight"] == (30, 12)
    check_sizes(BertModel, config, tmp_path, "m")
    with pytest.raises(InputError, match=r"m: config\.json describes"):
        check_sizes(BertModel, BertConfig(vocab_size=10**6), tmp_path, "m")
