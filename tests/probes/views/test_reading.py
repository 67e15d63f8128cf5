"""A verdict in words: what they say is what the numbers say."""

import judged
import numpy as np
import pandas as pd
import pytest

from probes.results.table import Table
from probes.results.verdict import Verdict, verdict
from probes.views.reading import as_change, in_words, read

CODES = ["fra_Latn", "swh_Latn", "arb_Arab"]


def words(losses: list, n: int = 500, names: list[str] = CODES, **settings: object) -> tuple[str, Verdict, Table]:
    rng = np.random.default_rng(0)
    right = judged.right_answers(rng, n, len(names), 0.9, losses)
    table = judged.table_of(right, rng, names=names)
    found = verdict(table, **settings)
    return in_words(found, table), found, table


def test_lost() -> None:
    said, found, _ = words([([0.0, 0.3, 0.1], 0.01)])
    row = found.languages[found.languages["language"] == "swh_Latn"].iloc[0]
    ends = f"[{100 * row['low']:+.0f}, {100 * row['high']:+.0f}]"
    worst = f"Swahili {100 * row['difference']:+.0f} {ends}"
    assert said.startswith(f"m1  LOST         2 of 3 languages lost more than 1 point of accuracy: {worst}, Arabic")


def test_kept_and_for_how_many() -> None:
    assert words([(0.0, 0.0)])[0] == "m1  KEPT         no more than 1 point of accuracy lost: shown for all 3 languages"
    assert words([(0.0, 0.0)], names=["fr"])[0].endswith("shown for the language")


def test_cannot_tell_says_how_many_more_sentences_would() -> None:
    said, found, _ = words([(0.0, 0.02)], n=200)
    assert (
        "m1  CANNOT TELL  no language is shown to lose more than 1 point of accuracy, and 0 of 3 are shown not to"
        in said
    )
    assert "open: " in said
    assert "more sentences a language would settle half of them, if all stays as seen" in said
    assert (found.languages["more"] > 0).all()


def test_the_worst_model_comes_first() -> None:
    said, _, _ = words([(0.0, 0.0), (0.3, 0.01), (0.0, 0.02)])
    assert [line.split()[0] for line in said.splitlines()] == ["m2", "m3", "m1"]


def test_without_a_value() -> None:
    _, _, table = words([(0.0, 0.0)])
    gone = table.table["model"].eq("m1")
    table.table.loc[gone & table.table["language"].eq("arb_Arab"), "value"] = np.nan
    assert "no value: Arabic" in in_words(verdict(table), table)
    table.table.loc[gone, "value"] = np.nan
    assert in_words(verdict(table), table) == "m1  CANNOT TELL  accuracy has no value in any language"


def test_a_baseline_near_the_ceiling_is_a_note() -> None:
    rng = np.random.default_rng(0)
    table = judged.table_of(judged.right_answers(rng, 300, 3, 0.995, [(0.0, 0.001)]), rng)
    _, notes = read(verdict(table), table)
    assert len(notes) == 1
    assert notes[0].startswith("the accuracy of m0 is 0.99")
    assert notes[0].endswith("More sentences, or harder ones, can")
    table.provenance["probes"]["accuracy"]["harder"] = "retrieval_all_languages"
    _, notes = read(verdict(table), table)
    assert notes[0].endswith("or retrieval among all languages (--probes retrieval_all_languages), can")


def test_what_rises_while_the_task_fails_is_said() -> None:
    _, _, table = words([(0.3, 0.01)])
    rising = table.table[table.table["language"] == "pooled"].assign(probe="retrieval", layer=3)
    rising.loc[rising["model"] == "m1", ["adjusted_low", "adjusted_high"]] = [0.1, 0.2]
    about = table.provenance["probes"]["accuracy"] | {"title": "retrieval"}
    table.provenance["probes"]["retrieval"] = about
    table.table = pd.concat([table.table, rising], ignore_index=True)
    said = in_words(verdict(table), table)
    assert "retrieval rose while accuracy fell: the languages became more alike, and less useful for the task" in said


@pytest.mark.parametrize(
    ("value", "share", "text"),
    [(-0.314, True, "-31"), (-0.0996, True, "-10"), (0.0994, True, "+9.9"), (0.0, True, "+0.0"), (-2.5, False, "-2.5")],
)
def test_changes_of_shares_are_told_in_points(value: float, share: bool, text: str) -> None:
    assert as_change(value, share) == text


def test_what_all_languages_together_show_is_said_where_none_alone_does() -> None:
    said, found, _ = words([(0.0, 0.02)], n=1500, names=[f"l{i}" for i in range(12)], tolerance={"accuracy": 0.015})
    assert found.state("m1") == "cannot tell"
    row = found.languages[found.languages["language"] == "pooled"].iloc[0]
    assert row["state"] == "kept"
    change, low, high = (f"{100 * row[k]:+.1f}" for k in ("difference", "low", "high"))
    assert f"; shown not to for all languages together {change} [{low}, {high}]" in said
