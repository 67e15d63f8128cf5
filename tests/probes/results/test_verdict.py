"""Lost, kept or cannot tell: on made comparisons whose losses are known."""

import math

import judged
import numpy as np
import pandas as pd
import pytest

import probes
from probes.errors import InputError
from probes.results.draws import POOLED
from probes.results.verdict import sentences_needed, states_of, verdict


def compared(seed: int, losses: list, n: int = 500, languages: int = 24, share: float = 0.9) -> judged.Table:
    rng = np.random.default_rng(seed)
    return judged.table_of(judged.right_answers(rng, n, languages, share, losses), rng)


def test_a_state_says_on_which_side_of_the_tolerance_an_interval_lies() -> None:
    low = np.array([-0.05, -0.03, -0.01, -0.004, 0.0, 0.02, np.nan])
    high = np.array([-0.02, 0.01, 0.01, 0.02, 0.0, 0.03, np.nan])
    gap = np.array([-0.03, -0.01, 0.0, 0.01, 0.0, 0.025, np.nan])
    wanted = ["lost", "cannot tell", "kept", "not lost", "kept", "gained", "no value"]
    assert states_of(gap, low, high, np.full(7, 0.01)).tolist() == wanted


def test_so_many_more_sentences_make_the_interval_as_narrow_as_it_has_to_be() -> None:
    gap, half, n, tolerance = np.array([0.0, -0.03, -0.01]), np.array([0.02, 0.04, 0.01]), 200.0, 0.01
    more = sentences_needed(gap, gap - half, gap + half, np.full(3, tolerance), np.full(3, n))
    assert more.tolist() == pytest.approx([600, 600, math.inf], abs=1)
    narrowed = half[:2] * np.sqrt(n / (n + more[:2]))
    assert states_of(gap[:2], gap[:2] - narrowed, gap[:2] + narrowed, np.full(2, 0.01 + 1e-12)).tolist() == [
        "kept",
        "lost",
    ]


def test_a_planted_loss_is_found_in_its_language_and_nothing_beside_it() -> None:
    loss = np.zeros(6)
    loss[4] = 0.3
    found = verdict(compared(0, [(loss, 0.01), (0.0, 0.01)], languages=6))
    assert found.state("m1") == "lost"
    assert found.state("m2") == "cannot tell"
    lost = found.languages[found.languages["state"] == "lost"]
    assert set(lost["language"]) == {"language 4", POOLED}
    first = found.languages.iloc[0]
    assert (first["model"], first["language"]) == ("m1", "language 4")
    assert first["low"] < -0.3 < first["high"]


def test_two_models_that_are_one_are_kept_for_certain() -> None:
    found = verdict(compared(0, [(0.0, 0.0)], languages=3))
    assert found.state("m1") == "kept"
    assert found.languages["difference"].eq(0).all()


def test_gains_stand_beside_losses_under_their_own_name() -> None:
    change = np.array([0.2, -0.09, 0.0])
    rng = np.random.default_rng(2)
    right = judged.right_answers(rng, 600, 3, 0.5, [(0.0, 0.0)])
    luck = rng.random(size=right[1].shape)
    right[1] = np.where(right[1], luck >= np.maximum(change, 0) / 0.5, luck < np.maximum(-change, 0) / 0.5)
    states = verdict(judged.table_of(right, rng)).languages.set_index("language")["state"]
    assert states[["language 0", "language 1", "language 2"]].tolist() == ["lost", "gained", "kept"]


def test_where_nothing_has_changed_nothing_is_lost_beyond_one_in_twenty() -> None:
    """Even with nothing tolerated, and with 24 languages of two models that are looked at."""
    runs = 40
    lost = kept = 0
    for seed in range(runs):
        found = verdict(compared(seed, [(0.0, 0.03), (0.0, 0.03)], n=200), tolerance={"accuracy": 0.0})
        lost += "lost" in {found.state("m1"), found.state("m2")}
        kept += "kept" in {found.state("m1"), found.state("m2")}
    assert lost <= 6  # 5 % of 40 are 2; more than 6 in 0.3 % of such studies
    assert kept == 0


