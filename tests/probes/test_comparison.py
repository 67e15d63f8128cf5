import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from planted import parallel_corpus

import compress
import probes
from probes.measures.catalogue import by_name, families
from probes.results.table import COLUMNS, FURTHER

FAMILIES = families()
SIX = [*FAMILIES["labels"], *FAMILIES["alignment"]]


def test_table_has_one_row_a_model_probe_language_and_layer(comparison):
    table = comparison.to_dataframe()
    assert list(table) == [*COLUMNS[:2], "baseline_layer", *COLUMNS[2:]]  # as one of them is not as deep
    assert not table.duplicated(["model", "layer", "language", "probe"]).any()
    rows = table.groupby(["model", "probe"]).size()
    # Three languages with `pooled` for probes of labels; the pivot has no alignment to itself.
    assert rows["base"].to_dict() == {p: 9 if p in SIX[:3] else 6 for p in SIX}
    assert rows["half"].sum() == rows["base"].sum() * 2 / 3


def test_values_are_those_of_each_probe_alone(comparison, models):
    table = comparison.to_dataframe()
    for name, reps in models.items():
        for probe in SIX:
            options = {} if probe in SIX[:3] else {"pivot": "l0"}
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
    lost = lost[lost["probe"].isin([*SIX[:3], "alignment_gap"])].set_index(["probe", "layer"])["difference"]
    assert (lost.xs(0, level="layer") == 0).all()
    assert (lost.drop(0, level="layer") != 0).all()
    # Both have heads, so what they predict is compared too.
    assert {"accuracy", "label_loyalty", "cka", "signal_to_error"} < set(table["probe"])
    assert comparison.report(tmp_path / "report.html").stat().st_size > 10_000


def test_checkpoints_by_name_give_the_same_as_models(bundled, tmp_path):
    model, tokenizer = probes.load_checkpoint("bundled")
    options = {"pivot": "en", "probes": ["retrieval", "snr"], "progress": False}
    by_name = probes.compare({"a": "bundled"}, bundled, store=tmp_path, **options)
    by_model = probes.compare({"a": model}, bundled, tokenizer={"a": tokenizer}, **options)
    pd.testing.assert_frame_equal(by_name.table, by_model.table)
    assert [f.name for f in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("name", ["a/b", "模" * 90])
def test_states_on_disk_are_not_captured_again(bundled, tmp_path, monkeypatch, name):
    options = {"pivot": "en", "probes": ["retrieval"], "progress": False, "store": tmp_path}
    first = probes.compare({name: "bundled"}, bundled, **options)
    monkeypatch.setattr("transformers.BertModel.forward", None)
    again = probes.compare({name: "bundled"}, bundled, **options, timing=False)
    pd.testing.assert_frame_equal(again.table, first.table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": {}}, "expected at least one model"),
        ({"baseline": "none"}, "baseline 'none': no such model; there are 'a'"),
        ({"probes": ["r2"]}, "unknown probe 'r2'; there are labels, alignment, drift"),
        ({"pivot": "xx"}, "pivot 'xx': no such language in the corpus; there are 'en', 'fr'"),
        ({"models": {"a": 3}}, "model 'a': expected a torch model"),
        ({"models": {"a": "./nowhere"}}, "no such folder"),
        ({"corpus": None}, "model 'a' is still to be run: expected a corpus"),
        ({"corpus": "text.csv"}, "expected a datasets.Dataset, found str"),
        ({"corpus": parallel_corpus(label=["x"] * 16)}, "language 'en' has only one class, 'x'"),
        (
            {"corpus": parallel_corpus(id=[str(i) for i in range(16)])},
            "language 'fr' shares no ids with the pivot 'en'",
        ),
        ({"corpus": parallel_corpus(text=["t"] * 15 + [""])}, "text is empty in row 15"),
        ({"corpus": parallel_corpus(id=["a"] * 16)}, "id 'a' occurs more than once in language 'en'"),
    ],
)
def test_bad_input_is_refused_before_a_model_is_run(options, message, monkeypatch):
    monkeypatch.setattr("probes.comparing.load_checkpoint", lambda *_, **__: pytest.fail("a model was loaded"))
    options = {"models": {"a": "bundled"}, "corpus": parallel_corpus(), "pivot": "en"} | options
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
        comparison = probes.compare({"base": models["base"], "worse": broken}, pivot="l0", probes=SIX)
    row = comparison.table.query("model == 'worse' and layer == 1 and language == 'pooled' and probe == 'snr'").iloc[0]
    assert row[["value", "low", "high", "difference", "p_adjusted"]].isna().all()
    assert len(comparison.summary()) == 12


