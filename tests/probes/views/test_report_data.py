"""What a report's page draws from: every number and name as the table has it, and inert."""

import json

import numpy as np
import pytest

import probes
from probes.views.report_data import as_json, language_maps


@pytest.fixture(scope="module")
def comparison():
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(30, 6))
    about = {"id": np.tile(np.arange(30), 2), "language": np.repeat(["en", "</script>"], 30)}
    deep = probes.from_arrays(np.tile(meaning, (5, 2, 1)) + 0.3 * rng.normal(size=(5, 60, 6)), **about)
    shallow = probes.from_arrays(np.tile(meaning, (3, 2, 1)) + 0.9 * rng.normal(size=(3, 60, 6)), **about)
    return probes.compare({"deep": deep, "shallow": shallow}, pivot="en", probes=["retrieval", "drift", "cka"])


def test_maps_are_of_what_has_languages_and_layers(comparison):
    found = language_maps(comparison)
    assert list(found) == [
        "retrieval",
        "cosine_to_baseline",
        "signal_to_error",
        "norm_ratio",
    ]  # what is judged comes first
    rows = found["retrieval"]
    assert rows["layer"].tolist() == [0, 1, 2]
    assert rows["baseline_layer"].tolist() == [0, 2, 4]
    wanted = comparison.adjusted(["layer", "language"]).query("probe == 'retrieval' and model == 'shallow'")
    wanted = wanted[wanted["language"] != "pooled"]
    assert rows["shown"].tolist() == wanted["difference"].tolist()
    assert rows["low"].tolist() == wanted["adjusted_low"].tolist()


def test_no_text_ends_the_script_and_nothing_is_lost(comparison):
    text = str(as_json(comparison, language_maps(comparison)))
    assert "<" not in text
    data = json.loads(text)
    assert "</script>" in [language["name"] for language in data["languages"]]
    table = data["table"]
    assert [table["language"]["names"][c] for c in table["language"]["codes"]] == comparison.table["language"].tolist()
    assert len(table["value"]["codes"]) == len(comparison.table)
    missing = comparison.table["difference"].isna().to_numpy()
    assert [x is None for x in table["difference"]["codes"]] == missing.tolist()


def test_infinities_are_words_in_the_table_and_nothing_in_the_maps(comparison):
    reps = comparison.representations["deep"]
    same = probes.compare({"a": reps, "b": reps}, probes=["signal_to_error"])
    data = json.loads(str(as_json(same, language_maps(same))))
    assert set(data["table"]["value"]["codes"]) == {"Infinity"}
    assert set(data["maps"]["signal_to_error"]["shown"]) == {None}
