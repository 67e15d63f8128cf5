import numpy as np
import pandas as pd
import pytest
from judged import right_answers, table_of

from probes.costs import COLUMNS
from probes.errors import InputError
from probes.results.draws import POOLED
from probes.results.verdict import verdict
from probes.views.tradeoff import points_of, tradeoff

SIZES = {"m0": 4e8, "m1": 1e8, "m2": 2e8, "m3": 1.2e8}


@pytest.fixture
def table():
    """A baseline, a small model as good, a larger one that is worse, and one with a language that is lost."""
    rng = np.random.default_rng(0)
    losses = [(0.0, 0.01), (0.3, 0.02), ([0.6, 0.0, 0.0], 0.02)]
    made = table_of(right_answers(rng, 400, 3, 0.8, losses), rng, names=["swh_Latn", "fra_Latn", "deu_Latn"])
    made.table["low"], made.table["high"] = made.table["value"] - 0.03, made.table["value"] + 0.03
    made.models = pd.DataFrame(
        {"model": list(SIZES), "stored_bytes": list(SIZES.values())}, columns=["model", *COLUMNS]
    )
    made.models["stored_as"] = ["as it is", "integers", "as it is", "packed"]
    made.models["seconds_32"] = [4.0, 4.1, 2.0, 3.9]
    return made


def test_points_are_those_of_the_table_and_the_front_is_that_of_pareto(table):
    points = points_of(table, "accuracy", "bytes").set_index("model")
    assert points["x"].to_dict() == {model: size / 1e6 for model, size in SIZES.items()}
    rows = table.table.set_index(["model", "language"])
    for model, row in points.iterrows():
        assert (row["value"], row["low"]) == tuple(rows.loc[(model, POOLED), ["value", "low"]])
        alone = rows.loc[model].drop(POOLED)["value"]
        assert (row["worst"], row["worst_language"]) == (alone.min(), alone.idxmin())
    assert points.loc["m3", "worst_language"] == "swh_Latn"
    best = {
        one
        for one, row in points.iterrows()
        if not any(
            other["x"] <= row["x"]
            and other["value"] >= row["value"]
            and tuple(other[["x", "value"]]) != tuple(row[["x", "value"]])
            for _, other in points.iterrows()
        )
    }
    assert set(points.index[points["front"]]) == best
    assert "m1" in best
    assert not points.loc[["m2", "m3"], "front"].any()


def test_where_less_is_better_the_front_turns(table):
    table.table["value"] *= -1
    table.provenance["probes"]["accuracy"]["better"] = "lower"
    points = points_of(table, "accuracy", "bytes").set_index("model")
    assert points.loc["m1", "front"]
    assert points.loc["m3", "worst_language"] == "swh_Latn"


def test_labels_meet_neither_each_other_nor_a_marker(table):
    figure = tradeoff(verdict(table), table)
    axis = figure.axes[0]
    assert axis.get_xlabel() == "megabytes as stored"
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert {"m0", "m1", "m2", "m3"} < {text.get_text() for text in axis.texts}
    assert "Swahili" in {text.get_text() for text in axis.texts}
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[:i])
        assert axis.bbox.x0 <= one.x0 <= one.x1 <= axis.bbox.x1
    assert min(text.get_fontsize() for text in axis.texts) >= 8


def test_the_time_of_a_simulation_is_called_so(table):
    figure = tradeoff(verdict(table), table, against="seconds")
    assert "m1 (simulated)" in {text.get_text() for text in figure.axes[0].texts}


def test_what_was_not_measured_is_not_drawn(table):
    found = verdict(table)
    with pytest.raises(InputError, match="against='operations': it was measured of 0 models, expected at least two"):
        tradeoff(found, table, against="operations")
    with pytest.raises(InputError, match="weight"):
        tradeoff(found, table, against="weight")
    with pytest.raises(InputError, match="probe 'snr' is not judged; judged are 'accuracy'"):
        tradeoff(found, table, "snr")
