"""Saving: plain transformers loads what was saved, and nothing that was there is touched."""

import json
import os

import pandas as pd
import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file

import compress
import probes
from compress import prune, save
from compress.matrices import block_matrices
from compress.saving import check_new, record
from probes.files import beside
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.packed import pack_weights, unpack


@pytest.fixture
def pruned(tiny_models):
    return prune(tiny_models("BertForSequenceClassification"), sparsity=0.5)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_plain_transformers_loads_a_saved_model_with_identical_outputs(pruned, make_tokenizer, tmp_path):
    tokenizer = make_tokenizer()
    assert save(pruned, tmp_path / "deep" / "out", tokenizer) == tmp_path / "deep" / "out"
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "deep" / "out").eval()
    texts = transformers.AutoTokenizer.from_pretrained(tmp_path / "deep" / "out")(["the cat sat"], return_tensors="pt")
    assert texts["input_ids"].tolist() == tokenizer(["the cat sat"])["input_ids"]
    with torch.no_grad():
        assert torch.equal(back(**texts).logits, pruned(**texts).logits)
    assert back.config.compression == pruned.config.compression
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in pruned.state_dict().items())
    model, _ = probes.load_checkpoint(tmp_path / "deep" / "out")
    assert model.config.compression == pruned.config.compression


def test_what_was_done_lies_beside_the_weights(pruned, tiny_models, tmp_path):
    save(pruned, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "compression.json").read_text()) == pruned.config.compression
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    save(tiny_models("BertModel"), tmp_path / "plain")
    assert not (tmp_path / "plain" / "compression.json").exists()


def test_a_record_names_parent_and_versions_and_keeps_what_was_done_before(tiny_models):
    first, second = (tiny_models("BertModel", hidden_act=act) for act in ("gelu", "relu"))
    with torch.no_grad():
        second.pooler.dense.weight.add_(1)
    model, log = tiny_models("BertModel"), pd.DataFrame({"step": [1]})
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    one = {"method": "one", "parent": weights_fingerprint(first), **versions}
    assert record(model, {"method": "one"}, parent=first, history=log) is model
    assert model.config.compression == one
    assert model.history is log
    given = {"method": "two", "share": 0.5}
    record(model, given, parent=second)
    two = {"method": "two", "share": 0.5, "parent": weights_fingerprint(second), **versions}
    assert model.config.compression == {"before": one, **two}
    assert next(iter(model.config.compression)) == "before"
    assert one["parent"] != two["parent"]
    assert model.history is None
    assert given == {"method": "two", "share": 0.5}
    record(model, {"method": "three"}, parent=model)
    assert model.config.compression["before"] == {"before": one, **two}


