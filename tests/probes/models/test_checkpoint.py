"""Checkpoints: what was saved comes back, what cannot be used or trusted is refused."""

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from spoiled import changed

import probes
from probes.models.checkpoint import check_checkpoint
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.heads_kept import apply_shapes
from probes.models.formats.packed import PACKED, pack, unpack


def pickle_only(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def thin_out(model):
    """Set nine of ten numbers of a model to zero, negative ones to negative zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_((torch.arange(parameter.numel()) % 10 == 0).reshape(parameter.shape))
    return model


def pack_in_place(folder):
    tensors, metadata = pack(load_file(folder / "model.safetensors"))
    assert any(name.endswith(".mask") for name in tensors)
    save_file(tensors, folder / PACKED, metadata)
    (folder / "model.safetensors").unlink()


@pytest.fixture
def packed_folder(tiny_models, make_tokenizer, tmp_path):
    """A folder of packed weights to spoil."""
    thin_out(tiny_models("BertForSequenceClassification")).save_pretrained(tmp_path / "packed")
    make_tokenizer().save_pretrained(tmp_path / "packed")
    pack_in_place(tmp_path / "packed")
    return tmp_path / "packed"


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "BertModel", "GPT2LMHeadModel", "T5Model"])
def test_a_saved_model_comes_back_with_its_head_in_evaluation_mode(tmp_path, tiny_models, make_tokenizer, architecture):
    saved = tiny_models(architecture).train()
    saved.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model, tokenizer = probes.load_checkpoint(str(tmp_path))
    assert type(model) is type(saved)
    assert not any(module.training for module in model.modules())
    assert len(tokenizer) == len(make_tokenizer())
    assert weights_fingerprint(model) == weights_fingerprint(saved)


def test_a_bfloat16_checkpoint_comes_back_in_float32_with_the_same_values(folder, tiny_models):
    half = tiny_models("BertForSequenceClassification").to(torch.bfloat16)
    half.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    model, _ = probes.load_checkpoint(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name, value in half.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.float()), name


def test_pickled_weights_are_refused_and_load_when_asked_for_by_name(folder):
    expected = weights_fingerprint(probes.load_checkpoint(folder)[0])
    pickle_only(folder)
    with pytest.raises(probes.InputError, match=r"(?s)pickles only \(pytorch_model.bin\).*allow_pickle=True"):
        probes.load_checkpoint(folder)
    assert weights_fingerprint(probes.load_checkpoint(folder, allow_pickle=True)[0]) == expected


def test_a_pickle_is_not_opened_beside_safetensors_of_another_name(folder):
    pickle_only(folder)
    save_file({"other": torch.zeros(1)}, folder / "other.safetensors", {"format": "pt"})
    with pytest.raises(probes.InputError, match="could not be loaded"):
        probes.load_checkpoint(folder)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a pickle was run')",))


def test_code_in_a_pickle_is_not_run_even_where_pickles_are_allowed(folder):
    pickle_only(folder)
    torch.save({"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(probes.InputError, match="could not be loaded"):
        probes.load_checkpoint(folder, allow_pickle=True)


def remove(*patterns):
    return lambda folder: [path.unlink() for pattern in patterns for path in folder.glob(pattern)]


def resize(folder):
    changed(folder, intermediate_size=24)


def drop_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


SPOILT = {
    "no model": (remove("config.json"), "a folder without a model: no config.json in it"),
    "no weights": (remove("*.safetensors"), r"a folder without weights: expected \*.safetensors beside config.json"),
    "no tokenizer": (remove("tokenizer*"), "the tokenizer .*tokenizer.save_pretrained"),
    "more layers": (
        lambda f: changed(f, num_hidden_layers=5),
        "missing in the checkpoint: bert.encoder.layer.3.* and",
    ),
    "a weight lacks": (drop_weight, "missing in the checkpoint: bert.encoder.layer.1.output.dense.weight. Its config"),
    "other shape": (resize, "of another shape in the checkpoint: bert.encoder.layer.0.intermediate.dense"),
    "truncated": (lambda f: (f / "model.safetensors").write_bytes(b"\x10"), "not readable as safetensors"),
    "a list of tensors without end": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 3 * 10**7) + b" " * (3 * 10**7 + 1)),
        "its list of tensors alone takes 30,000,000 bytes, and that of a model at most 25,000,000",
    ),
    "no json": (lambda f: (f / "config.json").write_text("{"), "the model could not be loaded"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT)
def test_a_folder_that_holds_no_whole_model_is_refused_in_one_line(folder, spoil, message):
    spoil(folder)
    with pytest.raises(probes.InputError, match=message) as caught:
        probes.load_checkpoint(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/folder", "/no/such/folder: no such folder. Check the path"),
        ("./model", "./model: no such folder"),
        ("a/b/c", "a/b/c: no such folder"),
        ("no-such-model", "no-such-model: the model could not be loaded"),
    ],
)
def test_a_model_that_is_not_there_is_refused(source, message):
    with pytest.raises(probes.InputError, match=message):
        probes.load_checkpoint(source)


def test_a_file_in_place_of_a_folder_is_refused(folder):
    with pytest.raises(
        probes.InputError, match=r"model.safetensors: expected a folder that holds a model, found a file"
    ):
        probes.load_checkpoint(folder / "model.safetensors")


def test_the_check_before_loading_reads_no_weights(folder):
    save_file({"nothing": torch.zeros(1)}, folder / "model.safetensors")
    check_checkpoint(folder)
    check_checkpoint("bundled")


def test_the_check_before_loading_finds_a_tokenizer_that_does_not_fit(folder):
    changed(folder, vocab_size=5)
    with pytest.raises(probes.InputError, match=r"tokenizer and model do not fit: .* tokens, but 5 embeddings"):
        check_checkpoint(folder)


def test_a_hub_name_that_cannot_be_reached_is_named():
    with pytest.raises(probes.InputError, match="owner/name: the model could not be loaded"):
        check_checkpoint("owner/name")


@pytest.mark.parametrize("kind", ["evil", "bert"])
def test_code_that_comes_with_a_checkpoint_is_refused_and_not_run(folder, kind):
    code = {
        "AutoConfig": "evil.EvilConfig",
        "AutoModel": "evil.EvilModel",
        "AutoTokenizer": ["evil.EvilTokenizer", None],
    }
    changed(folder, model_type=kind, architectures=["EvilModel"], auto_map=code)
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    with pytest.raises(probes.InputError, match=r"custom code|'EvilModel' is not one of transformers"):
        probes.load_checkpoint(folder)
    assert not (folder / "ran").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder, make_tokenizer):
    size = len(make_tokenizer())
    make_tokenizer(words=[str(i) for i in range(50)]).save_pretrained(folder)
    with pytest.raises(probes.InputError, match=f"do not fit: 54 tokens, but {size} embeddings"):
        probes.load_checkpoint(folder)


def test_a_far_smaller_tokenizer_is_warned_about_and_a_little_smaller_one_is_not(folder, make_tokenizer):
    words = [word for word in make_tokenizer().get_vocab() if not word.startswith("[")]
    make_tokenizer(words=words[1:]).save_pretrained(folder)
    probes.load_checkpoint(folder)
    make_tokenizer(words=words[:5]).save_pretrained(folder)
    with pytest.warns(probes.LayerscopeWarning, match=r"the tokenizer has 9 tokens and the model \d+ embeddings"):
        probes.load_checkpoint(folder)


def test_a_checkpoint_has_the_same_fingerprint_each_time_also_where_it_lacks_its_pooler(folder):
    changed(folder, architectures=["BertModel"])
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, folder / "model.safetensors", {"format": "pt"})
    found = set()
    for seed in (1, 2):
        before = torch.manual_seed(seed).get_state()
        found.add(weights_fingerprint(probes.load_checkpoint(folder)[0]))
        assert torch.equal(torch.get_rng_state(), before)
    assert len(found) == 1


def test_loading_leaves_the_messages_of_transformers_as_they_were(folder):
    from transformers import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    probes.load_checkpoint(folder)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(probes.InputError):
        probes.load_checkpoint(folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "architecture",
    ["BertForSequenceClassification", "BertModel", "LlamaModel", "GPT2LMHeadModel", "T5ForConditionalGeneration"],
)
def test_packed_weights_make_the_same_model_as_plain_ones(tmp_path, tiny_models, make_tokenizer, architecture, dtype):
    saved = thin_out(tiny_models(architecture)).to(dtype)
    if saved.can_generate():
        saved.generation_config.max_new_tokens = 7
    saved.save_pretrained(tmp_path / "plain")
    make_tokenizer().save_pretrained(tmp_path / "plain")
    pack_in_place(shutil.copytree(tmp_path / "plain", tmp_path / "packed"))
    plain, packed = (probes.load_checkpoint(tmp_path / name)[0] for name in ("plain", "packed"))
    assert type(packed) is type(saved)
    assert {p.dtype for p in packed.parameters()} == {torch.float32}
    assert not any(module.training for module in packed.modules())
    assert weights_fingerprint(packed) == weights_fingerprint(plain)
    ids = {"input_ids": torch.tensor([[2, 5, 6, 3]])}
    if saved.config.is_encoder_decoder:
        ids["decoder_input_ids"] = ids["input_ids"]
    with torch.no_grad():
        assert torch.equal(packed(**ids)[0], plain(**ids)[0])
    assert packed.name_or_path == packed.config.name_or_path == str(tmp_path / "packed")
    if saved.can_generate():
        assert packed.generation_config.to_dict() == plain.generation_config.to_dict()
        assert packed.generation_config.max_new_tokens == 7
        # Tied weights come back tied, once.
        assert packed.get_input_embeddings().weight is packed.get_output_embeddings().weight
    tied = {name for name, _ in packed.named_parameters()}
    assert tied == {name for name, _ in plain.named_parameters()}


def test_packed_weights_of_fewer_heads_load(tmp_path, tiny_models, make_tokenizer):
    saved = thin_out(tiny_models("BertForSequenceClassification"))
    saved.config.heads_kept = [1, 2, 1]
    apply_shapes(saved)
    saved.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    pack_in_place(tmp_path)
    model, _ = probes.load_checkpoint(tmp_path)
    assert type(model) is type(saved)
    assert model.bert.encoder.layer[0].attention.self.query.weight.shape == (6, 12)
    assert weights_fingerprint(model) == weights_fingerprint(saved)


def test_packed_weights_load_without_the_name_of_an_architecture(packed_folder):
    whole = probes.load_checkpoint(packed_folder)[0]
    changed(packed_folder, architectures=None)
    assert weights_fingerprint(probes.load_checkpoint(packed_folder)[0]) == weights_fingerprint(whole.bert)


def repack(folder, **changes):
    """Change tensors of packed weights: one that is None goes."""
    state = {k: v for k, v in (unpack(folder / PACKED) | changes).items() if v is not None}
    tensors, metadata = pack(state)
    save_file(tensors, folder / PACKED, metadata)


def shorten_values(folder):
    tensors, (_, metadata) = load_file(folder / PACKED), pack(unpack(folder / PACKED))
    tensors["bert.encoder.layer.0.output.dense.weight.values"] = torch.ones(3)
    save_file(tensors, folder / PACKED, metadata)


def shorten_mask(folder):
    tensors, (_, metadata) = load_file(folder / PACKED), pack(unpack(folder / PACKED))
    tensors["bert.encoder.layer.0.output.dense.weight.mask"] = torch.ones(3, dtype=torch.uint8)
    save_file(tensors, folder / PACKED, metadata)


def both_forms(folder):
    save_file(unpack(folder / PACKED), folder / "model.safetensors", {"format": "pt"})


SPOILT_PACKED = {
    "no model": SPOILT["no model"],
    "no weights": SPOILT["no weights"],
    "no tokenizer": SPOILT["no tokenizer"],
    "more layers": SPOILT["more layers"],
    "a weight lacks": (
        lambda f: repack(f, **{"bert.encoder.layer.1.output.dense.weight": None}),
        "missing in the checkpoint: bert.encoder.layer.1.output.dense.weight. Its config",
    ),
    "other shape": SPOILT["other shape"],
    "truncated": (lambda f: (f / PACKED).write_bytes((f / PACKED).read_bytes()[:-1]), f"{PACKED}: not readable as"),
    "values": (shorten_values, f"{PACKED}: bert.encoder.layer.0.output.dense.weight: .* found 3"),
    "mask": (shorten_mask, f"{PACKED}: bert.encoder.layer.0.output.dense.weight: .* a mask of 30 bytes .* found 3"),
    "plain under this name": (
        lambda f: (both_forms(f), (f / "model.safetensors").replace(f / PACKED)),
        f"{PACKED}: its metadata: expected the key 'version'",
    ),
    "both forms": (both_forms, f"expected one set of weights, found model.safetensors and {PACKED}: .*Move one of"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT_PACKED.values(), ids=SPOILT_PACKED)
def test_a_folder_of_packed_weights_that_is_not_whole_is_refused_in_one_line(packed_folder, spoil, message):
    probes.load_checkpoint(packed_folder)
    spoil(packed_folder)
    with pytest.raises(probes.InputError, match=message) as caught:
        probes.load_checkpoint(packed_folder)
    assert str(caught.value).startswith(str(packed_folder))
    assert "\n" not in str(caught.value)


def test_the_check_before_loading_finds_packed_weights_that_do_not_fit_and_reads_none(packed_folder, monkeypatch):
    check_checkpoint(packed_folder)
    monkeypatch.setattr("numpy.unpackbits", None)
    check_checkpoint(packed_folder)
    monkeypatch.undo()
    shorten_mask(packed_folder)
    with pytest.raises(probes.InputError, match="its parts do not fit together"):
        check_checkpoint(packed_folder)


def test_no_pickle_is_opened_beside_packed_weights(packed_folder):
    torch.save({"evil": Evil()}, packed_folder / "pytorch_model.bin")
    expected = weights_fingerprint(probes.load_checkpoint(packed_folder)[0])
    assert weights_fingerprint(probes.load_checkpoint(packed_folder, allow_pickle=True)[0]) == expected


def test_packed_weights_without_a_pooler_have_the_same_fingerprint_each_time_and_as_plain_ones(packed_folder):
    changed(packed_folder, architectures=["BertModel"])
    repack(packed_folder, **{"bert.pooler.dense.weight": None, "bert.pooler.dense.bias": None})
    found = set()
    for seed in (1, 2):
        before = torch.manual_seed(seed).get_state()
        found.add(weights_fingerprint(probes.load_checkpoint(packed_folder)[0]))
        assert torch.equal(torch.get_rng_state(), before)
    both_forms(packed_folder)
    (packed_folder / PACKED).unlink()
    found.add(weights_fingerprint(probes.load_checkpoint(packed_folder)[0]))
    assert len(found) == 1


def test_the_bundled_model_is_called_so_in_tables_and_messages():
    model, _ = probes.load_checkpoint("bundled")
    assert (model.name_or_path, model.config.name_or_path) == ("bundled", "bundled")
