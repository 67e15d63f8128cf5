import json

import datasets
import numpy as np
import pandas as pd
import pytest
from planted import planted

import compress
import probes
from probes.comparison import COLUMNS, PROBES


@pytest.fixture(scope="module")
def models():
    rng = np.random.default_rng(0)
    base = planted(rng, ids=60, layers=3)
    worse = base.assign(hidden=base.hidden + rng.normal(size=base.hidden.shape))
    return {"base": base, "worse": worse, "half": base.isel(layer=slice(0, 2))}


@pytest.fixture(scope="module")
def comparison(models):
    return probes.compare(models, pivot="l0")


@pytest.fixture(scope="module")
def bundled():
    return probes.load_corpus("bundled", split="dev", languages=["en", "fr", "ar"])


def test_table_has_one_row_a_model_probe_language_and_layer(comparison):
    table = comparison.to_dataframe()
    assert list(table) == COLUMNS
    assert not table.duplicated(["model", "layer", "language", "probe"]).any()
    rows = table.groupby(["model", "probe"]).size()
    # Three languages with `pooled` for probes of labels; the pivot has no alignment to itself.
    assert rows["base"].to_dict() == {p: 9 if p in PROBES[:3] else 6 for p in PROBES}
    assert rows["half"].sum() == rows["base"].sum() * 2 / 3


def test_values_are_those_of_each_probe_alone(comparison, models):
    table = comparison.to_dataframe()
    for name, reps in models.items():
        for probe in PROBES:
            options = {} if probe in PROBES[:3] else {"pivot": "l0"}
            alone = getattr(probes, probe)(reps, **options)
            rows = table[(table["model"] == name) & (table["probe"] == probe)]
            for row in rows.itertuples():
                at = alone.sel(layer=row.layer, language=row.language)
                assert (row.value, row.low, row.high, row.n) == (at.value, at.low, at.high, at.n)


def test_differences_are_those_to_the_baseline(comparison, models):
    table = comparison.to_dataframe().set_index(["model", "probe", "language", "layer"])
    base, worse = table.loc["base"], table.loc["worse"]
    assert base[COLUMNS[8:]].isna().all(axis=None)
    pd.testing.assert_series_equal(worse["difference"], worse["value"] - base["value"], check_names=False)
    alone = probes.difference(probes.snr(models["worse"]), probes.snr(models["base"]))
    at = alone.sel(layer=1, language="l1")
    row = worse.loc[("snr", "l1", 1)]
    assert (row.difference_low, row.difference_high, row.p_adjusted) == (at.low, at.high, at.p_adjusted)
    assert (worse["difference_low"] <= worse["difference"]).all()
    assert (worse["difference"] <= worse["difference_high"]).all()


def test_another_baseline_turns_the_sign(models):
    pair = {k: models[k] for k in ("base", "worse")}
    a = probes.compare(pair, probes=["snr"]).to_dataframe().set_index(["model", "language", "layer"])["difference"]
    b = probes.compare(pair, probes=["snr"], baseline="worse").to_dataframe()
    b = b.set_index(["model", "language", "layer"])["difference"]
    np.testing.assert_allclose(a["worse"], -b["base"])


def test_summary_names_the_best_layer_and_the_worst_language(comparison):
    summary = comparison.summary().set_index(["probe", "model"])
    table = comparison.to_dataframe()
    for probe in PROBES:
        base = table.query("probe == @probe and model == 'base' and language == 'pooled'").set_index("layer")["value"]
        best = base.idxmin() if probe == "variability" else base.idxmax()
        assert summary.loc[(probe, "base"), "layer"] == best
        here = table.query("probe == @probe and model == 'worse' and language != 'pooled' and layer == @best")
        here = here.set_index("language")["difference"]
        worst = here.idxmax() if probe == "variability" else here.idxmin()
        assert summary.loc[(probe, "worse"), "worst_language"] == worst
        assert summary.loc[(probe, "worse"), "its_difference"] == here[worst]