def test_an_empty_folder_is_filled(pruned, tmp_path):
    (tmp_path / "out").mkdir()
    save(pruned, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("place", ["full", "file"])
def test_what_is_there_is_refused_and_left_as_it_was(pruned, tmp_path, place):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(probes.InputError, match=f"{place} exists and is not an empty folder; it is left as it is"):
        save(pruned, tmp_path / place)
    assert contents(tmp_path) == before


def test_a_place_that_cannot_be_written_to_is_refused(pruned, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(probes.InputError, match=r"out cannot be written to .*Choose another path"):
        save(pruned, tmp_path / "file" / "deep" / "out")


@pytest.mark.parametrize(("name", "stays"), [("out.partial", True), ("out.layerscope-partial", False)])
def test_what_an_earlier_run_left_beside_the_folder_is_not_mixed_in(pruned, tmp_path, name, stays):
    (tmp_path / name).mkdir()
    (tmp_path / name / "stale.safetensors").write_text("stale")
    save(pruned, tmp_path / "out")
    assert not (tmp_path / "out" / "stale.safetensors").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == (["out", name] if stays else ["out"])


def test_a_folder_that_another_process_writes_is_refused_or_waited_for(pruned, tmp_path):
    lock = beside(tmp_path / "out", "lock")
    lock.write_text("17\nelsewhere\n5\n")
    with pytest.raises(probes.InputError, match="is being written by process 17 of the host elsewhere"):
        save(pruned, tmp_path / "out", wait=False)
    assert [p.name for p in tmp_path.iterdir()] == [lock.name]


def test_a_saving_that_fails_leaves_nothing(pruned, tmp_path, monkeypatch):
    def fail(folder, *_args, **_options):
        os.makedirs(folder)
        raise OSError("no space left")

    monkeypatch.setattr(pruned, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        save(pruned, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_check_of_a_new_folder_leaves_no_trace(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in ("new", "a/b/c", "empty"):
        check_new(tmp_path / place)
    assert contents(tmp_path) == {"empty": None}


def test_a_packed_model_is_the_same_model_in_a_folder_of_the_same_files(pruned, make_tokenizer, tmp_path):
    pruned = prune(pruned, sparsity=0.9)
    vars(pruned)["history"] = pd.DataFrame({"step": [1], "loss": [0.5]})
    for name, packed in {"plain": False, "packed": True}.items():
        assert save(pruned, tmp_path / name, make_tokenizer(), packed=packed) == tmp_path / name
    before, after = contents(tmp_path / "plain"), contents(tmp_path / "packed")
    weights, packed_weights = before.pop("model.safetensors"), after.pop("packed.safetensors")
    assert after == before
    assert {"config.json", "compression.json", "history.csv", "tokenizer.json"} <= set(after)
    assert len(packed_weights) < len(weights)
    plain, packed = (probes.load_checkpoint(tmp_path / name)[0] for name in ("plain", "packed"))
    assert weights_fingerprint(packed) == weights_fingerprint(plain) == weights_fingerprint(pruned)
    assert packed.config.compression == pruned.config.compression
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        assert torch.equal(packed(input_ids=ids).logits, plain(input_ids=ids).logits)
    with pytest.raises(OSError, match=r"model.safetensors"):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "packed")


def test_a_packed_model_that_is_loaded_and_saved_is_plain_again(pruned, make_tokenizer, tmp_path):
    save(pruned, tmp_path / "plain", make_tokenizer())
    save(pruned, tmp_path / "packed", make_tokenizer(), packed=True)
    model, tokenizer = probes.load_checkpoint(tmp_path / "packed")
    save(model, tmp_path / "back", tokenizer)
    assert contents(tmp_path / "back").keys() == contents(tmp_path / "plain").keys()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("back", "plain")]
    assert weights[0] == weights[1]
    transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "back")


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
def test_the_bundled_model_is_as_small_as_its_zeros_say(tmp_path, sparsity):
    model, _ = probes.load_checkpoint("bundled")
    pruned = prune(model, sparsity=sparsity)
    save(pruned, tmp_path / "out", packed=True)
    blocks = list(block_matrices(pruned).values())
    whole = sum(v.nbytes for v in pruned.state_dict().values()) - sum(w.nbytes for w in blocks)
    nonzero, every = sum(int((w != 0).sum()) for w in blocks), sum(w.numel() for w in blocks)
    assert nonzero == pytest.approx((1 - sparsity) * every, rel=1e-3)
    signs = sum(-(-int((w == 0).sum()) // 8) for w in blocks if bool((torch.signbit(w) & (w == 0)).any()))
    with (tmp_path / "out" / "packed.safetensors").open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    size = (tmp_path / "out" / "packed.safetensors").stat().st_size
    assert size - header == whole + 4 * nonzero + every / 8 + signs
    assert header < 0.01 * size


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_tied_weights_are_packed_once(tiny_models, tmp_path, architecture):
    model = tiny_models(architecture)
    with torch.no_grad():
        model.get_input_embeddings().weight[1:].zero_()
    save(model, tmp_path / "plain")
    save(model, tmp_path / "packed", packed=True)
    assert set(unpack(tmp_path / "packed" / "packed.safetensors")) == set(
        load_file(tmp_path / "plain" / "model.safetensors")
    )
    name = {"GPT2LMHeadModel": "transformer.wte.weight"}.get(architecture, "shared.weight")
    assert f"{name}.mask" in load_file(tmp_path / "packed" / "packed.safetensors")


def test_weights_in_several_files_are_packed_into_one(pruned, make_tokenizer, tmp_path):
    pruned.save_pretrained(tmp_path, max_shard_size="5KB")
    make_tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert pack_weights(tmp_path) == tmp_path / "packed.safetensors"
    assert [p.name for p in tmp_path.glob("*safetensors*")] == ["packed.safetensors"]
    assert weights_fingerprint(probes.load_checkpoint(tmp_path)[0]) == weights_fingerprint(pruned)


def test_quantised_weights_are_not_packed(pruned, tmp_path):
    pruned.config.quantization_config = {"quant_method": "torchao"}
    with pytest.raises(
        probes.InputError, match=r"expected weights that are plain numbers.*Save it without packed=True"
    ):
        save(pruned, tmp_path / "deep" / "out", packed=True)
    assert list(tmp_path.iterdir()) == []


def test_what_layers_are_left_of_is_told_by_the_model_that_all_began_with(tmp_path):
    model, tokenizer = probes.load_checkpoint("bundled")
    six = compress.drop_layers(model, [1, 4])
    three = compress.drop_layers(compress.prune(six, sparsity=0.5), [0])
    folder = compress.save(compress.quantize(three, bits=8), tmp_path / "three", tokenizer)
    loaded, _ = probes.load_checkpoint(folder)
    left = [i for i in range(model.config.num_hidden_layers) if i not in (1, 4)]
    assert six.config.compression["made_of"] == left
    assert loaded.config.compression["made_of"] == left[1:]
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(4))
    assert probes.capture(loaded, tokenizer, corpus, progress=False).attrs["made_of"] == left[1:]
    assert "made_of" not in compress.prune(model, sparsity=0.5).config.compression


@pytest.mark.filterwarnings("ignore:.*no configuration of transformers can say")
def test_layers_that_are_not_as_their_places_say_are_saved_where_plain_transformers_finds_none(tmp_path):
    """It would load a ModernBERT without its first layer with other numbers, and warn of it only."""
    model, tokenizer = tiny.make("modernbert"), tiny.tokenizer_of("modernbert")
    inputs = tokenizer("the dog sat on a mat", return_tensors="pt")
    for gone, packed in (([1], False), ([0], True)):
        smaller = compress.drop_layers(model, gone)
        folder = compress.save(smaller, tmp_path / str(gone), tokenizer)
        assert (folder / "packed.safetensors").exists() == packed
        back, _ = probes.load_checkpoint(folder)
        with torch.no_grad():
            assert torch.equal(back(**inputs).last_hidden_state, smaller(**inputs).last_hidden_state)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        transformers.AutoModel.from_pretrained(folder)
