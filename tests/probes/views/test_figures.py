import numpy as np
import pytest

import probes


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


def test_maps_of_models_of_different_depth_show_each_at_its_last_layer(with_heads):
    split = np.where(np.arange(120) % 60 < 40, "train", "test")
    models = {k: r.assign_coords(split=("example", split)) for k, r in with_heads.items()}
    models["half"] = models["base"].isel(layer=slice(0, 2))
    comparison = probes.compare(models, probes=["representer_support"], draws=10, progress=False)
    titles = [axis.get_title() for axis in comparison.plot("representer_support").axes]
    assert titles[:3] == ["base", "worse", "half"]
    with pytest.raises(probes.InputError, match=r"representer_support .* draw it with plot\('representer_support'\)"):
        comparison.plot_damage("representer_support")


def test_a_language_that_is_not_there_is_refused_also_by_what_has_no_layer(with_heads):
    comparison = probes.compare(with_heads, probes=["accuracy"], draws=10)
    with pytest.raises(probes.InputError, match=r"no values for language 'xx'; there are 'l0', 'l1', 'pooled'"):
        comparison.plot("accuracy", language="xx")


def test_dots_mark_what_differs_adjusted_over_layers_and_languages(comparison):
    marks = comparison.adjusted(["layer", "language"]).query("probe == 'snr' and p_adjusted < 0.05")
    figure = comparison.plot_damage("snr")
    dots = {axis.get_title(): sum(text.get_text() == "•" for text in axis.texts) for axis in figure.axes[:2]}
    assert dots == {f"{m} minus base": int((marks["model"] == m).sum()) for m in ("worse", "half")}
    assert figure.get_suptitle().endswith("p < 0.05 adjusted over layers and languages")


def test_simultaneous_bands_are_wider_and_say_so(comparison):
    table, bands = comparison.table, comparison.bands()
    assert (bands["low"] <= table["low"]).all()
    assert (bands["high"] >= table["high"]).all()
    several = table.groupby(["model", "probe", "language"])["layer"].transform("size") > 1
    rows = table[several & (table["probe"] == "snr")].index
    assert (bands.loc[rows, "high"] > table.loc[rows, "high"]).all()
    plain, wide = (comparison.plot("snr", simultaneous=x) for x in (False, True))
    heights = [f.axes[0].get_ylim()[1] - f.axes[0].get_ylim()[0] for f in (plain, wide)]
    assert heights[1] > heights[0]
    assert "bands: 95 % bands for all layers of a curve at once" in wide.get_supxlabel()
    assert "at once" not in plain.get_supxlabel()
