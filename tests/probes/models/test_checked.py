"""What a checkpoint is said to be, held against the checkpoint."""

import json

import pytest
from architectures import make

import compress
import probes
from probes.errors import InputError
from probes.models.checked import check


@pytest.fixture
def said():
    def of(*args, **settings):
        table = check(*args, **settings)
        assert list(table) == ["part", "found", "note"]
        return {part: (found, note) for part, found, note in table.itertuples(index=False)}

    return of


def test_a_checkpoint_is_described_without_its_weights(said, tiny_folder, monkeypatch):
    model, _ = probes.load_checkpoint(tiny_folder)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    found = said(tiny_folder)
    assert found["model"] == (f"BertForSequenceClassification of {tiny_folder}", "architecture 'bert'")
    assert found["size"][0] == f"{sum(p.numel() for p in model.parameters()):,} parameters, 12 features a token"
    assert found["states"] == ("4 layers", "layer 0 is the embeddings")
    assert found["files"] == ("model.safetensors", "tensors of F32; loaded in float32")
    assert found["longest text"] == ("32 tokens", "longer ones are cut")
    assert found["head"] == ("3 classes", "LABEL_0, LABEL_1, LABEL_2")
    assert found["pooling"] == ("mean", "none is declared")
    assert [found[part][0] for part in ("layers", "heads", "channels")] == ["3", "2 in each place", "20 in each place"]


def test_the_bundled_model_is_said_to_be_bundled(said):
    found = said("bundled")
    assert found["model"][0] == "BertForSequenceClassification of bundled"
    assert found["files"][0] == "model.safetensors"


def test_what_was_done_to_a_model_is_said(said, tiny_models, make_tokenizer, tmp_path):
    model = tiny_models("BertForSequenceClassification")
    smaller = compress.prune_channels(compress.prune_heads(model, 0.5), 0.25)
    compress.save(smaller, tmp_path / "m", make_tokenizer(), packed=True)
    for found in (said(smaller, make_tokenizer()), said(tmp_path / "m")):
        assert found["format"] == ("fewer heads (config.heads_kept)", "loaded by probes.load_checkpoint")
        assert (found["heads"][0], found["channels"][0]) == ("1 in each place", "15 in each place")
    assert said(tmp_path / "m")["files"][0] == "packed.safetensors"


def test_why_something_cannot_be_done_is_said(said):
    found = said(make("olmo2"))
    assert found["heads"][0] == "not known"
    assert "heads cannot be removed, for its norms of query and key" in found["heads"][1]
    assert found["layers"][0] == "4"
    assert said(make("albert"))["layers"] == ("4", "one block, run so many times")
    assert said(make("qwen2"))["heads"] == ("2 in each place", "heads that share key and value count as one")


def test_a_head_that_is_not_in_the_weights_is_none(said, tiny_models, make_tokenizer, tmp_path):
    tiny_models("BertModel").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = said(tmp_path)["head"]
    assert found[0] == "none"
    assert "classifier.bias" in found[1]
    assert found[1].endswith("not in the weights: what needs a head is not measured")


def test_declared_pooling_is_said(said, tiny_folder, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"type": "sentence_transformers.models.Transformer", "path": ""},
                {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
                {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert said(folder)["pooling"] == ("first", "normalize=True")


def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        check(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="a folder without weights"):
        check(tmp_path)
