import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import probes


def test_figures_and_their_errors(comparison):
    assert len(comparison.plot().axes) == 6
    assert comparison.plot("snr").axes[0].get_title().startswith("signal-to-noise")
    with pytest.raises(probes.InputError, match="probe 'r2' was not measured"):
        comparison.plot("r2")
    with pytest.raises(probes.InputError, match=r"no values for language 'xx'; there are 'l0', 'l1', 'pooled'"):
        comparison.plot("snr", languages="xx")


def drawn(axis):
    return {tuple(np.round(line.get_ydata(), 9)) for line in axis.lines if len(line.get_ydata())}


def values(table):
    return {tuple(np.round(rows["value"], 9)) for _, rows in table.groupby("model")}


def test_curves_show_the_numbers_of_the_table(comparison):
    table = comparison.to_dataframe().query("probe == 'snr'")
    assert drawn(comparison.plot("snr").axes[0]) == values(table.query("language == 'pooled'"))
    figure = comparison.plot("snr", languages=["l0", "l1"], models=["base", "half"], layers=[0, 1])
    assert [axis.get_title()[-4:] for axis in figure.axes] == [", l0", ", l1"]
    for axis, language in zip(figure.axes, ("l0", "l1"), strict=True):
        rows = table[(table["language"] == language) & (table["model"] != "worse") & table["layer"].isin([0, 1])]
        assert drawn(axis) == values(rows)


def test_a_model_of_another_depth_stands_where_it_is_compared(comparison):
    rows = comparison.table.query("model == 'half' and probe == 'snr' and language == 'pooled'")
    lines = comparison.plot("snr").axes[0].lines
    (line,) = [x for x in lines if np.array_equal(x.get_ydata(), rows["value"])]
    wanted = rows["baseline_layer"] if "baseline_layer" in rows else rows["layer"]
    assert line.get_xdata().tolist() == wanted.tolist()


def test_what_has_no_layer_is_drawn_by_language_and_not_said_to_be_pooled(with_heads):
    comparison = probes.compare(with_heads, probes=["accuracy", "snr"], draws=10)
    figure = comparison.plot("accuracy")
    rows = comparison.table.query("probe == 'accuracy' and model == 'base'").set_index("language")["value"]
    shown = [x.get_text() for x in figure.axes[0].get_yticklabels()]
    assert shown == ["all together", "l0", "l1"]
    points = figure.axes[0].lines[0].get_xdata().astype(float)
    np.testing.assert_allclose(points, rows[["pooled", "l0", "l1"]])
    assert "pooled" not in figure.get_supxlabel()
    assert figure.get_supxlabel().startswith("points: one a language; bars: 95 %")
    both = comparison.plot().get_supxlabel().replace("\n", " ")
    assert both == (
        "curves: all languages pooled; points: one a language; bands and bars: 95 % bootstrap intervals by sentence"
    )
    with pytest.raises(probes.InputError, match=r"no values for language 'xx'; there are 'l0', 'l1', 'pooled'"):
        comparison.plot("accuracy", languages="xx")


def test_captions_say_what_stands_in_the_place_of_languages(models):
    levels = {name: reps.assign_attrs(languages_are="noise level") for name, reps in models.items()}
    comparison = probes.compare(levels, probes=["snr", "cka"], draws=10, progress=False)
    assert comparison.plot("snr").get_supxlabel().startswith("curves: all noise levels pooled; bands")
    assert comparison.plot("cka").get_supxlabel().startswith("all noise levels pooled; ")


def test_a_panel_can_be_drawn_into_a_figure_of_another_without_a_caption(comparison):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert comparison.plot("snr", ax=left) is left
    assert comparison.plot_change("snr", ax=right, models="half") is right
    assert left.get_legend() is not None
    assert figure.get_supxlabel() == ""
    assert right.get_title().replace("\n", " ") == "signal-to-noise ratio: half minus base"
    with pytest.raises(probes.InputError, match="ax= takes one panel, and this figure has 6"):
        comparison.plot(ax=left)


@pytest.mark.parametrize("name", ["plot", "plot_change", "plot_languages"])
def test_every_figure_can_be_as_wide_as_asked_and_without_a_caption(comparison, name):
    draw = getattr(comparison, name)
    figure = draw("retrieval", width=3.3, models="half", caption=False)
    assert figure.get_figwidth() == 3.3
    assert figure.get_supxlabel() == ""
    assert draw("retrieval", width=3.3, models="half").get_supxlabel()


@pytest.mark.parametrize("name", ["plot", "plot_change", "plot_languages"])
def test_at_the_width_of_a_column_no_letter_is_small_or_cut_or_over_another(comparison, name):
    figure = getattr(comparison, name)("retrieval", width=3.3, models="half")
    figure.draw_without_rendering()
    axis = figure.axes[0]
    around = figure.get_tightbbox()  # of all that is drawn, in inches
    assert around.x0 >= -0.01
    assert around.x1 <= 3.31
    assert around.y0 >= -0.01
    texts = [axis.title, axis.xaxis.label, *axis.get_xticklabels(), *axis.get_yticklabels(), figure._supxlabel]
    assert min(text.get_size() for text in texts) >= 7
    rows = [t.get_window_extent() for t in axis.get_yticklabels() if t.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(rows) for b in rows[:i])


def test_sizes_of_letters_are_those_of_matplotlibs_settings(comparison):
    with matplotlib.rc_context({"axes.titlesize": 6, "font.size": 6}):
        figure = comparison.plot("snr")
        assert figure.axes[0].title.get_size() == 6
        assert figure._supxlabel.get_size() == pytest.approx(0.833 * 6)


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
    assert "bands: 95 % for all layers of a curve at once" in wide.get_supxlabel().replace("\n", " ")
    assert "at once" not in plain.get_supxlabel()
