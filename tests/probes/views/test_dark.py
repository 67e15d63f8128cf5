"""On a dark page greys turn, and colours stay."""

import io
import re

import pytest
from matplotlib.figure import Figure

from probes.views.dark import INK, PAPER, on_dark_pages_too


def svg(colour="#d55e00", text="black"):
    figure = Figure(figsize=(2, 2))
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=colour)
    axis.text(0.5, 0.5, "said", color=text)
    out = io.StringIO()
    figure.savefig(out, format="svg")
    return out.getvalue()


def rules(picture):
    return dict(re.findall(r'\[style\*="((?:fill|stroke): #\w+)"\] \{ \w+: (#\w+) !important \}', picture))


def test_white_becomes_the_page_and_black_the_ink():
    found = on_dark_pages_too(svg())
    assert rules(found)["fill: #ffffff"] == f"#{PAPER:02x}{PAPER:02x}{PAPER:02x}"
    assert rules(found)["stroke: #000000"] == f"#{INK:02x}{INK:02x}{INK:02x}"
    assert f"@media (prefers-color-scheme: dark) {{ svg {{ fill: #{INK:02x}" in found
    assert found.count("@media") == 1


def test_what_is_drawn_is_as_it_was():
    picture = svg()
    assert re.sub(r"<style>@media.*?</style>", "", on_dark_pages_too(picture)) == picture


def test_no_colour_is_changed_nor_what_is_not_quite_grey():
    found = on_dark_pages_too(svg("#0072b2", "#000001"))
    assert all(re.fullmatch(r"(fill|stroke): #(\w\w)\2\2", name) for name in rules(found))
    assert "stroke: #0072b2" in found
    assert "fill: #000001" in found


@pytest.mark.parametrize("grey", ["#737373", "#cccccc"])
def test_what_is_nearer_to_the_page_stays_nearer_to_it(grey):
    turned = rules(on_dark_pages_too(svg(grey)))[f"stroke: {grey}"]
    assert int(turned[1:3], 16) == round(INK + (PAPER - INK) * int(grey[1:3], 16) / 255)


def test_what_has_no_picture_in_it_is_left_alone():
    assert on_dark_pages_too("<p>none</p>") == "<p>none</p>"
