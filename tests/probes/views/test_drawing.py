"""What all figures share: selection, looks, widths, fonts in files."""

import io

import matplotlib
import pytest
from matplotlib.figure import Figure

import probes
from probes.views.drawing import Shown, chosen, look, models_of, panels, wrapped


def test_the_baseline_has_the_colour_of_text_and_lies_above_the_others(comparison):
    looks = {m: look(comparison, m) for m in ("base", "worse", "half")}
    assert looks["base"]["color"] == "black"
    assert all(looks["base"]["zorder"] > looks[m]["zorder"] for m in ("worse", "half"))
    assert len({(x["color"], x["marker"]) for x in looks.values()}) == 3
    with matplotlib.rc_context({"text.color": "white"}):
        assert look(comparison, "base")["color"] == "white"


def test_a_model_looks_the_same_whichever_are_drawn(comparison):
    lines = {line.get_label(): line for line in comparison.plot("snr", models=["half"]).axes[0].lines}
    assert lines["half"].get_color() == look(comparison, "half")["color"]


def test_only_what_is_asked_for_is_chosen(comparison):
    rows = comparison.table
    found = chosen(rows, models_of(comparison, ["half", "base"]), "l0", [0, 1])
    assert found["model"].unique().tolist() == ["base", "half"]
    assert (set(found["language"]), set(found["layer"])) == ({"l0"}, {0, 1})
    with pytest.raises(probes.InputError, match="no model 'x'; there are 'base', 'worse', 'half'"):
        models_of(comparison, "x")
    with pytest.raises(probes.InputError, match="no model 'base' beside the baseline; there are 'worse', 'half'"):
        models_of(comparison, "base", others=True)
    with pytest.raises(probes.InputError, match="no values for layer 9; there are 0, 1"):
        chosen(rows, ["base"], None, 9)
    with pytest.raises(probes.InputError, match="no values for language 'xx'"):
        chosen(rows, ["base"], ["l0", "xx"], None)


def test_panels_keep_to_a_width_and_stand_below_each_other_where_it_is_small():
    figure, axes = panels([2.0, 2.0, 3.0], None, 3.3)
    assert figure.get_size_inches().tolist() == pytest.approx([3.3, 7.7])
    assert len({axis.get_subplotspec().colspan.start for axis in axes}) == 1
    wide, axes = panels([2.0, 2.0, 3.0], None, None)
    assert wide.get_size_inches().tolist() == pytest.approx([12.6, 3.7])
    assert len(panels([2.0] * 4, None, 7.0)[1]) == 4
    with pytest.raises(probes.InputError, match="width=True: expected inches, from 1 to 100"):
        panels([2.0], None, True)


def test_a_panel_of_another_figure_takes_one_and_has_a_size_of_its_own():
    axis = Figure().subplots()
    assert panels([2.0], axis, None) == (axis.get_figure(), [axis])
    with pytest.raises(probes.InputError, match="ax= takes one panel, and this figure has 2"):
        panels([2.0, 2.0], axis, None)
    with pytest.raises(probes.InputError, match="width= is of a figure of its own"):
        panels([2.0], axis, 3.3)


def test_letters_in_pdf_are_truetype(comparison):
    file = io.BytesIO()
    figure = comparison.plot("snr", width=3.3)
    assert isinstance(figure, Shown)
    figure.savefig(file, format="pdf")
    assert b"/FontFile2" in file.getvalue()  # TrueType; what matplotlib writes else has /Type3
    assert b"/Type3" not in file.getvalue()
    assert matplotlib.rcParams["pdf.fonttype"] == 3  # as it was


def test_lines_of_text_are_as_long_as_there_is_room():
    lines = wrapped("one two three four five six seven eight", 1.5, 10).split("\n")
    assert len(lines) > 1
    assert " ".join(lines) == "one two three four five six seven eight"
    assert wrapped("", 1.0, 10) == ""
