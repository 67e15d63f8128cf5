import numpy as np
import pytest

import probes


def test_the_change_by_language_and_layer_is_that_of_the_table(comparison):
    figure = comparison.plot_change("retrieval", models="worse", languages=["l1"], layers=[0, 1])
    heat = figure.axes[0].collections[0]
    rows = comparison.table.query("probe == 'retrieval' and model == 'worse' and language == 'l1' and layer < 2")
    np.testing.assert_array_equal(heat.get_array().ravel(), rows.sort_values("layer")["difference"])
    assert len(comparison.plot_change("retrieval").axes) == 3  # two models and the colour bar


def test_change_needs_two_models(models):
    alone = probes.compare({"base": models["base"]}, probes=["snr"])
    with pytest.raises(probes.InputError, match="only one model was measured"):
        alone.plot_change("snr")


def test_damage_and_gain_are_said_of_quality_alone(models):
    compared = probes.compare(models, probes=["snr", "norm"], draws=10)
    assert compared.plot_change("snr").get_supxlabel().startswith("red is damage, blue is gain")
    said = compared.plot_change("norm").get_supxlabel().replace("\n", " ")
    assert said.startswith("orange is less, purple is more, neither is better")
    assert "damage" not in said


def test_red_is_damage_also_where_lower_is_better(models):
    compared = probes.compare(models, probes=["snr", "variability"], draws=10)
    reds = []
    for probe in ("snr", "variability"):
        heat = compared.plot_change(probe, models="worse").axes[0].collections[0]
        worst = np.argmax(np.abs(heat.get_array()))
        red, _, blue, _ = heat.to_rgba(heat.get_array()).reshape(-1, 4)[worst]
        reds.append(red > blue)
    assert reds == [True, True]


def test_maps_of_models_of_different_depth_show_each_at_its_last_layer(with_heads):
    split = np.where(np.arange(120) % 60 < 40, "train", "test")
    models = {k: r.assign_coords(split=("example", split)) for k, r in with_heads.items()}
    models["half"] = models["base"].isel(layer=slice(0, 2))
    comparison = probes.compare(models, probes=["representer_support"], draws=10, progress=False)
    titles = [axis.get_title() for axis in comparison.plot("representer_support").axes]
    assert titles[:3] == ["base", "worse", "half"]
    one = comparison.plot("representer_support", models="half", width=3.3)
    assert one.axes[0].get_xlabel() == "training language"
    with pytest.raises(probes.InputError, match=r"representer_support .* draw it with plot\('representer_support'\)"):
        comparison.plot_change("representer_support")


def test_a_map_of_layers_is_of_one_language(models):
    comparison = probes.compare(models, probes=["cka"], draws=10, progress=False)
    figure = comparison.plot("cka", models="worse")
    rows = comparison.table.query("model == 'worse' and language == 'pooled'")
    wide = rows.pivot(index="layer", columns="other_layer", values="value").iloc[::-1]
    np.testing.assert_array_equal(figure.axes[0].collections[0].get_array(), wide)
    assert figure.get_supxlabel() == "all languages pooled; all models on one scale"
    assert comparison.plot("cka", languages="l0").get_supxlabel().startswith("l0;")
    with pytest.raises(probes.InputError, match="a map of cka is of one language: give one of 'l0', 'l1'"):
        comparison.plot("cka", languages=["l0", "l1"])
    with pytest.raises(probes.InputError, match="no values of cka for language 'xx'"):
        comparison.plot("cka", languages="xx")


def test_dots_mark_what_differs_adjusted_over_layers_and_languages(comparison):
    marks = comparison.adjusted(["layer", "language"]).query("probe == 'snr' and p_adjusted < 0.05")
    figure = comparison.plot_change("snr")
    dots = {axis.get_title(): sum(text.get_text() == "•" for text in axis.texts) for axis in figure.axes[:2]}
    assert dots == {f"{m} minus base": int((marks["model"] == m).sum()) for m in ("worse", "half")}
    assert figure.get_supxlabel().replace("\n", " ").endswith("• p < 0.05 adjusted over layers and languages")
    same = probes.compare(
        {"a": comparison.representations["base"], "b": comparison.representations["base"]}, probes=["snr"], draws=10
    )
    assert (
        same.plot_change("snr")
        .get_supxlabel()
        .replace("\n", " ")
        .endswith("; nowhere p < 0.05 adjusted over layers and languages")
    )
