"""Saving: plain transformers loads what was saved, and nothing that was there is touched."""

import json
import os

import pytest
import torch
import transformers

import probes
from compress import prune, save
from compress.saving import check_new


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
    with pytest.raises(probes.InputError, match=r"out cannot be written to .*Choose another output folder"):
        save(pruned, tmp_path / "file" / "deep" / "out")


def test_what_an_earlier_run_left_beside_the_folder_is_not_mixed_in(pruned, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "stale.safetensors").write_text("stale")
    save(pruned, tmp_path / "out")
    assert not (tmp_path / "out" / "stale.safetensors").exists()
    assert contents(tmp_path / "out.partial") == {"stale.safetensors": b"stale"}


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
