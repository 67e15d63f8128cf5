"""A model in several places computes what it computes in one, and is not pulled together."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertForSequenceClassification

import compress
import probes
import probes.comparing
from compress.__main__ import layerscope
from probes.models.fingerprint import weights_fingerprint
from probes.models.spread import check_whole, places_of, runs_on, weights_in

MAP = {"bert.embeddings": "cpu", "bert.encoder.layer.0": "cpu", "bert.pooler": "cpu", "classifier": "cpu"}
MAP |= {"bert.encoder.layer.1": "disk", "bert.encoder.layer.2": "disk"}


@pytest.fixture(scope="module")
def folder(tiny_models, make_tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("spread")
    tokenizer = make_tokenizer()
    tiny_models("BertForSequenceClassification", num_hidden_layers=3).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def models(folder):
    whole, tokenizer = probes.load_checkpoint(folder)
    return whole, probes.load_checkpoint(folder, device_map=MAP)[0], tokenizer


@pytest.fixture(scope="module")
def corpus():
    words = ["one", "two", "three", "four", "five", "six"]
    rows = [{"id": i, "language": k, "text": " ".join(words[: 2 + i % 4])} for i in range(8) for k in ("en", "fr")]
    return probes.load_corpus(pd.DataFrame(rows))


def test_states_are_those_of_the_model_in_one_place_and_it_stays_where_it_is(models, corpus):
    whole, spread, tokenizer = models
    where = {name: p.device for name, p in spread.named_parameters()}
    assert {str(device) for device in where.values()} == {"cpu", "meta"}
    one, other = (probes.capture(m, tokenizer, corpus, progress=False) for m in (whole, spread))
    np.testing.assert_array_equal(one.hidden, other.hidden)
    np.testing.assert_array_equal(one.logits, other.logits)
    assert one.attrs["fingerprint"] == other.attrs["fingerprint"]
    assert {name: p.device for name, p in spread.named_parameters()} == where
    with pytest.raises(
        probes.InputError, match=r"is spread over cpu, disk \(device_map\) and runs there; device='cpu'"
    ):
        probes.capture(spread, tokenizer, corpus, device="cpu", progress=False)


def test_weights_are_read_where_they_lie(models):
    whole, spread, _ = models
    assert places_of(spread) == ["cpu", "disk"]
    assert places_of(whole) == []
    assert runs_on(spread) == torch.device("cpu")
    assert weights_fingerprint(spread) == weights_fingerprint(whole)
    for (name, one), (other_name, other) in zip(weights_in(whole), weights_in(spread), strict=True):
        assert name == other_name
        assert torch.equal(one, other)
    with torch.no_grad():  # not the same where one weight is not
        changed = BertForSequenceClassification(whole.config)
    assert weights_fingerprint(changed) != weights_fingerprint(spread)


def training(tokenizer, corpus):
    return {"train": corpus, "tokenizer": tokenizer, "steps": 1, "progress": False}


# Each verb and backend as `compress.check` names it, and what else changes a model or reads all of its weights.
VERBS = {
    "prune": lambda model, *_: compress.prune(model, sparsity=0.5),
    "prune_heads": lambda model, *_: compress.prune_heads(model, 0.5),
    "prune_channels": lambda model, *_: compress.prune_channels(model, 0.5),
    "drop_layers": lambda model, *_: compress.drop_layers(model, [0]),
    "quantize": lambda model, *_: compress.quantize(model, bits=4),
    "quantize onnxruntime": lambda model, *_: compress.quantize(model, bits=8, backend="onnxruntime"),
    "quantize torchao": lambda model, *_: compress.quantize(model, bits=8, backend="torchao"),
    "product_quantize": lambda model, *_: compress.product_quantize(model),
    "factorize": lambda model, *_: compress.factorize(model, rank=2),
    "fuse": lambda model, *_: compress.fuse(model),
    "hash_weights": lambda model, *_: compress.hash_weights(model),
    "distill layers": lambda model, *given: compress.distill(model, layers=2, **training(*given)),
    "distill hidden_size": lambda model, *given: compress.distill(model, hidden_size=8, **training(*given)),
    "code_outputs": lambda model, *_: compress.code_outputs(model, bits=4),
    "sparsify_embeddings": lambda model, *given: compress.sparsify_embeddings(model, **training(*given)),
    "prune_vocabulary": compress.prune_vocabulary,
    "finetune": lambda model, *given: compress.finetune(model, *given, steps=1, progress=False),
    "restore": lambda model, *given: compress.restore(model, model, *given),
    "bit_damage": lambda model, tokenizer, corpus: compress.bit_damage(model, corpus, tokenizer, pivot="en"),
    "layer_similarity": lambda model, *_: compress.layer_similarity(model),
    "save_codes": lambda model, *_: compress.save_codes(model, "never-made"),
    "module_error": lambda model, *given: probes.module_error(model, model, *given),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_changes_a_model_says_that_it_needs_it_whole(models, corpus, verb):
    _, spread, tokenizer = models
    with pytest.raises(probes.InputError, match=r"needs the model whole, and it is spread over cpu, disk\. Load it"):
        VERBS[verb](spread, tokenizer, corpus)


def test_no_verb_is_forgotten(models, tmp_path):
    whole, spread, tokenizer = models
    assert set(compress.check(whole, tokenizer)["verb"]) <= set(VERBS)
    with pytest.raises(probes.InputError, match=r"saving needs the model whole"):
        compress.save(spread, tmp_path / "out", tokenizer)
    assert not (tmp_path / "out").exists()
    with pytest.raises(probes.InputError, match="patching needs the model whole"):
        check_whole(spread, "patching")


def test_what_a_model_costs_is_counted_where_it_lies(models):
    whole, spread, _ = models
    one, other = (compress.footprint(model).loc["model"] for model in (whole, spread))
    counts = ["parameters", "nonzero", "embeddings", "encoder", "encoder_nonzero", "operations", "hoyer"]
    pd.testing.assert_series_equal(one[counts], other[counts])
    assert other["stored_as"] == "as it is"
    assert 0 < one["bytes"] - other["bytes"] < 16_384  # the head of the file, which says what is where in it


def test_checkpoints_are_compared_where_a_map_says(models, folder, corpus, tmp_path):
    about = {
        "pivot": "en",
        "probes": ["retrieval", "cosine_to_baseline"],
        "draws": 5,
        "progress": False,
        "timing": False,
    }
    expected = probes.compare({"a": folder, "b": folder}, corpus, **about)
    found = probes.compare({"a": folder, "b": folder}, corpus, device_map=MAP, **about)
    pd.testing.assert_frame_equal(found.table, expected.table)
    said = r"a is spread over cpu, disk \(device_map\) and runs there; device='cpu'"
    with pytest.raises(probes.InputError, match=said):
        probes.compare({"a": folder, "b": folder}, corpus, device_map=MAP, device="cpu", **about)
    whole, _, tokenizer = models
    compress.save(compress.quantize(whole, bits=4), tmp_path / "packed", tokenizer, packed=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("probes.comparing.load_checkpoint", lambda *_, **__: pytest.fail("a model was loaded"))
        with pytest.raises(probes.InputError, match=r"packed: device_map is for plain checkpoints"):
            probes.compare({"a": folder, "b": tmp_path / "packed"}, corpus, device_map=MAP, **about)
        patch.setattr(
            "probes.measures.attribution.causes.load_checkpoint", lambda *_, **__: pytest.fail("one was loaded")
        )
        with pytest.raises(probes.InputError, match=r"patching needs the model whole, and it is spread over cpu, disk"):
            probes.compare({"a": folder, "b": folder}, corpus, device_map=MAP, patching=True, **about)
        about |= {"probes": ["module_error"]}
        said = r"accumulated_error, .* cannot be measured without models in one place\. Give models without device_map"
        with pytest.raises(probes.InputError, match=said):
            probes.compare({"a": folder, "b": folder}, corpus, device_map=MAP, **about)
        with pytest.raises(probes.InputError, match=said):
            probes.compare({"a": models[0], "b": models[1]}, corpus, tokenizer=tokenizer, **about)


def test_weights_are_compared_as_they_are_stored(models, folder, corpus, tmp_path):
    model, tokenizer = probes.load_checkpoint(folder)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    about = {"pivot": "en", "probes": ["cosine_to_baseline"], "draws": 5, "progress": False, "timing": False}
    found = probes.compare({"whole": models[0], "stored": tmp_path}, corpus, tokenizer=tokenizer, dtype="auto", **about)
    assert found.representations["stored"].attrs["dtype"] == "bfloat16"
    assert found.representations["whole"].attrs["dtype"] == "float32"
    assert found.provenance["asked"]["settings"]["dtype"] == "auto"
    values = found.table.query("model == 'stored' and layer > 0 and language == 'pooled'")["value"]
    assert ((values > 0.99) & (values < 1)).all()  # it differs by the rounding of weights alone
    grown = found.add("again", tmp_path, timing=False, progress=False)
    assert grown.representations["again"].attrs["dtype"] == "bfloat16"


def test_the_command_line_says_where_models_are_loaded_to(models, folder, corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("probes.views.report.image", lambda figure: "data:,")
    corpus.to_csv(tmp_path / "text.csv")
    asked = ["compare", f"a={folder}", "--corpus", str(tmp_path / "text.csv"), "--out", str(tmp_path / "run")]
    asked += ["--probes", "norm", "--draws", "5", "--dtype", "auto"]
    loaded = []
    load = probes.comparing.load_checkpoint
    monkeypatch.setattr("probes.comparing.load_checkpoint", lambda *a, **how: loaded.append(how) or load(*a, **how))
    offload = ["--offload-folder", str(tmp_path / "offloaded")]
    assert layerscope([*asked, "--device-map", json.dumps(MAP), *offload]) == 0
    about = {"allow_pickle": False, "device_map": MAP, "dtype": "auto", "offload_folder": tmp_path / "offloaded"}
    assert loaded == [about]
    capsys.readouterr()
    assert layerscope(["footprint", str(folder), "--json", "--device-map", json.dumps(MAP)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["parameters"] == sum(p.numel() for p in models[0].parameters())
    with pytest.raises(SystemExit):
        layerscope([*asked, "--device-map", "{'': 'cpu'}"])
    assert "--device-map: not readable as JSON" in capsys.readouterr().err


def test_precision_is_that_of_the_file_where_it_is_asked_for(folder, tmp_path):
    model, tokenizer = probes.load_checkpoint(folder)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert probes.load_checkpoint(tmp_path)[0].dtype == torch.float32
    assert probes.load_checkpoint(tmp_path, dtype="auto")[0].dtype == torch.bfloat16
    assert probes.load_checkpoint(folder, dtype="bfloat16")[0].dtype == torch.bfloat16
    with pytest.raises(probes.InputError, match="dtype='half'"):
        probes.load_checkpoint(folder, dtype="half")


def test_what_is_put_together_in_one_place_is_not_spread(models, tmp_path):
    whole, _, tokenizer = models
    compress.save(compress.quantize(whole, bits=4), tmp_path, tokenizer, packed=True)
    with pytest.raises(probes.InputError, match=r"is for plain checkpoints, and this one has packed weights"):
        probes.load_checkpoint(tmp_path, device_map="auto")
