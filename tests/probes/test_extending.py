import warnings

import numpy as np
import pandas as pd
import pytest

import probes
from probes.extending import joined

PROBES = ["snr", "retrieval", "alignment_gap", "cka", "drift", "variability"]


def states(seed, *, layers=3, noise=0.3, text=""):
    rng = np.random.default_rng(seed)
    label = np.tile(np.arange(3), 16)
    base = np.random.default_rng(0).normal(size=(48, 6)) + 2 * np.eye(6)[label]
    hidden = np.stack([np.tile(base, (2, 1)) + noise * rng.normal(size=(96, 6)) for _ in range(layers)])
    about = {"id": np.tile(np.arange(48), 2), "language": np.repeat(["en", "sw"], 48), "label": np.tile(label, 2)}
    return probes.from_arrays(hidden, **about, name=f"m{seed}")


@pytest.fixture(scope="module")
def models():
    return {"base": states(1), "fine": states(2, noise=0.1), "short": states(3, layers=2), "poor": states(4, noise=1)}


def compared(models, baseline="base", **more):
    about = {"probes": PROBES, "pivot": "en", "draws": 20, "seed": 3, "progress": False} | more
    return probes.compare(models, baseline=baseline, **about)


def assert_same(one, other):
    pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
    for name in ("row", "draws", "unseen", "units"):
        np.testing.assert_array_equal(one.draws[name].values, other.draws[name].values)
    for about in (one.provenance, other.provenance):
        assert list(about["models"]) == list(one.provenance["models"])
    assert one.provenance["probes"] == other.provenance["probes"]
    assert (one.baseline, one.provenance["pivot"]) == (other.baseline, other.provenance["pivot"])
    assert one.models["model"].tolist() == other.models["model"].tolist()


def test_models_added_are_as_in_one_comparison_to_the_last_bit(models):
    whole = compared(models)
    few = compared({k: models[k] for k in ("base", "fine")})
    before = few.table.copy()
    grown = few.add("short", models["short"]).add("poor", models["poor"])
    assert_same(grown, whole)
    pd.testing.assert_frame_equal(few.table, before)  # which stays as it was
    assert grown.representations.keys() == whole.representations.keys()


def test_nothing_that_is_there_is_measured_again(models, monkeypatch):
    few = compared({k: models[k] for k in ("base", "fine")})
    from probes import comparing

    measured = []
    plain = comparing.measured_on
    monkeypatch.setattr(
        comparing, "measured_on", lambda c, r, name, **k: measured.append(name) or plain(c, r, name, **k)
    )
    few.add("poor", models["poor"])
    assert set(measured) == {"poor"}


def test_one_model_alone_gets_what_compares_two(models):
    alone = compared({"base": models["base"]}, probes=None)
    both = {k: models[k] for k in ("base", "poor")}
    assert_same(alone.add("poor", models["poor"]), compared(both, probes=None))


def test_another_baseline_is_as_in_a_comparison_with_it_to_the_last_bit(models):
    whole = compared(models)
    for name in ("fine", "short"):
        assert_same(whole.against(name), compared(models, baseline=name))
    assert_same(whole.against("poor").against("base"), whole)
    grown = compared({k: models[k] for k in ("base", "short")}).add("poor", models["poor"]).against("short")
    assert_same(grown, compared({k: models[k] for k in ("base", "short", "poor")}, baseline="short"))