def test_summary_keeps_a_model_without_the_best_layer_and_names_no_language_where_none_lost(models):
    pair = {"base": models["base"], "half": models["half"].isel(layer=[0])}
    summary = probes.compare(pair, probes=["snr"]).summary().set_index("model")
    assert list(summary.index) == ["base", "half"]
    if summary.loc["base", "layer"] > 0:
        assert np.isnan(summary.loc["half", "value"])
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
    assert sorted(f.name for f in folder.iterdir()) == ["comparison.csv", "provenance.json"]


def test_opening_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(probes.InputError, match=r"expected comparison\.csv and provenance\.json"):
        probes.Comparison.open(tmp_path)


@pytest.mark.filterwarnings("ignore:.*more than half of the distance")
def test_the_notebook_example_runs(tmp_path, bundled):
    model, tokenizer = probes.load_checkpoint("bundled")
    pruned = compress.prune(model, sparsity=0.6)
    comparison = probes.compare(
        {"base": model, "pruned": pruned}, bundled, tokenizer=tokenizer, pivot="en", draws=50, progress=False
    )
    table = comparison.to_dataframe()
    assert set(table["model"]) == {"base", "pruned"}
    assert set(table["language"]) == {"en", "fr", "ar", "pooled"}
    # Pruning leaves the embeddings alone, and nothing else. (Retrieval can stay by chance: it counts.)
    lost = table.query("model == 'pruned' and language == 'pooled' and probe != 'retrieval'")
    lost = lost[lost["probe"] != "margin_retrieval"].set_index(["probe", "layer"])["difference"]
    assert (lost.xs(0, level="layer") == 0).all()
    assert (lost.drop(0, level="layer") != 0).all()
    assert comparison.report(tmp_path / "report.html").stat().st_size > 10_000


def test_checkpoints_by_name_give_the_same_as_models(bundled, tmp_path):
    model, tokenizer = probes.load_checkpoint("bundled")
    options = {"pivot": "en", "probes": ["retrieval", "snr"], "progress": False}
    by_name = probes.compare({"a": "bundled"}, bundled, store=tmp_path, **options)
    by_model = probes.compare({"a": model}, bundled, tokenizer={"a": tokenizer}, **options)
    pd.testing.assert_frame_equal(by_name.table, by_model.table)
    assert [f.name for f in tmp_path.iterdir()] == ["a.zarr"]


def test_states_on_disk_are_not_captured_again(bundled, tmp_path, monkeypatch):
    options = {"pivot": "en", "probes": ["retrieval"], "progress": False, "store": tmp_path}
    first = probes.compare({"a/b": "bundled"}, bundled, **options)
    monkeypatch.setattr("transformers.BertModel.forward", None)
    pd.testing.assert_frame_equal(probes.compare({"a/b": "bundled"}, bundled, **options).table, first.table)


def test_without_labels_their_probes_are_left_out_and_the_run_says_so(models):
    bare = {k: models[k].drop_vars("label") for k in ("base", "worse")}
    with pytest.warns(probes.LayerscopeWarning, match="no labels: class_separability, variability, snr left out"):
        comparison = probes.compare(bare, pivot="l0")
    assert set(comparison.table["probe"]) == set(PROBES[3:])
    with pytest.raises(probes.InputError, match="snr cannot be measured without labels"):
        probes.compare(bare, pivot="l0", probes=["snr"])


def test_without_pivot_alignment_is_left_out_and_the_run_says_so(models):
    with pytest.warns(probes.LayerscopeWarning, match="no pivot: retrieval, margin_retrieval, alignment_gap left out"):
        comparison = probes.compare({"base": models["base"]})
    assert set(comparison.table["probe"]) == set(PROBES[:3])
    with pytest.raises(probes.InputError, match="retrieval cannot be measured without pivot"):
        probes.compare({"base": models["base"]}, probes=["retrieval"])


