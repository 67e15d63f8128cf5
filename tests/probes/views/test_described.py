import numpy as np
import pandas as pd
import pytest
from shown import Comm, N, bare, every_answer

import probes
from probes.costs import COLUMNS
from probes.errors import InputError
from probes.results.cells import NO_LAYER
from probes.views.reading import read
from probes.widgets import Explorer


def test_curves_are_the_table(widget, compared):
    about = widget.about
    values = np.frombuffer(widget.curves, "<f4").reshape(len(about["probes"]), 4, len(about["curve_languages"]), 3, 4)
    names = [p["name"] for p in about["probes"]]
    assert names == ["retrieval", "snr", "accuracy"] or set(names) == {"snr", "retrieval", "accuracy"}
    assert {p["name"]: p["by"] for p in about["probes"]} == {"snr": "layer", "retrieval": "layer", "accuracy": "output"}
    assert all(p["better"] == "higher" for p in about["probes"])
    assert about["curve_languages"][0] == "pooled"
    filled = np.zeros(values.shape[:-1], bool)
    marked = compared.table.assign(mark=compared.marks())
    for row in marked[marked["probe"].isin(names)].itertuples():
        at = (
            names.index(row.probe),
            list(compared.provenance["models"]).index(row.model),
            about["curve_languages"].index(row.language),
            0 if row.layer == NO_LAYER else row.layer,
        )
        filled[at] = True
        np.testing.assert_allclose(values[at], np.array([row.value, row.low, row.high, row.mark], float), rtol=1e-6)
    assert np.isnan(values[~filled]).all()
    assert filled.any()
    assert not filled.all()  # the short model has no third layer


def test_codes_and_texts_say_what_the_sentences_are(widget, siblings):
    codes = np.frombuffer(widget.codes, "<i2").reshape(2 + 4, -1)
    about, reps = widget.about, siblings["base"]
    assert [about["languages"][c] for c in codes[0]] == reps["language"].values.tolist()
    assert [about["labels"][c] for c in codes[1]] == reps["label"].values.tolist()
    for i, model in enumerate(siblings.values()):
        predicted = model["class"].values[model["logits"].values.argmax(axis=1)]
        assert [about["classes"][c] for c in codes[2 + i]] == predicted.tolist()
    assert widget.texts["text"] == reps["text"].values.tolist()
    assert widget.texts["pair"] is None
    assert [m["layers"] for m in about["models"]] == [3, 3, 2, 3]
    assert about["colours"] == ["label", "language", "prediction", "drift", "representer"]
    assert about["missing"] == {}
    assert about["baseline"] == 0
    assert about["pivot"] == "en"


def test_one_model_one_language_no_labels_no_texts(tmp_path):
    widget = Explorer(bare(30))
    missing = widget.about["missing"]
    assert set(missing) == {"curves", "alignment", "drift", "representers", "label", "predictions", "translations"}
    assert "one model only" in missing["drift"]
    assert "one language only" in missing["alignment"]
    assert "probes.compare" in missing["curves"]
    assert widget.about["colours"] == ["language"]
    assert widget.about["least_p"] is None
    assert any("no texts" in note for note in widget.about["notes"])
    found = every_answer(widget)
    assert found["map"][0][0]["give"] == "map"
    assert found["sentence"][0][0]["representers"] is None
    assert found["sentence"][0][0]["why"] == missing["representers"]
    widget.save(tmp_path / "v.html")