def test_comparisons_with_the_baseline_have_rows_of_the_others_and_no_difference(with_heads):
    table = probes.compare(with_heads, probes=["drift", "loyalty"], draws=20).table
    assert set(table["model"]) == {"worse"}
    assert table["difference"].isna().all()
    alone = probes.drift(with_heads["base"], with_heads["worse"], draws=20)
    for row in table[table["probe"].isin(FAMILIES["drift"])].itertuples():
        at = alone.sel(measure=row.probe, layer=row.layer, language=row.language)
        assert (row.value, row.low, row.high, row.n) == (at.value, at.low, at.high, at.n)


def test_another_baseline_is_compared_with_though_it_comes_last(with_heads):
    table = probes.compare(with_heads, probes=["drift"], baseline="worse", draws=20).table
    assert set(table["model"]) == {"base"}
    alone = probes.drift(with_heads["worse"], with_heads["base"], draws=20)
    first = table.iloc[0]
    assert first["value"] == alone.value.sel(measure=first["probe"], layer=first["layer"], language=first["language"])


def test_what_has_no_layer_has_none_in_the_table_and_a_difference(with_heads):
    table = probes.compare(with_heads, probes=["accuracy"], draws=20).table
    assert (table["layer"] == -1).all()
    worse = table[table["model"] == "worse"].set_index("language")
    assert worse.loc["pooled", "difference"] < 0
    assert worse.loc["pooled", "p_adjusted"] < 0.1
    assert not set(FURTHER) & set(table)


def test_similarity_has_a_row_for_every_pair_of_layers(models):
    table = probes.compare(models, probes=["cka"], draws=20).table
    assert list(table)[:5] == ["model", "layer", "baseline_layer", "language", "probe"]
    half = table[(table["model"] == "half") & (table["language"] == "l0")]
    # Its own layers by those of the baseline.
    assert sorted(zip(half["layer"], half["other_layer"], strict=True)) == [(i, j) for i in range(2) for j in range(3)]
    alone = probes.similarity(models["half"], models["base"], draws=20)
    for row in half.itertuples():
        assert row.value == alone.value.sel(layer=row.layer, other_layer=row.other_layer, language="l0")
    base = table[(table["model"] == "base") & (table["layer"] == table["other_layer"])]
    np.testing.assert_allclose(base["value"], 1)


@pytest.mark.filterwarnings("ignore:.*more than half of the distance")
def test_every_probe_can_be_asked_for_and_drawn_and_reported(with_heads, tmp_path, few_fits):
    split = np.where(np.arange(120) % 60 < 40, "train", "test")
    models = {k: r.assign_coords(split=("example", split)) for k, r in with_heads.items()}
    # Of models that are run, of other heads, or of tokens.
    others = ["module_error", "next_token", "lens", "tuned_lens", "number_quality", "number_loyalty", "words"]
    others += [name for name in FAMILIES if name.startswith("spectrum_")]
    asked = [p for p in by_name() if p not in [name for family in others for name in FAMILIES[family]]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "sparse_probe_overlap", probes.LayerscopeWarning)  # few fits choose none
        comparison = probes.compare(models, pivot="l0", probes=asked, draws=10, progress=False)
    assert set(comparison.table["probe"]) == set(asked)
    assert set(comparison.provenance["probes"]) == set(asked)
    keys = ["model", "layer", "language", "probe", "other_layer", "other_language"]
    assert not comparison.table.duplicated(keys).any()
    for probe in asked:
        assert comparison.plot(probe).axes
        about = comparison.provenance["probes"][probe]
        if about["better"] and not about["compares"]:
            assert comparison.plot_change(probe).axes
    assert {"cka", "procrustes", "rsa"} < set(comparison.summary()["probe"])
    assert not {"norm", "best_layer", "representer_support"} & set(comparison.summary()["probe"])
    page = comparison.report(tmp_path / "report.html").read_text()
    for text in ("CKA", "other_layer", "Procrustes"):
        assert text in page
    opened = probes.Comparison.open(comparison.save(tmp_path / "run"))
    pd.testing.assert_frame_equal(opened.table, comparison.table, check_dtype=False)
    assert opened.table["layer"].dtype == comparison.table["layer"].dtype == "int64"


