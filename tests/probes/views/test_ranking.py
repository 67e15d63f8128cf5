"""The languages of a verdict as a figure: what is drawn is what the verdict says."""

import judged
import numpy as np
import pytest

from probes.errors import InputError
from probes.results.verdict import verdict
from probes.views.ranking import ranking
from probes.views.reading import read

CODES = ["fra_Latn", "swh_Latn", "arb_Arab"]


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    right = judged.right_answers(rng, 400, 3, 0.9, [([0.0, 0.3, 0.1], 0.01), (0.0, 0.0)])
    return judged.table_of(right, rng, names=CODES)


def test_a_panel_a_model_with_its_languages_most_lost_first(table) -> None:
    found = verdict(table)
    first, second = ranking(found, table).axes
    assert (first.get_title(), second.get_title()) == ("m1: lost", "m2: kept")
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["all together", "French", "Arabic", "Swahili"]  # from below
    drawn = sorted(x for line in first.lines if line.get_marker() in ("o", "D") for x in line.get_xdata())
    wanted = 100 * found.languages.loc[found.languages["model"] == "m1", "difference"]
    assert drawn == pytest.approx(sorted(wanted))


def test_models_come_as_in_the_words_of_the_verdict_the_worst_first() -> None:
    rng = np.random.default_rng(0)
    right = judged.right_answers(rng, 400, 3, 0.9, [(0.0, 0.0), (0.3, 0.01), (0.004, 0.02), (0.2, 0.01)])
    table = judged.table_of(right, rng, names=CODES)
    found = verdict(table)
    said = [one.model for one in read(found, table)[0]]
    assert said == found.order() == ["m2", "m4", "m3", "m1"]
    assert [axis.get_title().split(":")[0] for axis in ranking(found, table).axes] == said


def test_a_language_without_a_value_says_so(table) -> None:
    gone = table.table["model"].eq("m1") & table.table["language"].eq("arb_Arab")
    table.table.loc[gone, "value"] = np.nan
    panel = ranking(verdict(table), table).axes[0]
    assert [text.get_text() for text in panel.texts] == [" no value"]
    assert len(panel.get_yticklabels()) == 4


def test_many_models_have_rows_of_panels() -> None:
    rng = np.random.default_rng(0)
    table = judged.table_of(judged.right_answers(rng, 100, 2, 0.9, [(0.0, 0.01)] * 6), rng)
    assert sum(axis.get_visible() for axis in ranking(verdict(table), table).axes) == 6


def test_what_is_not_judged_is_not_drawn(table) -> None:
    with pytest.raises(InputError, match="probe 'norm' is not judged; judged are 'accuracy'"):
        ranking(verdict(table), table, "norm")
