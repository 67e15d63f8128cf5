"""A probe's result: what it says of itself, what is missing, several side by side."""

import numpy as np
import pytest
import xarray as xr
from planted import planted

import probes
from probes.results.result import split_measures, stack_measures


def test_result_says_what_it_is():
    out = probes.snr(planted(np.random.default_rng(0), ids=80))
    assert isinstance(out, xr.Dataset)
    assert {"probe", "estimator", "range", "higher_is", "unchanged_by", "paper", "interval", "model"} <= set(out.attrs)
    assert "200 bootstrap draws" in out.attrs["interval"]


def test_several_results_stand_side_by_side_and_come_apart_as_they_were():
    reps = planted(np.random.default_rng(0), ids=40)
    together = probes.geometry(reps)
    apart = split_measures(together)
    assert list(apart) == together["measure"].values.tolist()
    assert stack_measures(list(apart.values())).identical(together)
    assert apart["norm"].attrs["estimator"] == "mean Euclidean norm"
    alone = probes.snr(reps)
    assert split_measures(alone)["snr"] is alone


def test_what_is_missing_is_said_once_with_all_places_and_no_more_than_can_be_read():
    reps = planted(np.random.default_rng(0), ids=30, layers=30)
    hidden = reps.hidden.values.copy()
    hidden[:, 0] = np.nan
    with pytest.warns(probes.LayerscopeWarning) as caught:
        probes.snr(reps.assign(hidden=(reps.hidden.dims, hidden)))
    (text,) = [str(w.message) for w in caught]
    assert text.startswith("snr of model arrays has no value at layer 0: 1 rows are not finite (l0, pooled); layer 1")
    assert text.endswith("and at 10 more places")
    assert caught[0].filename == __file__
