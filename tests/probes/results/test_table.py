"""The table as data: summary, saved and opened to the last digit."""

import json

import numpy as np
import pandas as pd
import pytest

import probes
from probes.measures.catalogue import families
from probes.results.cells import NO_LAYER

FAMILIES = families()
SIX = [*FAMILIES["labels"], *FAMILIES["alignment"]]


def test_summary_names_the_best_layer_and_the_worst_language(comparison):
    summary = comparison.summary().set_index(["probe", "model"])
    table = comparison.to_dataframe()
    marks = comparison.adjusted(["layer", "language"]).set_index(["model", "probe", "language", "layer"])["p_adjusted"]
    for probe in SIX:
        base = table.query("probe == @probe and model == 'base' and language == 'pooled'").set_index("layer")["value"]
        best = base.idxmin() if probe == "variability" else base.idxmax()
        assert summary.loc[(probe, "base"), "layer"] == best
        here = table.query("probe == @probe and model == 'worse' and language != 'pooled' and layer == @best")
        here = here.set_index("language")["difference"]
        worst = here.idxmax() if probe == "variability" else here.idxmin()
        assert summary.loc[(probe, "worse"), "worst_language"] == worst
        assert summary.loc[(probe, "worse"), "its_difference"] == here[worst]
        # Chosen out of all languages, at a layer chosen out of all.
        assert summary.loc[(probe, "worse"), "its_p"] == marks[("worse", probe, worst, best)]


def test_summary_gives_a_shallow_model_at_the_layer_that_stands_beside_the_best_one():
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(4), 15)
    apart = lambda scale: rng.normal(size=(60, 8)) + scale * np.eye(8)[label]  # noqa: E731
    deep = probes.from_arrays(np.stack([apart(k) for k in (0, 1, 2, 3, 4)]), label=label)
    shallow = probes.from_arrays(np.stack([apart(k) for k in (0, 1, 3)]), label=label)
    comparison = probes.compare({"base": deep, "half": shallow}, probes=["snr"])
    summary = comparison.summary().set_index("model")
    assert summary["layer"].tolist() == [4, 2]
    assert summary["baseline_layer"].tolist() == [4, 4]
    table = comparison.table.query("language == 'pooled'").set_index(["model", "layer"])
    assert table.loc["half", "baseline_layer"].tolist() == [0, 2, 4]
    gap = table.loc[("half", 2), "value"] - table.loc[("base", 4), "value"]
    assert summary.loc["half", "difference"] == pytest.approx(gap, abs=1e-12)
    assert comparison.table["baseline_layer"].dtype == "int64"


def test_summary_names_no_language_where_none_lost(models):
    same = probes.compare({"a": models["base"], "b": models["base"]}, probes=["snr"]).summary().set_index("model")
    assert same.loc["b", "worst_language"] == ""


def test_saves_and_opens_to_the_last_digit_and_refuses_to_overwrite(comparison, tmp_path):
    folder = comparison.save(tmp_path / "run")
    opened = probes.Comparison.open(folder)
    pd.testing.assert_frame_equal(opened.table, comparison.table, check_dtype=False)
    assert opened.provenance == json.loads(json.dumps(comparison.provenance))
    with pytest.raises(probes.InputError, match="already holds a run"):
        comparison.save(folder)
    comparison.save(folder, overwrite=True)
    assert sorted(f.name for f in folder.iterdir()) == ["comparison.csv", "draws.npy", "models.csv", "provenance.json"]


def test_what_models_cost_is_saved_and_opened_to_the_last_digit(models, tmp_path):
    made = probes.compare({"=a": models["base"], "b": models["half"]}, probes=["snr"])
    assert made.models["model"].tolist() == ["=a", "b"]
    assert made.models.drop(columns=["model", "stored_as"]).isna().all(axis=None)
    made.models.loc[0, ["bytes", "seconds_1"]] = 1e6 / 3, 0.1
    made.models.loc[1, "stored_as"] = "packed"
    opened = probes.Comparison.open(made.save(tmp_path / "run"))
    pd.testing.assert_frame_equal(opened.models, made.models)
    assert (tmp_path / "run" / "models.csv").read_text().splitlines()[1].startswith("'=a,")


