"""Figures for paper: the width of a column, no text cut, letters that stay letters."""

import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import probes
from probes.costs import COLUMNS
from probes.views.drawing import Shown

LONG = "quantised-int4-per-channel_with_a_long_name"


def cut(figure):
    """The texts of a figure that reach over an edge; of ticks those that are drawn."""
    figure.draw_without_rendering()
    renderer, found = figure._get_renderer(), []
    ticks = {label for a in figure.axes for label in (*a.get_xticklabels(), *a.get_yticklabels())}
    seen = {t.label1 for a in figure.axes for axis in (a.xaxis, a.yaxis) for t in axis._update_ticks()}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and (text not in ticks or text in seen):
            box = text.get_window_extent(renderer)
            if box.x0 < 0 or box.x1 > figure.bbox.width or box.y0 < 0 or box.y1 > figure.bbox.height:
                found.append(text.get_text())
    return found


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    about = {"id": np.tile(np.arange(40), 2), "language": np.repeat(["eng_Latn", "zho_Hans"], 40)}
    label = np.tile(np.arange(40) % 3, 2)

    def model(noise, layers=3):
        x = np.tile(rng.normal(size=(40, 6)) + 3 * np.eye(6)[label[:40]], (2, 1))
        reps = probes.from_arrays(np.stack([x + noise * rng.normal(size=x.shape)] * layers), label=label, **about)
        logits = 3 * np.eye(3)[label] + noise * rng.normal(size=(80, 3))
        return reps.assign(logits=(("example", "class"), logits)).assign_coords({"class": ["0", "1", "2"]})

    run = probes.series([(0, model(0.1)), (100, model(0.5)), (200, model(3.0))])
    models = {"the original": model(0.1), LONG: model(2.0, 2), "run": run}
    asked = {"probes": ["retrieval", "cka", "label_loyalty"], "draws": 10, "progress": False}
    comparison = probes.compare(models, pivot="eng_Latn", **asked)
    costs = pd.DataFrame({"model": comparison.models["model"], "stored_bytes": 1e6 * np.arange(1, 6), "stored_as": ""})
    comparison.models = costs.reindex(columns=["model", *COLUMNS]).fillna({"embeddings": 1, "parameters": 9})
    return comparison


DRAWN = {
    "curves": lambda c, **how: c.plot("retrieval", models=["the original", LONG], **how),
    "points": lambda c, **how: c.plot("label_loyalty", models=["the original", LONG], **how),
    "maps": lambda c, **how: c.plot("cka", models=[LONG], **how),
    "change": lambda c, **how: c.plot_change("retrieval", models=[LONG], **how),
    "languages": lambda c, **how: c.plot_languages(models=[LONG], **how),
    "steps": lambda c, **how: c.plot_steps("retrieval", **how),
    "tradeoff": lambda c, **how: c.plot_tradeoff(**how),
}


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_of_a_column_is_cut_and_all_of_it_is_there(made, name):
    before = dict(matplotlib.rcParams)
    with probes.style(width="single column"):
        figure = DRAWN[name](made)
    assert figure.get_figwidth() == 3.3
    assert cut(figure) == []
    assert dict(matplotlib.rcParams) == before
    said = DRAWN[name](made).get_supxlabel().split()
    assert figure.get_supxlabel().split() == said
    # Negative control: what is measured sees the sentence below where it is not broken into lines.
    figure.supxlabel(" ".join(said))
    assert cut(figure) != []


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_takes_a_panel_and_gives_it_back(made, name):
    mine = Figure()
    axis = mine.subplots()
    assert DRAWN[name](made, ax=axis) is axis
    assert axis.has_data() or axis.collections
    assert isinstance(DRAWN[name](made), Shown)
    assert axis in mine.axes


def test_steps_take_a_panel_for_the_curve_and_one_for_the_map(made):
    both = Figure().subplots(2).tolist()
    assert made.plot_steps("retrieval", ax=both) is both
    assert all(axis.has_data() for axis in both)
    with pytest.raises(probes.InputError, match="ax=: expected a panel for the curve and one for the map"):
        made.plot_steps("retrieval", ax=Figure().subplots(3).tolist())


def test_letters_of_a_style_are_text_in_svg_and_pdf_also_after_it(made):
    with probes.style(width="single column"):
        figure = DRAWN["curves"](made)
    for settings, text in (({}, True), ({"figure": DRAWN["curves"](made)}, False)):
        file = io.StringIO()
        settings.get("figure", figure).savefig(file, format="svg")
        assert (">layer</text>" in file.getvalue()) is text
    file = io.BytesIO()
    figure.savefig(file, format="pdf")
    assert b"/FontFile2" in file.getvalue()


def test_a_style_stays_until_it_is_taken_off_and_a_width_of_ones_own_goes_before(made):
    size = matplotlib.rcParams["font.size"]
    try:
        probes.style(width=5)
        assert DRAWN["curves"](made).get_figwidth() == 5
        assert DRAWN["curves"](made, width=3.3).get_figwidth() == 3.3
        with probes.style(width="double column"):
            assert DRAWN["curves"](made).get_figwidth() == 6.9
        assert DRAWN["curves"](made).get_figwidth() == 5
    finally:
        probes.style(width=None)
    assert DRAWN["curves"](made).get_figwidth() == 4.2
    assert matplotlib.rcParams["font.size"] == size
    with pytest.raises(probes.InputError, match="width='column': expected 'single column', 'double column', inches"):
        probes.style(width="column")
    with pytest.raises(probes.InputError, match=r"width=0.5: expected inches, from 1 to 100"):
        probes.style(width=0.5)