def test_a_loss_of_twice_the_tolerance_is_found_and_one_beyond_it_is_never_kept() -> None:
    far = [verdict(compared(seed, [(0.06, 0.02)]), tolerance={"accuracy": 0.03}).state("m1") for seed in range(10)]
    near = [verdict(compared(seed, [(0.012, 0.002)])).state("m1") for seed in range(10)]
    assert far.count("lost") >= 9
    assert "kept" not in near


def test_a_lower_number_may_be_the_better_one() -> None:
    table = compared(0, [(0.2, 0.01)], languages=3)
    table.table["value"] *= -1
    table.draws["draws"] *= -1
    table.provenance["probes"]["accuracy"]["better"] = "lower"
    found = verdict(table)
    assert found.state("m1") == "lost"
    assert (found.languages["difference"] < 0).all()


def test_without_a_value_one_cannot_tell() -> None:
    table = compared(0, [(0.0, 0.0)], languages=3)
    table.table.loc[table.table["model"].eq("m1") & table.table["language"].eq("language 1"), "value"] = np.nan
    found = verdict(table)
    assert found.state("m1") == "cannot tell"
    assert found.languages.set_index("language")["state"]["language 1"] == "no value"


def test_at_the_last_layer_of_each() -> None:
    """A shallow model is held against the last layer of the deep one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 80, 8))
    pairs = np.stack([x[0], x[0] + 0.1 * x[1]]).reshape(160, 8)
    noise = rng.normal(size=(160, 8))
    about = {"id": np.tile(np.arange(80), 2), "language": np.repeat(["en", "fr"], 80)}
    deep = probes.from_arrays(np.stack([noise, noise, pairs]), **about)
    shallow = probes.from_arrays(np.stack([noise, pairs]), **about)
    comparison = probes.compare(
        {"deep": deep, "shallow": shallow, "broken": deep.isel(layer=[0, 1])}, pivot="en", probes=["retrieval"]
    )
    found = verdict(comparison)
    assert found.state("shallow") == "cannot tell"  # all right by both, of 80 sentences: a loss of 0.01 may hide
    assert found.state("broken") == "lost"
    assert found.models.set_index("model").loc["shallow", ["layer", "baseline_layer"]].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"judge": []}, "there is nothing to judge by: expected accuracy"),
        ({"judge": ["nothing"]}, "probe 'nothing' was not measured"),
        ({"tolerance": {"nothing": 0.1}}, "probe 'nothing' was not measured"),
        ({"tolerance": {"accuracy": -1}}, "tolerance of accuracy: expected a number of at least 0, found -1"),
        ({"tolerance": {"accuracy": math.nan}}, "tolerance of accuracy: expected a number of at least 0, found nan"),
    ],
)
def test_what_cannot_be_judged_is_said(settings: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        verdict(compared(0, [(0.0, 0.0)], languages=2), **settings)


def test_a_measure_without_a_tolerance_asks_for_one() -> None:
    table = compared(0, [(0.0, 0.01)], languages=2)
    table.provenance["probes"]["accuracy"]["tolerance"] = None
    with pytest.raises(InputError, match="there is nothing to judge by"):
        verdict(table)
    with pytest.raises(InputError, match=r"accuracy has no tolerance of its own: .* tolerance=\{'accuracy': ...\}"):
        verdict(table, judge=["accuracy"])
    assert verdict(table, tolerance={"accuracy": 0.2}).state("m1") == "kept"


def test_one_model_is_not_judged() -> None:
    with pytest.raises(InputError, match="only one model was measured"):
        verdict(compared(0, [], languages=2))


def test_the_base_near_the_ceiling_is_said() -> None:
    assert verdict(compared(0, [(0.0, 0.001)], share=0.995)).models["ceiling"].all()
    assert not verdict(compared(0, [(0.0, 0.001)])).models["ceiling"].any()


def test_all_intervals_are_wider_than_each_alone() -> None:
    one = verdict(compared(3, [(0.0, 0.05)], languages=1)).languages
    every = verdict(compared(3, [(0.0, 0.05)], languages=24)).languages
    width = [(frame["high"] - frame["low"])[frame["language"] != POOLED].mean() for frame in (one, every)]
    assert width[1] > 1.2 * width[0]
    assert isinstance(one, pd.DataFrame)
