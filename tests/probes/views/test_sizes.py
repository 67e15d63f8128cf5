import numpy as np
import pandas as pd
import pytest
from judged import right_answers, table_of

from probes.costs import COLUMNS, as_rows
from probes.views.sizes import Size, sizes


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    made = table_of(right_answers(rng, 50, 2, 0.8, [(0, 0.02)] * 3), rng)
    rows = [
        {"bytes": 4e6, "stored_bytes": 4e6, "stored_as": "as it is", "embeddings": 8e5},
        {"bytes": 4e6, "stored_bytes": 1e6, "stored_as": "integers", "embeddings": 2e5, "speed_32": 0.5},
        {"bytes": 3e6, "stored_bytes": 2e6, "stored_as": "packed", "embeddings": 2e5, "speed_32": 2.14},
        {"stored_as": ""},
    ]
    made.models = pd.DataFrame(rows, columns=COLUMNS).assign(model=["m0", "m1", "m2", "m3"], parameters=1e6)
    for end, factor in (("_low", 0.9), ("_high", 1.1)):
        made.models[f"speed_32{end}"] = factor * made.models["speed_32"]
    return made


def test_bytes_and_time_stand_beside_those_of_the_baseline(table):
    assert sizes(table) == {
        "m0": Size("4.0 MB"),
        "m1": Size("1.0 MB (25 %) as integers", ""),  # what was timed is the simulation
        "m2": Size("2.0 MB (50 %), packed", "2.1x faster"),
        "m3": Size(),
    }


@pytest.mark.parametrize(
    ("speed", "low", "high", "said"),
    [
        (0.5, 0.4, 0.6, "2x slower"),
        (1.01, 0.98, 1.05, "as fast"),
        (1.3, 0.9, 1.6, "speed unsettled"),
        (np.nan, np.nan, np.nan, ""),
    ],
)
def test_faster_is_only_said_where_every_round_was(table, speed, low, high, said):
    table.models.loc[2, ["speed_32", "speed_32_low", "speed_32_high"]] = speed, low, high
    assert sizes(table)["m2"].speed == said


def test_embeddings_are_said_to_be_most_of_a_model_that_stays_large(table):
    table.models.loc[2, ["stored_bytes", "embeddings"]] = 3e6, 8e5
    assert sizes(table)["m2"].embeddings == "80 % of its parameters are embeddings"
    table.models.loc[2, "stored_bytes"] = 1e6
    assert sizes(table)["m2"].embeddings == ""


def test_nothing_is_said_where_nothing_was_measured(table):
    table.models = pd.DataFrame({"model": []})
    assert sizes(table) == {}
    assert as_rows(table.models) == []


def test_rows_hold_what_was_measured_in_words(table):
    rows = as_rows(table.models)
    assert rows[2] == {
        "model": "m2",
        "stored": "2.0 MB",
        "stored as": "packed",
        "file": "3.0 MB",
        "parameters": "1,000,000",
        "in embeddings": "200,000",
        "times as fast, 32 texts": "2.1 [1.9, 2.4]",
    }
    assert rows[3]["stored"] == ""