def test_sixty_classes_no_pivot_empty_texts():
    n = 360
    rng = np.random.default_rng(0)
    reps = probes.from_arrays(rng.normal(size=(2, n, 5)), label=np.arange(n) % 60, text=["", " "] * (n // 2))
    widget = probes.compare({"a": reps, "b": reps + 0.0}, probes=["snr"], draws=5).explore()
    assert widget.about["labels"] == [str(i) for i in range(60)]
    assert widget.about["pivot"] is None
    assert widget.about["least_p"] == (1 / 6, "< 0.2")  # of five draws
    assert np.frombuffer(widget.codes, "<i2").reshape(-1, n)[1].tolist() == [i % 60 for i in range(n)]
    assert widget.about["missing"].keys() == {"alignment", "representers", "predictions", "translations"}
    every_answer(widget)


def test_a_comparison_that_was_opened_says_what_to_do(compared, tmp_path):
    opened = probes.Comparison.open(compared.save(tmp_path / "c"))
    widget = opened.explore()
    about = widget.about
    assert np.array_equal(np.frombuffer(widget.curves, "<f4"), Explorer(compared).curve_values.ravel(), equal_nan=True)
    assert (about["n"], about["total"], widget.codes, about["measures"]) == (0, 0, b"", ["cka"])
    assert {"maps", "sentences", "alignment", "drift", "umap", "representers"} == set(about["missing"])
    assert "probes.open_representations(path)" in about["missing"]["maps"]
    comm = Comm(widget)
    assert comm.ask(ask="map", model=0, kind="pca")[0]["give"] == "missing"
    found = np.frombuffer(comm.ask(ask="similarity", one=1, other=0, measure="cka")[1][0], "<f4")
    wanted = probes.similarity(compared.representations["near"], compared.representations["base"], draws=2).value.sel(
        language="pooled"
    )
    np.testing.assert_allclose(found, wanted.values.ravel(), atol=1e-6)
    assert "was not measured" in comm.ask(ask="similarity", one=1, other=2, measure="cka")[0]["why"]
    widget.save(tmp_path / "v.html")
    opened.representations = compared.representations
    assert opened.explore().about["n"] == 3 * N


def test_layers_that_are_not_counted_from_zero_are_named(siblings):
    some = {name: siblings[name].sel(layer=[0, 2]) for name in ("base", "near")}
    comparison = probes.compare(some, probes=["snr"], draws=5)
    widget = comparison.explore()
    assert widget.about["models"][0] == {"name": "base", "layers": 2, "note": "layers 0, 2"}
    assert any("layers 0, 2" in note for note in widget.about["notes"])
    row = comparison.table.query("model == 'near' and layer == 2 and language == 'pooled'").iloc[0]
    assert widget.curve_values[0, 1, 0, 1, 0] == np.float32(row["value"])


def test_a_comparison_that_has_only_maps_of_layers_has_no_curves(siblings, tmp_path):
    comparison = probes.compare({"base": siblings["base"]}, probes=["cka"], draws=5)
    widget = comparison.explore()
    assert "all are maps of more than layers" in widget.about["missing"]["curves"]
    assert (widget.about["probes"], widget.probe, widget.language, widget.measure) == ([], "", "", "cka")
    every_answer(widget)
    widget.save(tmp_path / "v.html")
    assert comparison.explore().probe == ""


def test_the_head_is_the_verdict(widget, compared):
    found = compared.verdict()
    said = widget.about["verdict"]
    assert {one["model"] for one in said} == set(found.models["model"])
    assert all(one["state"] == found.state(one["model"]) for one in said)
    assert all(one["sentences"] for one in said)
    assert Explorer(bare(30)).about["verdict"] == []  # one model is not judged


def test_the_head_says_what_models_cost_and_what_a_corpus_cannot_show(compared, monkeypatch):
    monkeypatch.setattr("probes.results.verdict.CEILING", 0.0)
    costs = pd.DataFrame({"model": ["base", "near"]}).reindex(columns=["model", *COLUMNS])
    costs[["stored_bytes", "stored_as"]] = [[4e6, "as it is"], [1e6, "packed"]]
    costs[["parameters", "embeddings"]] = [[1e6, 2e5], [1e6, 2e5]]
    costs[["speed_32", "speed_32_low", "speed_32_high"]] = [[1.0] * 3, [2.0, 1.9, 2.1]]
    priced = probes.Comparison(
        compared.table, compared.provenance, compared.draws, compared.representations, models=costs
    )
    about = Explorer(priced).about
    sizes = {one["model"]: one["size"] for one in about["verdict"]}
    assert sizes["near"] == ["1.0 MB (25 %), packed", "2x faster"]
    _, notes = read(priced.verdict(), priced)
    assert notes
    assert all(any(note[1:] in said for said in about["notes"]) for note in notes)


def test_languages_have_names_scripts_and_an_order(siblings):
    widget = Explorer({"base": siblings["base"], "near": siblings["near"]})
    about = widget.about
    assert about["names"] == ["English", "Arabic", "French"]
    assert about["scripts"] == ["Latin", "Arabic", "Latin"]
    assert about["orders"] == ["corpus", "script", "loss"]
    assert widget.order == "corpus"
    widget.order = "loss"
    with pytest.raises(InputError, match=r"order: 'size' is not known; there are 'corpus', 'script', 'loss'"):
        widget.order = "size"
    many = [*"abcdefghij", "ru", "de"]  # more than ten: those of a script are looked for together
    reps = bare(24, language=np.tile(many, 2), id=np.arange(24))
    assert Explorer({"a": reps, "b": reps}).order == "script"
    one = bare(24, language=np.tile(["x", "y"], 12), id=np.arange(24))
    assert Explorer(one).about["orders"] == ["corpus"]  # no known script, nothing to lose beside


def test_names_of_the_curves_are_those_of_their_languages(widget):
    assert widget.about["curve_languages"] == ["pooled", "en", "ar", "fr"]
    assert widget.about["curve_names"] == ["all together", "English", "Arabic", "French"]
    assert widget.about["curve_scripts"] == ["", "Latin", "Arabic", "Latin"]


def test_embeddings_are_said_only_of_embeddings():
    assert Explorer(bare(9)).about["first"] == ""  # arrays may be anything
    captured = bare(9).assign_attrs(pooling="mean")
    assert Explorer(captured).about["first"] == "embeddings"
    assert Explorer(captured.isel(layer=[1])).about["first"] == ""  # what is counted 0 is its layer 1
    parts = captured.assign_coords(module=("layer", ["encoder.0", "encoder.1"]))
    assert Explorer(parts).about["first"] == ""
    assert Explorer({"a": captured, "b": bare(9)}).about["first"] == ""  # not of both