def test_groups_replicates_and_outliers_left_out_are_kept(models):
    group = np.tile(np.arange(48) // 2, 2)
    grouped = {k: m.assign_coords(group=("example", group.astype(str))) for k, m in models.items() if k != "short"}
    whole = compared(grouped, without_outliers=1)
    few = compared({k: grouped[k] for k in ("base", "fine")}, without_outliers=1)
    assert_same(few.add("poor", grouped["poor"]), whole)
    assert_same(whole.against("fine"), compared(grouped, baseline="fine", without_outliers=1))
    seeds = [states(5), states(6)]
    grown = compared({"base": models["base"], "fine": models["fine"]}).add("seeds", seeds)
    assert_same(grown, compared({"base": models["base"], "fine": models["fine"], "seeds": seeds}))
    with pytest.warns(probes.LayerscopeWarning, match=r"against 'fine': cosine_to_baseline, .* left out"):
        less = grown.against("fine")
    assert list(less.provenance["probes"]) == ["variability", "snr", "retrieval", "alignment_gap"]
    with pytest.raises(probes.InputError, match="the baseline 'seeds' has 2 replicates"):
        less.against("seeds").add("one more", models["poor"])


def test_an_opened_comparison_goes_on(bundled, tmp_path):
    few = bundled.select(range(96))
    about = {"probes": ["snr", "drift"], "draws": 8, "progress": False, "timing": False, "max_length": 60}
    both = {"a": "bundled", "b": halved()}
    tokenizer = probes.load_checkpoint("bundled")[1]
    whole = probes.compare(both, few, tokenizer=tokenizer, **about)
    probes.compare({"a": "bundled"}, few, store=tmp_path / "s", **about | {"probes": ["snr"]}).save(tmp_path / "one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", probes.LayerscopeWarning)
        probes.compare({"a": "bundled"}, few, **about | {"probes": None}).save(tmp_path / "bare")
    opened = probes.Comparison.open(tmp_path / "one", store=tmp_path / "s")
    grown = opened.add("b", both["b"], tokenizer=tokenizer, timing=False, progress=False)
    rows = whole.table[whole.table["probe"] == "snr"].reset_index(drop=True)
    pd.testing.assert_frame_equal(grown.table, rows, check_dtype=False, rtol=1e-12)
    assert grown.provenance["models"] == whole.provenance["models"]
    assert grown.models.set_index("model").loc["b", "nonzero"] < 0.6 * grown.models["parameters"].max()
    bare = probes.Comparison.open(tmp_path / "bare")
    with pytest.raises(probes.InputError, match=r"the states of the baseline 'a' are not at hand, .* give base=..."):
        bare.add("b", both["b"], tokenizer=tokenizer)
    with pytest.raises(probes.InputError, match="its weights are not those of the baseline 'a'"):
        bare.add("b", both["b"], tokenizer=tokenizer, base=both["b"])
    with pytest.raises(probes.InputError, match=r"give corpus=..., the one that it was made on"):
        bare.add("b", both["b"], tokenizer=tokenizer, base="bundled")
    with pytest.raises(probes.InputError, match="it is not the one of this comparison"):
        bare.add("b", both["b"], tokenizer=tokenizer, base="bundled", corpus=bundled.select(range(60)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", probes.LayerscopeWarning)
        again = bare.add("b", both["b"], tokenizer=tokenizer, base="bundled", corpus=few, timing=False, progress=False)
    assert set(again.table.query("model == 'b'")["probe"]) >= {"cosine_to_baseline", "label_loyalty"}


def halved():
    model, _ = probes.load_checkpoint("bundled")
    for parameter in model.parameters():
        parameter.data[..., ::2] = 0
    return model


def test_what_cannot_be_is_said(models, tmp_path):
    made = compared({k: models[k] for k in ("base", "fine")})
    with pytest.raises(probes.InputError, match=r"there is a model 'fine' already. Give this one another name"):
        made.add("fine", models["poor"])
    with pytest.raises(probes.InputError, match="baseline"):
        made.against("finer")
    with pytest.raises(probes.InputError, match="probes='snr': expected a list of names, out of snr, retrieval"):
        made.add("poor", models["poor"], probes="snr")
    with pytest.raises(probes.InputError, match="probes"):
        made.add("poor", models["poor"], probes=["iso_score"])
    assert set(made.add("poor", models["poor"], probes=["snr"]).table.query("model == 'poor'")["probe"]) == {"snr"}
    narrow = probes.from_arrays(
        models["poor"].hidden.values[..., :4], **{c: models["poor"][c].values for c in ("id", "language", "label")}
    )
    with pytest.raises(probes.InputError, match="cosine_to_baseline"):
        made.add("narrow", narrow)
    opened = probes.Comparison.open(made.save(tmp_path / "made"))
    with pytest.warns(probes.LayerscopeWarning, match=r"compare with 'base' and cannot be measured from what is kept"):
        kept = opened.against("fine")
    pd.testing.assert_frame_equal(
        kept.table,
        made.against("fine")
        .table.query("probe in ['snr', 'retrieval', 'alignment_gap', 'variability']")
        .reset_index(drop=True)[list(kept.table)],
        check_dtype=False,
    )
    opened.provenance["versions"]["layerscope"] = "0.0.1"
    with pytest.raises(
        probes.InputError, match=r"made by version 0.0.1 of layerscope and this is .*compare all models"
    ):
        opened.add("poor", models["poor"])
    uneven = compared({k: models[k] for k in ("base", "short")})
    uneven.representations = {}
    with pytest.raises(probes.InputError, match="not equally deep"):
        uneven.against("short")
    only = compared({k: models[k] for k in ("base", "fine")}, probes=["drift"])
    only.representations = {}
    with (
        pytest.warns(probes.LayerscopeWarning, match="left out"),
        pytest.raises(probes.InputError, match="no probe is left"),
    ):
        only.against("fine")


def test_draws_of_rows_that_are_left_out_are_left_out(models):
    made = compared(models)
    table, draws = joined([(made.table[made.table["probe"] == "snr"], made.draws)], list(models), ["snr"])
    assert len(table) == draws.sizes["row"] == (made.table["probe"] == "snr").sum()