def test_opening_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(probes.InputError, match=r"expected comparison\.csv and provenance\.json"):
        probes.Comparison.open(tmp_path)


def test_the_summary_of_comparisons_is_at_the_layer_that_moved_most(with_heads):
    comparison = probes.compare(with_heads, probes=["drift", "cka", "loyalty"], draws=20)
    summary = comparison.summary().set_index("probe")
    table = comparison.table.query("language == 'pooled' and model == 'worse'")
    error = table[table["probe"] == "signal_to_error"].set_index("layer")["value"]
    assert summary.loc["signal_to_error", "layer"] == error.idxmin()
    same = table[(table["probe"] == "cka") & (table["layer"] == table["other_layer"])].set_index("layer")["value"]
    assert summary.loc["cka", "layer"] == same.idxmin()
    assert summary.loc["label_loyalty", "layer"] == NO_LAYER
    assert summary.loc["label_loyalty", "worst_language"] in ("l0", "l1")


def test_nothing_is_lost_where_nothing_has_changed(with_heads):
    same = {"base": with_heads["base"], "copy": with_heads["base"].copy()}
    summary = probes.compare(same, probes=["drift", "loyalty", "cka", "procrustes"], draws=10).summary()
    assert set(summary["worst_language"]) == {""}
    assert summary["its_difference"].isna().all()


def test_a_model_without_values_at_the_end_is_farthest_there_and_all_its_gaps_are_said(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 40, 8))
    broken = x + 0.1
    broken[[1, 4, 5]] = np.nan
    gap = x + 0.1
    gap[1] = np.nan
    models = {"base": x, "broken": broken, "gap": gap, "gone": np.full_like(x, np.nan)}
    with pytest.warns(probes.LayerscopeWarning):
        comparison = probes.compare({k: probes.from_arrays(v) for k, v in models.items()}, probes=["drift", "norm"])
    for probe, rows in comparison.summary().groupby("probe"):
        by_model = rows.set_index("model")
        assert by_model["no_value"].to_dict() == {"broken": "1, 4 to 5", "gap": "1", "gone": "0 to 5"}, probe
        assert by_model.loc[["broken", "gone"], "layer"].tolist() == [4, 0]
        assert by_model.loc[["broken", "gone"], "value"].isna().all()
        assert not np.isnan(by_model.loc["gap", "value"])
    assert "no value at layers" in comparison.report(tmp_path / "r.html").read_text()


def test_names_that_a_spreadsheet_would_run_are_read_as_they_were(models, tmp_path):
    named = {"=1+1": models["base"], "a\rb": models["half"]}
    comparison = probes.compare(named, probes=["snr"])
    opened = probes.Comparison.open(comparison.save(tmp_path / "c"))
    assert opened.baseline == "=1+1"
    for column in comparison.table:
        assert opened.table[column].dropna().tolist() == comparison.table[column].dropna().tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": 3}, r"provenance\.json\['baseline'\]: expected a text, found 3"),
        ({"probes": {"snr": {}}}, r"provenance\.json\['probes'\]\['snr'\]: expected the key"),
        ({"models": []}, r"provenance\.json\['models'\]: expected an object, found \[\]"),
    ],
)
def test_a_provenance_of_another_form_is_refused(models, tmp_path, change, message):
    folder = probes.compare({"base": models["base"]}, probes=["snr"]).save(tmp_path / "c")
    path = folder / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        probes.Comparison.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "gone"}, r"c: provenance\.json does not know the model 'gone': it is that of another comparison"),
        ({"models": {}}, r"c: provenance\.json does not know the model 'base'"),
        ({"probes": {}}, r"c: provenance\.json does not know the probe 'snr'"),
    ],
)
def test_a_provenance_of_another_comparison_is_refused(models, tmp_path, change, message):
    folder = probes.compare({"base": models["base"]}, probes=["snr"]).save(tmp_path / "c")
    path = folder / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(probes.InputError, match=message):
        probes.Comparison.open(folder)


@pytest.mark.parametrize("name", ["", " ", "a\0b", "half \ud83d", 3])
def test_models_are_called_by_a_text(models, name):
    with pytest.raises(ValueError, match=r"a model is called .* expected a text of at least one letter"):
        probes.compare({name: models["base"]}, probes=["snr"])
