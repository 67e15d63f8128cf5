"""Causes in words and as bars, from made verdicts."""

import pandas as pd
import pytest

from probes.results.blame import COLUMNS
from probes.results.table import Table
from probes.results.verdict import Verdict
from probes.views.causes import bars, said_of_causes


def cause(layer, gain, low, high, language="pooled", module="", size=5_000):
    values = ["m", "accuracy", language, layer, module, gain, low, high, 0.2, size, low > 0]
    return dict(zip(COLUMNS, values, strict=True))


@pytest.fixture
def table():
    rows = [
        {"model": "m", "probe": "cosine_to_baseline", "language": "pooled", "layer": layer, "value": value}
        for layer, value in enumerate([1.0, 0.9, 0.5, 0.45])
    ]
    return Table(pd.DataFrame(rows), {}, None)


def said(table, *causes):
    found = Verdict(pd.DataFrame(), pd.DataFrame(), "base", causes=pd.DataFrame(list(causes), columns=COLUMNS))
    words = {"unit": lambda probe: f"points of {probe}", "called": {"fr": "French"}.get}
    return said_of_causes(found, table, "m", told=lambda _, x: f"{100 * x:+.0f}", **words)


def test_named_layers_what_could_be_missed_the_recommendation_and_where_states_move(table):
    assert said(table, cause(1, 0.02, -0.01, 0.05), cause(2, 0.05, 0.01, 0.1), cause(3, 0.1, 0.05, 0.15)) == [
        "caused by layer 3 +10 [+5, +15], layer 2 +5 [+1, +10] points of accuracy (all languages together), each by "
        "its original weights alone; of others up to +5 could be missed",
        "to undo the most a byte: give layer 3 its original weights back, 5.0 kB more as it is stored, for an expected "
        "+10 points of accuracy",
        "the states move most at layer 2, which is one of them",
    ]
    assert "(French)" in said(table, cause(3, 0.1, 0.05, 0.15, "fr"))[0]
    assert said(table, cause(3, 0.1, 0.05, 0.15, "fr"))[-1].endswith("layer 2, which is none of them")


def test_modules_are_told_apart_and_the_most_a_byte_is_recommended(table):
    inside = [
        cause(3, 0.01, -0.03, 0.04, module="attention", size=2_000),
        cause(3, 0.09, 0.04, 0.14, module="feed-forward", size=3_000),
    ]
    one, two, three, _ = said(table, cause(2, 0.05, 0.01, 0.1), cause(3, 0.1, 0.05, 0.15), *inside)
    assert one.startswith("caused by layer 3 +10 [+5, +15], layer 2 +5 [+1, +10] points")
    assert two == "of layer 3 its feed-forward +9 [+4, +14], its attention +1 [-3, +4]"
    assert three == (
        "to undo the most a byte: give the feed-forward of layer 3 its original weights back, 3.0 kB more as it is "
        "stored, for an expected +9 points of accuracy"
    )
    # What is not named is not recommended, however few its bytes; what takes none is.
    inside = [cause(3, 0.09, -0.04, 0.14, module="feed-forward", size=3)]
    assert "give layer 3 its" in said(table, cause(3, 0.1, 0.05, 0.15), *inside)[2]
    assert "give layer 3 its original weights back, which takes no more bytes, for" in said(
        table, cause(3, 0.1, 0.05, 0.15, size=0)
    )[1]  # fmt: skip


def test_where_none_is_shown_it_says_what_could_have_been_missed(table):
    assert said(table, cause(1, 0.02, -0.01, 0.05)) == [
        "no single layer is shown to cause it: one whose original weights give back up to +5 points of accuracy (all "
        "languages together) could have been missed"
    ]
    assert said(table) == []


def test_bars_lie_within_the_width_and_hold_zero(table):
    rows = [cause(2, 0.2, 0.1, 0.3, module="feed-forward"), cause(1, -0.1, -0.2, 0.0), cause(2, 0.3, 0.2, 0.4)]
    rows += [cause(2, 0.3, 0.2, 0.4, "fr")]
    table.provenance["causes"] = {"m": [r | {"measure": r["probe"]} for r in rows]}
    (one,) = bars(table)
    first, second, inside = one["rows"]
    assert (inside["layer"], inside["module"], second["module"]) == (2, "feed-forward", "")
    assert (one["model"], one["measure"], first["named"], second["named"]) == ("m", "accuracy", False, True)
    assert (first["from"], first["width"]) == pytest.approx((16.67, 16.66), abs=0.02)
    assert (second["from"], second["width"]) == pytest.approx((33.33, 50), abs=0.02)
    assert (second["low"], second["spread"]) == pytest.approx((66.67, 33.33), abs=0.02)


def test_the_explorer_is_told_the_bars_and_draws_them(table):
    from importlib.resources import files

    from probes.views.described import bars as told

    assert told is bars
    assert "causesOf(about.causes)" in files("probes.views").joinpath("front/whole.js").read_text(encoding="utf-8")