def test_errors_of_modules_are_in_the_table_with_their_layer(bundled, tmp_path):
    model, tokenizer = probes.load_checkpoint("bundled")
    compress.prune(model, sparsity=0.6).save_pretrained(tmp_path / "pruned")
    tokenizer.save_pretrained(tmp_path / "pruned")
    few = bundled.select(range(0, len(bundled), 6))
    comparison = probes.compare(
        {"base": "bundled", "pruned": tmp_path / "pruned"}, few, probes=["module_error"], draws=20, progress=False
    )
    table = comparison.table
    assert set(table["model"]) == {"pruned"}
    assert {"block", "attention.self", "attention.self.query"} < set(table["module"])
    assert sorted(table["layer"].unique()) == [1, 2, 3, 4, 5, 6]
    block = table.query("module == 'block' and language == 'pooled' and probe == 'accumulated_error'")
    assert block.sort_values("layer")["value"].is_monotonic_increasing
    assert comparison.plot("accumulated_error").axes
    with pytest.raises(
        probes.InputError,
        match="accumulated_error, local_error, amplification cannot be measured without models to run",
    ):
        probes.compare(comparison.representations, probes=["module_error"])


def test_a_run_checks_its_corpus_once_and_draws_once(tiny_models, make_tokenizer, monkeypatch):
    calls = {"probes.corpus._checked": 0, "probes.results.draws.balanced_weights": 0}
    for name in calls:
        counted(name, calls, monkeypatch)
    pair = {name: tiny_models("BertModel") for name in ("a", "b")}
    few = parallel_corpus(text=["the red cat"] * 8 + ["a big dog"] * 8)
    asked = [*SIX, "module_error", "cka", "drift", "best_layer"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", probes.LayerscopeWarning)
        probes.compare(pair, few, tokenizer=make_tokenizer(), pivot="en", probes=asked, draws=4, progress=False)
    assert set(calls.values()) == {1}


def counted(name, calls, monkeypatch):
    module, _, attribute = name.rpartition(".")
    function = getattr(sys.modules[module], attribute)

    def count(*args):
        calls[name] += 1
        return function(*args)

    monkeypatch.setattr(name, count)


def test_groups_of_a_corpus_are_kept_with_the_states_and_count_in_every_interval(bundled):
    frame = bundled.to_pandas()
    grouped = probes.load_corpus(frame.assign(group=frame["id"].astype("category").cat.codes // 4))
    reps = probes.capture(*probes.load_checkpoint("bundled"), grouped, progress=False)
    assert reps.group.values.tolist() == list(grouped["group"])
    found, alone = (
        probes.compare({"base": "bundled"}, c, probes=["accuracy"], progress=False).table for c in (grouped, bundled)
    )
    assert found["value"].to_numpy() == pytest.approx(alone["value"].to_numpy(), rel=1e-9)
    assert found["low"].tolist() != alone["low"].tolist()


def in_seeds(count, group=None):
    """A baseline, and replicates of it whose classes lie nearer, by a distance that is that of their seed."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 120, 8)), np.arange(120) % 4
    far = 2 * np.eye(8)[y]
    base = probes.from_arrays(x + far, label=y, group=group)
    distances = 0.5 + 0.2 * rng.normal(size=count)
    near = [probes.from_arrays(x + far * d + 0.1 * rng.normal(size=x.shape), label=y, group=group) for d in distances]
    return {"base": base, "pruned": near}


def test_replicates_are_one_model_with_their_mean_and_a_wider_difference():
    names = ["snr", "norm", "cosine_to_baseline", "cka"]
    models = in_seeds(3)
    compared = probes.compare(models, probes=names, progress=False)
    table = compared.table
    place = ["probe", "layer", "other_layer", "language"]
    pruned = table[table["model"] == "pruned"].set_index(place)
    singles = [
        probes.compare(models | {"pruned": one}, probes=names, progress=False).table.query("model == 'pruned'")
        for one in models["pruned"]
    ]
    each = np.stack([single.set_index(place).loc[pruned.index, "value"] for single in singles])
    assert pruned["value"].to_numpy() == pytest.approx(each.mean(axis=0))
    assert pruned["between"].to_numpy() == pytest.approx(each.std(axis=0, ddof=1))
    assert (pruned["replicates"] == 3).all()
    assert table[table["model"] == "base"]["replicates"].isna().all()
    one = singles[0].set_index(place)["difference"]
    assert one.notna().sum() == pruned["difference"].notna().sum() > 0
    assert set(table["model"]) == {"base", "pruned"} == set(compared.representations)
    assert set(table.query("model == 'base'")["probe"]) == {
        "snr",
        "norm",
        "cka",
    }  # layers of the baseline with each other
    # The spread between replicates is part of the difference: more than that of the sentences alone.
    wide = (pruned["difference_high"] - pruned["difference_low"]).dropna()
    narrow = [s.set_index(place)["difference_high"] - s.set_index(place)["difference_low"] for s in singles]
    assert wide.mean() > np.mean([n.loc[wide.index].mean() for n in narrow])
    assert compared.representations["pruned"].hidden.equals(models["pruned"][0].hidden)
    assert compared.provenance["models"]["pruned"] == {"replicates": 3, "states_of": "replicate 1"}


def test_a_table_with_replicates_and_groups_is_saved_opened_drawn_and_reported(tmp_path):
    compared = probes.compare(in_seeds(2, group=np.arange(120) // 4), probes=["snr", "norm"], progress=False)
    assert {"design_effect", "replicates", "between"} < set(compared.table)
    assert compared.table["design_effect"].notna().all()
    opened = probes.Comparison.open(compared.save(tmp_path / "saved"))
    assert opened.table.equals(compared.table.astype(opened.table.dtypes))
    assert "replicate 1" in compared.report(tmp_path / "page.html").read_text()
    assert compared.summary()["replicates"].dropna().unique().tolist() == [2]
    for probe in ("snr", "norm"):
        compared.plot(probe)
        compared.plot_change(probe)
    assert "design_effect" not in probes.compare(in_seeds(2), probes=["norm"], progress=False).table


def test_replicates_of_the_baseline_are_compared_in_pairs():
    models = in_seeds(3)
    both = {"base": models["pruned"], "moved": [r.assign(hidden=r.hidden + 1) for r in models["pruned"]]}
    table = probes.compare(both, probes=["norm", "signal_to_error"], progress=False).table
    pairs = table.query("probe == 'signal_to_error' and language == 'pooled'")
    alone = [
        probes.drift(b, m).sel(measure="signal_to_error", language="pooled").value.values
        for b, m in zip(*both.values(), strict=True)
    ]
    assert pairs["value"].to_numpy() == pytest.approx(np.mean(alone, axis=0))
    # One of either is compared with each of the other.
    table = probes.compare(
        {"base": models["pruned"], "one": models["base"]}, probes=["norm", "drift"], progress=False
    ).table
    one = table.query("model == 'one' and language == 'pooled' and layer == 0").set_index("probe")
    assert pd.isna(one.loc["norm", "replicates"])
    assert one.loc["cosine_to_baseline", "replicates"] == 3
    with pytest.raises(
        probes.InputError, match="'moved' has 2 replicates and the baseline 'base' has 3: expected as many"
    ):
        probes.compare({**both, "moved": both["moved"][:2]}, probes=["norm", "drift"], progress=False)


def test_one_model_with_replicates_is_not_compared_with_itself():
    seeds = {"a": in_seeds(2)["pruned"]}
    with pytest.raises(probes.InputError, match="cannot be measured without another model"):
        probes.compare(seeds, probes=["drift"], progress=False)
    assert (probes.compare(seeds, probes=["snr"], progress=False).table["replicates"] == 2).all()
    with pytest.raises(probes.InputError, match="expected at least two replicates in a list, found 1"):
        probes.compare({"a": seeds["a"][:1]}, probes=["norm"])


def test_replicates_with_the_same_weights_are_said(bundled):
    model, tokenizer = probes.load_checkpoint("bundled")
    copy, _ = probes.load_checkpoint("bundled")
    with pytest.warns(probes.LayerscopeWarning, match="model 'a': replicates have the same weights"):
        found = probes.compare(
            {"a": [model, copy]},
            bundled.select(range(60)),
            tokenizer=tokenizer,
            probes=["snr"],
            draws=5,
            progress=False,
        )
    assert (found.table["between"] == 0).all()


def test_states_of_neighbours_that_are_alike_are_said_where_there_is_no_group():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(40, 8)), 4, axis=0) + rng.normal(size=(160, 8))
    with pytest.warns(
        probes.LayerscopeWarning, match=r"neighbours in the file share topics \(their states are alike\)"
    ):
        found = probes.compare({"a": probes.from_arrays(x)}, probes=["norm"])
    assert any("group=..." in c for c in found.provenance["corpus"]["cautions"])
    for reps in (probes.from_arrays(rng.permutation(x)), probes.from_arrays(x, group=np.arange(160) // 4)):
        assert probes.compare({"a": reps}, probes=["norm"]).provenance["corpus"]["cautions"] == []


def test_what_is_drawn_and_whose_states_are_shown_is_said(tmp_path):
    grouped = probes.compare(in_seeds(2, group=np.arange(120) // 4), probes=["snr"], progress=False)
    assert grouped.provenance["drawn"] == "groups of sentences"
    assert "draws of groups of sentences, the same" in grouped.report(tmp_path / "page.html").read_text()
    assert grouped.provenance["probes"]["snr"]["interval"].count("draws of groups of sentences") == 1
    assert (
        "Model pruned has 2 replicates: curves are of their mean, sentences of the first."
        in grouped.explore().about["notes"]
    )
    assert probes.compare(in_seeds(2), probes=["snr"], progress=False).provenance["drawn"] == "sentence ids"


def test_a_comparison_is_opened_with_its_states_where_they_are_given(bundled, tmp_path):
    few = bundled.select(range(24))
    made = probes.compare({"a": "bundled"}, few, store=tmp_path / "s", probes=["norm"], draws=5, progress=False)
    folder = made.save(tmp_path / "run")
    assert probes.Comparison.open(folder).representations == {}
    opened = probes.Comparison.open(folder, store=tmp_path / "s")
    np.testing.assert_array_equal(opened.representations["a"].hidden, made.representations["a"].hidden)
    assert opened.explore().about["missing"].keys() == made.explore().about["missing"].keys()
    with pytest.raises(probes.InputError, match="expected a zarr store"):
        probes.Comparison.open(folder, store=tmp_path)
    model, tokenizer = probes.load_checkpoint("bundled")
    probes.capture(model, tokenizer, few.select(range(20)), store=tmp_path / "other" / "a.zarr", progress=False)
    with pytest.raises(probes.InputError, match=r"not the states that the table is of: other corpus. Give the folder"):
        probes.Comparison.open(folder, store=tmp_path / "other")
