import json

import faults
import pandas as pd
import pytest
import torch
from ranked import together

import compress
import probes
from probes.comparing import measure_models

PLAIN = {
    **dict.fromkeys(("tokenizer", "baseline", "store")),
    "draws": 20,
    "seed": 0,
    "allow_pickle": False,
    "timing": False,
    "settings": {},
}


def test_what_is_measured_is_what_a_comparison_is_made_of(models):
    found = measure_models(models, pivot="l0", probes=["retrieval"], **PLAIN)
    compared = probes.compare(models, pivot="l0", probes=["retrieval"], draws=20)
    values = ["model", "layer", "language", "probe", "value", "low", "high", "n"]
    pd.testing.assert_frame_equal(found.table[values], compared.table[values])
    assert found.provenance == compared.provenance
    assert list(found.representations) == list(models) == list(compared.representations)


def test_the_baseline_is_one_of_the_models(models):
    with pytest.raises(probes.InputError, match="baseline 'none': no such model; there are 'base', 'worse', 'half'"):
        measure_models(models, pivot="l0", probes=["retrieval"], **PLAIN | {"baseline": "none"})


def test_what_models_cost_is_measured_once_beside_the_baseline(bundled, monkeypatch):
    model, tokenizer = probes.load_checkpoint("bundled")
    small = compress.drop_layers(model, [0, 1, 2])
    few = bundled.select(range(40))
    kept = probes.capture(model, tokenizer, few, progress=False)
    how = {"tokenizer": tokenizer, "probes": ["norm"], "draws": 5, "progress": False}
    compared = probes.compare({"kept": kept, "base": "bundled", "small": small}, few, baseline="base", **how)
    costs = compared.models.set_index("model")
    assert list(costs.index) == ["kept", "base", "small"]
    assert costs.loc["kept"].drop("stored_as").isna().all()
    assert costs.loc["base", "bytes"] == probes.costs.weight_files("bundled")[0].stat().st_size
    assert costs.loc["small", "operations"] < 0.6 * costs.loc["base", "operations"]
    assert costs.loc["small", "speed_32"] > 0
    assert compared.provenance["timed"] == {"texts": [1, 32], "rounds": 1, "threads": torch.get_num_threads()}
    quiet = probes.compare({"base": "bundled"}, few, timing=False, **how)
    assert quiet.models[["operations", "seconds_1", "seconds_32"]].isna().all(axis=None)
    assert quiet.models["parameters"].tolist() == [costs.loc["base", "parameters"]]
    assert "timed" not in quiet.provenance


def test_replicates_of_another_depth_are_refused_before_a_model_is_run(models, monkeypatch):
    monkeypatch.setattr("probes.comparing.measured_on", lambda *_, **__: pytest.fail("something was measured"))
    both = {"base": models["base"], "seeds": [models["base"], models["half"]]}
    with pytest.raises(probes.InputError, match="replicate 1 has layers 0 to 2 and replicate 2 has layers 0 to 1"):
        measure_models(both, pivot="l0", probes=["retrieval"], **PLAIN)
    model, tokenizer = probes.load_checkpoint("bundled")
    monkeypatch.setattr("probes.comparing.capture", lambda *_, **__: pytest.fail("a model was run"))
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(4))
    with pytest.raises(probes.InputError, match="replicate 1 has layers 0 to 6 and replicate 2 has layers 0 to 3"):
        probes.compare({"a": ["bundled", compress.drop_layers(model, [0, 1, 2])]}, corpus, tokenizer=tokenizer)


def test_a_series_goes_on_at_the_checkpoint_at_which_it_was_interrupted(tiny_folder, tmp_path, monkeypatch):
    texts = ["the red cat", "a big dog", "he ran", "she sat on it", "a bird", "the small house", "it sang", "then he"]
    rows = list(enumerate(texts))
    corpus = probes.load_corpus(pd.DataFrame(rows, columns=["id", "text"]).assign(language="en"))
    run = probes.series([(step, tiny_folder) for step in (0, 10, 20)])
    how = {"probes": ["norm"], "draws": 2, "timing": False, "progress": False}
    whole = probes.compare({"run": run}, corpus, **how)
    passes, stops = [], [True]
    forward = torch.nn.Embedding.forward

    def counted(self, ids):
        passes.append(len(list((tmp_path / "states").glob("*.zarr"))))
        if stops and passes[-1] == 2:
            raise KeyboardInterrupt
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        probes.compare({"run": run}, corpus, store=tmp_path / "states", **how)
    first, each = passes.count(0), passes.count(1)
    assert first == each > 0
    assert sorted(p.name for p in (tmp_path / "states").glob("*.zarr")) == ["run%200.zarr", "run%2010.zarr"]
    passes.clear()
    stops.clear()
    again = probes.compare({"run": run}, corpus, store=tmp_path / "states", **how)
    assert len(passes) == each  # of the third alone
    pd.testing.assert_frame_equal(again.table, whole.table)
    # What all steps share is in memory once, and each knows where its states lie; with a store texts lie there too.
    for made, shared in ((whole, ("id", "text")), (again, ("id",))):
        first, *others = made.representations.values()
        assert all(one[c].values is first[c].values for one in others for c in shared)
        assert all(one["text"].values.tolist() == texts for one in (first, *others))
    assert len({one.encoding["source"] for one in (first, *others)}) == 3


def test_all_processes_return_what_one_would(tiny_models, make_tokenizer, tmp_path):
    classes = {"id2label": dict(enumerate("abc"))}
    models = {name: tiny_models("BertForSequenceClassification", **classes) for name in ("base", "other")}
    models["other"].bert.encoder.layer[1].output.dense.weight.data.zero_()
    words = ["the", "red", "dog", "a", "small", "cat", "sat", "on", "big", "mat", "and", "ran"]
    texts = [" ".join(words[i % 5 : i % 5 + 3 + i % 4]) for i in range(30)]
    frame = pd.DataFrame({"id": range(30), "language": "en", "text": texts, "label": ["a", "b", "c"] * 10})
    corpus = probes.load_corpus(frame)

    def compared(place):
        asked = {"probes": ["snr", "drift", "accuracy"], "draws": 5, "timing": False, "progress": False}
        found = probes.compare(
            models, corpus, tokenizer=make_tokenizer(), store=tmp_path / place, patching=True, **asked
        )
        about = {k: v for k, v in found.provenance.items() if k != "models"}
        hidden = found.representations["other"].hidden.values
        return [found.table.to_csv(), found.models.to_csv(), json.dumps(about, default=str), float(hidden.sum())]

    one = faults.run(lambda: compared("one"))
    assert together(lambda rank: compared("two"), 2) == [("done", one)] * 2
    assert "causes" in one[2]
