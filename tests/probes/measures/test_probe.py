"""A declaration: what stands beside numbers, and what a table keeps of it."""

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from declared import PROBE
from planted import planted

from probes.measures.probe import THIS_SIZE, Run
from probes.results.draws import sample


def test_what_is_not_said_is_the_least():
    assert (PROBE.better, PROBE.needs, PROBE.compares, PROBE.default, PROBE.family) == ("", (), False, False, "")
    assert PROBE.bounds == (-np.inf, np.inf)
    assert PROBE.check is None
    assert PROBE.about()["interval"] == PROBE.interval == THIS_SIZE


def test_a_declaration_stays_as_it_is():
    with pytest.raises(FrozenInstanceError):
        PROBE.title = "height"


def test_says_what_stands_beside_its_numbers():
    about = PROBE.about()
    assert set(about) == {"probe", "estimator", "range", "better", "higher_is", "unchanged_by", "paper", "interval"}
    assert about["unchanged_by"] == "shift, order"
    assert all(isinstance(value, str) for value in about.values())


def test_a_table_keeps_what_its_readers_have_to_know_as_strict_json():
    kept = PROBE.for_tables()
    assert (kept["title"], kept["compares"], kept["unchanged"]) == ("depth of the sea", False, None)
    for value in (1.0, 0.0, np.inf):
        kept = replace(PROBE, compares=True, unchanged=value).for_tables()
        assert json.loads(json.dumps(kept, allow_nan=False)) == kept
        assert float(kept["unchanged"]) == value


def test_a_run_knows_the_number_of_its_draws():
    reps = planted(np.random.default_rng(0), ids=10)
    assert Run(reps, sample(reps, draws=7, seed=0)).draws == 7


def test_what_was_computed_once_is_of_these_states_alone():
    reps = planted(np.random.default_rng(0), ids=20)
    run = Run(reps, sample(reps, draws=4, seed=0))
    assert run.once("sum", lambda: 1) == run.once("sum", lambda: 2) == 1
    other = replace(run, reps=reps.assign(hidden=2 * reps.hidden))
    assert other.once("sum", lambda: 2) == 2
    assert run.once("sum", lambda: 3) == 1
    with pytest.raises(ValueError, match="kept"):
        replace(run, kept=run.kept)