def corpus(**columns):
    frame = {"id": [*"abcdefgh"] * 2, "language": ["en"] * 8 + ["fr"] * 8, "text": [f"t{i}" for i in range(16)]}
    return datasets.Dataset.from_dict(frame | {"label": [*"xxxxyyyy"] * 2} | columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {}}, "expected at least one model"),
        ({"baseline": "none"}, "baseline 'none': no such model; there are 'a'"),
        ({"probes": ["r2"]}, "unknown probe 'r2'; there are class_separability"),
        ({"pivot": "xx"}, "pivot 'xx': no such language in the corpus; there are 'en', 'fr'"),
        ({"models": {"a": 3}}, "model 'a': expected a torch model"),
        ({"models": {"a": "./nowhere"}}, "no such folder"),
        ({"corpus": None}, "model 'a' is still to be run: expected a corpus"),
        ({"corpus": "text.csv"}, "expected a datasets.Dataset, found str"),
        ({"corpus": corpus(label=["x"] * 16)}, "language 'en' has only one class, 'x'"),
        ({"corpus": corpus(label=[*"xxxxxxxy"] * 2)}, "class 'y' has a single example in language 'en'"),
        ({"corpus": corpus(id=[str(i) for i in range(16)])}, "language 'fr' shares no ids with the pivot 'en'"),
        ({"corpus": corpus(text=["t"] * 15 + [""])}, "text is empty in row 15"),
        ({"corpus": corpus(id=["a"] * 16)}, "id 'a' occurs more than once in language 'en'"),
    ],
)
def test_bad_input_is_refused_before_a_model_is_run(options, message, monkeypatch):
    monkeypatch.setattr("probes.comparison.load_checkpoint", lambda *_, **__: pytest.fail("a model was loaded"))
    options = {"models": {"a": "bundled"}, "corpus": corpus(), "pivot": "en"} | options
    with pytest.raises(probes.InputError, match=message):
        probes.compare(options.pop("models"), options.pop("corpus"), **options)


def test_a_model_without_a_tokenizer_is_refused(bundled):
    model, tokenizer = probes.load_checkpoint("bundled")
    for given in (None, {"other": tokenizer}):
        with pytest.raises(probes.InputError, match="model 'a' comes without a tokenizer"):
            probes.compare({"a": model}, bundled, tokenizer=given, pivot="en")


def test_representations_of_other_examples_are_refused(models):
    shuffled = models["base"].isel(example=slice(None, None, -1))
    with pytest.raises(probes.InputError, match="model 'b': its Representations hold other examples"):
        probes.compare({"a": models["base"], "b": shuffled}, pivot="l0")


def test_nan_in_a_layer_does_not_end_the_run(models):
    hidden = models["worse"].hidden.values.copy()
    hidden[1, :60] = np.inf
    broken = models["worse"].assign(hidden=(models["worse"].hidden.dims, hidden))
    with pytest.warns(probes.LayerscopeWarning, match="model worse has no value at layer 1: 60 rows are not finite"):
        comparison = probes.compare({"base": models["base"], "worse": broken}, pivot="l0")
    row = comparison.table.query("model == 'worse' and layer == 1 and language == 'pooled' and probe == 'snr'").iloc[0]
    assert row[["value", "low", "high", "difference", "p_adjusted"]].isna().all()
    assert len(comparison.summary()) == 12


def test_figures_and_their_errors(comparison):
    assert len(comparison.plot().axes) == 6
    assert comparison.plot("snr").axes[0].get_title().startswith("signal-to-noise")
    assert len(comparison.plot_damage("retrieval").axes) == 3  # two models and the colour bar
    with pytest.raises(probes.InputError, match="probe 'r2' was not measured"):
        comparison.plot("r2")
    with pytest.raises(probes.InputError, match=r"no values for language 'xx'; there are 'l0', 'l1', 'pooled'"):
        comparison.plot("snr", language="xx")


def test_curves_show_the_numbers_of_the_table(comparison):
    axis = comparison.plot("snr").axes[0]
    drawn = {tuple(np.round(line.get_ydata(), 9)) for line in axis.lines if len(line.get_ydata())}
    table = comparison.to_dataframe().query("probe == 'snr' and language == 'pooled'")
    assert {tuple(np.round(rows["value"], 9)) for _, rows in table.groupby("model")} <= drawn


def test_damage_needs_two_models(models):
    alone = probes.compare({"base": models["base"]}, probes=["snr"])
    with pytest.raises(probes.InputError, match="only one model was measured"):
        alone.plot_damage("snr")
