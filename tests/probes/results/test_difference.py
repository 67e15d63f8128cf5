"""Differences of models: paired, of any two, and adjusted over any family."""

import time

import numpy as np
import pandas as pd
import pytest
from planted import planted

import probes
from probes.results.difference import FAMILIES, differences, family_in_words
from probes.results.kept import as_kept
from probes.results.result import split_measures
from probes.results.table import Table


def pair(noise=0.3, layers=4, change=0.0, seed=0):
    rng = np.random.default_rng(seed)
    base = planted(rng, ids=80, layers=layers)
    other = base.hidden.values + noise * rng.normal(size=base.hidden.shape)
    other[-1] *= 1 - change * np.eye(16)[:4].sum(axis=0)
    return base, base.assign(hidden=(base.hidden.dims, other)).assign_attrs(model="other")


def test_difference_of_a_model_to_itself_is_zero_and_not_significant():
    base, _ = pair()
    for probe in (probes.snr, probes.variability, probes.class_separability):
        out = probes.difference(probe(base), probe(base))
        assert (out.difference == 0).all()
        assert (out.low == 0).all()
        assert (out.high == 0).all()
        assert (out.p_adjusted == 1).all()


def test_difference_finds_the_layer_that_was_changed():
    base, other = pair(noise=0.05, change=0.3)
    out = probes.difference(probes.snr(other), probes.snr(base)).sel(language="pooled")
    assert out.p_adjusted[-1] == pytest.approx(1 / 201)
    assert out.high[-1] < 0


def test_paired_intervals_are_narrower_than_unpaired_ones():
    base, other = pair(noise=0.1)
    a, b = probes.snr(other), probes.snr(base)
    paired = probes.difference(a, b)
    unpaired = np.hypot(a.high - a.low, b.high - b.low)
    assert ((paired.high - paired.low) < 0.6 * unpaired).all()


def test_adjustment_grows_with_the_number_of_layers():
    base, other = pair(layers=8, noise=1.0, seed=3)
    whole = probes.difference(probes.snr(other), probes.snr(base))
    for layer in range(8):
        alone = probes.difference(*(probes.snr(r.isel(layer=[layer])) for r in (other, base)))
        assert (alone.p_adjusted.squeeze() <= whole.p_adjusted.sel(layer=layer) + 1e-9).all()


def test_only_layers_of_both_models_are_compared():
    base, other = pair()
    out = probes.difference(probes.snr(other.isel(layer=slice(0, 2))), probes.snr(base))
    assert out.layer.values.tolist() == [0, 1]


def test_a_missing_value_has_no_difference_and_leaves_the_other_layers():
    base, other = pair()
    hidden = other.hidden.values.copy()
    hidden[2, 0] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match="layer 2"):
        broken = probes.snr(other.assign(hidden=(other.hidden.dims, hidden)))
    out = probes.difference(broken, probes.snr(base)).sel(language="pooled")
    assert np.isnan(out.p_adjusted.sel(layer=2))
    assert np.isfinite(out.p_adjusted.sel(layer=[0, 1, 3])).all()


@pytest.mark.parametrize("options", [{"seed": 1}, {"draws": 100}])
def test_results_that_are_not_paired_are_refused(options):
    base, other = pair()
    with pytest.raises(probes.InputError, match="come from different ids, groups, seeds or numbers of draws"):
        probes.difference(probes.snr(other, **options), probes.snr(base))


def test_results_of_different_probes_are_refused():
    base, other = pair()
    with pytest.raises(probes.InputError, match="come from different probes"):
        probes.difference(probes.snr(other), probes.variability(base))


def test_results_without_a_common_layer_or_language_are_refused():
    base, other = (probes.snr(one) for one in pair(layers=2))
    said = r"other and .* have no layer in common: expected .*, found layer 5, 6 and 0, 1\. .* .assign"
    with pytest.raises(probes.InputError, match=said):
        probes.difference(other.assign_coords(layer=[5, 6]), base)
    with pytest.raises(probes.InputError, match=r"no language in common: .* pooled and .* measure both over"):
        probes.difference(other.sel(language=["pooled"]), base.drop_sel(language="pooled"))


