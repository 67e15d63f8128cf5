import base64
import io
import re
import sys

import IPython.display
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread
from shown import bare

from probes.views.picture import Curves, Points, picture
from probes.widgets import AlignmentMatrix, LayerCurves, LayerMap


@pytest.fixture
def show(monkeypatch):
    """Return a function that shows a widget as a notebook does: what is displayed, the HTML after it, its picture."""
    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda *a, **k: shown.append((a, k)))

    def show(widget):
        shown.clear()
        widget._ipython_display_()
        html = shown[1][0][0].data
        return shown[0], html, base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])

    return show


def test_a_picture_stays_where_no_kernel_runs(widget, show):
    ((bundle,), how), html, png = show(widget)
    assert how["raw"]
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert f'class="lsc-picture" data-of="{widget.about["token"]}"' in html
    assert png.startswith(b"\x89PNG")
    pixels = imread(io.BytesIO(png))
    assert 0.01 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.5  # there are lines and points on white
    widget.layer = 0
    assert show(widget)[1] != html


def test_a_picture_says_why_it_is_one(widget, show, monkeypatch):
    html = show(widget)[1]
    assert "no kernel runs, or because this page shows no widgets" in html
    assert "explorer.save(" in html
    assert "enable_custom_widget_manager" not in html
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert "output.enable_custom_widget_manager()" in show(widget)[1]


def test_a_picture_of_little(compared, show):
    for one in (LayerCurves(compared), LayerMap(bare(1, 1, 1)), AlignmentMatrix(bare(3))):
        assert show(one)[2].startswith(b"\x89PNG")


def test_a_picture_has_a_curve_where_the_probe_has_no_layers(widget, show, monkeypatch):
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
    widget.probe, widget.colour = "accuracy", "prediction"
    show(widget)
    assert titles[0].startswith("signal-to-noise ratio")
    assert titles[1] == "base, layer 2, by prediction"


def test_a_picture_is_of_what_it_is_given():
    values = np.array([[0.0, 0.0, 0.1], [1.0, 0.9, 1.0], [0.5, 0.4, 0.6]])
    points = Points("a map", np.array([[0.0, 0.5], [0.5, 0.0]]), np.array([0, 1]), 1.0)
    curves = Curves("a probe", {"base": values, "small": values[:2]}, 1)
    heights = [imread(io.BytesIO(picture("t", *what))).shape[0] for what in ((curves, [points]), (None, [points]))]
    assert heights == [int(2 * 2.6 * 80), int(2.6 * 80)]
    low = picture("t", Curves("a probe", {"base": values}, 1))
    assert low != picture("t", Curves("a probe", {"base": values}, 2))  # the line at the layer


def test_no_two_of_sixty_codes_look_alike(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "scatter", lambda self, x, y, marker, c, **_: drawn.extend((marker, one) for one in c))
    codes = np.arange(-1, 60)
    picture("t", None, [Points("a map", np.zeros((61, 2)), codes, 1.0)])
    assert len(drawn) == len(set(drawn)) == 61
    assert [one for _, one in drawn].count("#999999") == 1  # of what has no code


def test_the_curve_of_the_baseline_is_black(monkeypatch):
    drawn = {}
    monkeypatch.setattr(Axes, "plot", lambda self, *_, color, label, **__: drawn.update({label: color}))
    picture("t", Curves("a probe", {name: np.zeros((2, 3)) for name in ("small", "base", "other")}, 0, "base"))
    assert drawn["base"] == "black"
    assert len(set(drawn.values())) == 3