def test_differences_of_several_measures_are_those_of_each():
    rng = np.random.default_rng(0)
    base, other = (planted(rng, layers=2) for _ in range(2))
    both = probes.difference(probes.geometry(other), probes.geometry(base))
    assert both.difference.dims == ("measure", "layer", "language")
    one = probes.difference(
        split_measures(probes.geometry(other))["norm"], split_measures(probes.geometry(base))["norm"]
    )
    np.testing.assert_array_equal(both.p_adjusted.sel(measure="norm"), one.p_adjusted)
    with pytest.raises(probes.InputError, match="best_layer has no draws, so no difference"):
        probes.difference(probes.best_layer(base), probes.best_layer(base))


OVER = [["layer"], ["language"], ["model"], ["probe"], ["layer", "language", "model", "probe"]]


def noisy(count=3, layers=3, seed=0):
    """Models that are copies of one with noise of their own: no true difference among them."""
    rng = np.random.default_rng(seed)
    base = planted(rng, ids=60, layers=layers)
    noise = [0.5 * rng.normal(size=base.hidden.shape) for _ in range(count)]
    return {f"m{k}": base.assign(hidden=base.hidden + x) for k, x in enumerate(noise)}


@pytest.fixture(scope="module")
def three():
    return probes.compare(noisy(), probes=["snr", "norm", "drift"])


def test_the_table_is_adjusted_over_the_layers_as_results_alone_are(three):
    table, again = three.table, three.adjusted()
    pd.testing.assert_frame_equal(table, again, check_exact=True)
    models = noisy()
    alone = probes.difference(probes.snr(models["m1"]), probes.snr(models["m0"]))
    for row in table.query("model == 'm1' and probe == 'snr'").itertuples():
        at = alone.sel(layer=row.layer, language=row.language)
        assert (row.p, row.p_adjusted, row.adjusted_low, row.adjusted_high) == (
            at.p,
            at.p_adjusted,
            at.adjusted_low,
            at.adjusted_high,
        )


@pytest.mark.parametrize("over", OVER)
def test_a_family_holds_what_varies_and_nothing_else(three, over):
    plain = three.draws.assign(units=("row", np.full(three.draws.sizes["row"], np.inf)))  # of many sentences
    found = Table(three.table, three.provenance, plain).adjusted(over)
    table = found[found["p"].notna()]
    varying = [c for name in over for c in FAMILIES[name]]
    apart = [c for c in ("model", "probe", "language", "layer") if c not in varying]
    rows = pd.Series(range(three.draws.sizes["row"]), index=three.draws["row"].values)
    draws = three.draws["draws"].values
    place = ["probe", "language", "layer"]
    base = three.table[three.table["model"] == "m0"].reset_index().set_index(place)["index"]
    family = table.groupby(apart).ngroup() if apart else pd.Series(0, index=table.index)
    for _, members in table.groupby(family):
        gaps = np.stack([draws[rows[i]] - draws[rows[base[tuple(members.loc[i, place])]]] for i in members.index])
        centre, spread = gaps.mean(axis=1), gaps.std(axis=1)
        largest = (np.abs(gaps - centre[:, None]) / spread[:, None]).max(axis=0)
        half = np.sort(largest)[-10] * spread
        np.testing.assert_allclose(members["adjusted_high"], np.maximum(centre + half, members["difference"]))
    assert (table["p_adjusted"] >= table["p"]).all()
    assert f"over {family_in_words(over)}" in found.attrs["p_adjusted"]


def test_any_two_models_have_a_difference_also_in_what_compares_with_the_baseline(three):
    found = three.difference("m2", "m1")
    assert list(found) == list(three.table)
    assert set(found["model"]) == {"m2"}
    wide = three.table.set_index(["model", "probe", "language", "layer"])["value"]
    expected = (wide["m2"] - wide["m1"]).reindex(pd.MultiIndex.from_frame(found[["probe", "language", "layer"]]))
    np.testing.assert_array_equal(found["difference"], expected)
    assert found.loc[found["probe"] == "signal_to_error", "p"].notna().any()
    models = noisy()
    alone = probes.difference(probes.snr(models["m2"]), probes.snr(models["m1"]))
    row = found.query("probe == 'snr' and language == 'l1' and layer == 2").iloc[0]
    assert row["difference_low"] == alone.low.sel(language="l1", layer=2)
    turned = three.difference("m1", "m2")
    np.testing.assert_array_equal(turned["p_adjusted"], found["p_adjusted"])
    np.testing.assert_array_equal(turned["adjusted_low"], -found["adjusted_high"])
    itself = three.difference("m1", "m1", over=["layer", "language"])
    assert (itself.dropna(subset="p")[["difference_low", "difference_high"]] == 0).all(axis=None)
    assert (itself["p_adjusted"].dropna() == 1).all()


def test_families_and_models_that_are_not_there_are_refused(three):
    with pytest.raises(probes.InputError, match="over='layer': expected a list of what varies within a family, out of"):
        three.adjusted("layer")
    with pytest.raises(probes.InputError, match="layers"):
        three.adjusted(["layers"])
    with pytest.raises(probes.InputError, match="m9"):
        three.difference("m9", "m0")
    with pytest.raises(probes.InputError, match="m9"):
        three.difference("m0", "m9")


def test_models_without_differences_and_layers_without_values_are_passed_over():
    models = noisy()
    hidden = models["m1"].hidden.values.copy()
    hidden[1, :5] = np.nan
    models["m1"] = models["m1"].assign(hidden=(models["m1"].hidden.dims, hidden))
    models["half"] = models["m2"].isel(layer=[0, 1])
    with pytest.warns(probes.LayerscopeWarning, match="m1 has no value at layer 1"):
        compared = probes.compare(models, probes=["snr", "best_layer", "cka"])
    for over in OVER:
        found = compared.adjusted(over).query("probe != 'cka'").set_index(["model", "probe", "language", "layer"])
        p = found["p_adjusted"].sort_index()
        assert p.loc["m0"].isna().all()
        assert p.loc[("m1", "snr", "pooled")].isna().tolist() == [False, True, False]
        assert p.loc[("half", "snr")].notna().all()
        assert p.xs("best_layer", level="probe").isna().all()
    maps = compared.difference("half", "m2").query("probe == 'cka'")
    tested = maps.dropna(subset="p")
    assert set(tested.query("language != 'pooled'").eval("baseline_layer - other_layer")) == {0}
    assert len(tested.query("language == 'pooled'")) == 6
    assert maps["difference"].notna().all()


def test_adjusting_a_large_comparison_takes_well_under_a_second():
    rng = np.random.default_rng(0)
    names = {"model": range(5), "probe": range(8), "language": range(25), "layer": range(13)}
    table = pd.MultiIndex.from_product(names.values(), names=names).to_frame(index=False).astype({"model": str})
    table["value"] = rng.normal(size=len(table))
    draws = table["value"].to_numpy()[:, None] + rng.normal(size=(len(table), 200))
    kept = as_kept(np.arange(len(table)), np.zeros(len(table)), draws)
    began = time.process_time()
    found = differences(table, kept, {str(k): "0" for k in range(1, 5)}, ["layer", "language"])
    assert time.process_time() - began < 5  # a tenth of that where nothing else runs
    assert found["p_adjusted"].notna().sum() == 4 * 8 * 25 * 13


def test_more_draws_are_drawn_near_the_level_alone_and_only_where_states_are_at_hand(tmp_path):
    models = noisy(layers=2)
    compared = probes.compare(models, probes=["snr", "norm", "class_separability"], draws=40)
    kept = compared.adjusted(["language", "layer"])
    near = kept[(kept["p_adjusted"] - 0.05).abs() <= 3 * np.sqrt(0.05 * 0.95 / 40)]
    assert len(near)
    found = compared.adjusted(["language", "layer"], draws=400)
    fresh = probes.compare(models, probes=["snr", "norm", "class_separability"], draws=400).adjusted(
        ["language", "layer"]
    )
    again = found["probe"].isin(near["probe"]) & found["model"].isin(near["model"])
    columns = ["difference_low", "difference_high", "p", "p_adjusted", "adjusted_low", "adjusted_high"]
    pd.testing.assert_frame_equal(found.loc[again, columns], fresh.loc[again, columns])
    pd.testing.assert_frame_equal(found.loc[~again, columns], kept.loc[~again, columns])
    with pytest.raises(probes.InputError, match="draws=40: expected more than the 40 that are kept"):
        compared.adjusted(draws=40)
    opened = probes.Comparison.open(compared.save(tmp_path / "run"))
    with pytest.raises(probes.InputError, match=r"draws=400: the states of 'm0'.* are not at hand"):
        opened.adjusted(draws=400)
