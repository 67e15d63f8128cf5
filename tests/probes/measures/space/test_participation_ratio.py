"""The participation ratio and IsoScore against means over all choices of rows."""

import numpy as np
import pytest
from filled import falling, gaussian, iso_score, participation_ratio, ratio_of_distinct
from planted import planted

from probes.measures.space.geometry import geometry


@pytest.mark.parametrize("d", [3, 12])
def test_participation_ratio_equals_the_mean_over_all_fours_of_rows(d):
    x = gaussian(falling(d, 1), n=9)
    assert geometry(x)["participation_ratio"] == pytest.approx(ratio_of_distinct(x, np.arange(9)), rel=1e-9)


@pytest.mark.filterwarnings("ignore:effective_rank")  # of 5 sentences there is none
@pytest.mark.parametrize("features", [3, 20])
def test_participation_ratio_of_all_languages_takes_fours_of_different_sentences(features):
    reps = planted(np.random.default_rng(0), ids=5, languages=2, features=features, classes=2)
    x, ids = reps.hidden[0].values, reps.id.values
    value = geometry(reps).value.sel(measure="participation_ratio", language="pooled").item()
    assert value == pytest.approx(ratio_of_distinct(x, ids), rel=1e-9)


def test_iso_score_is_that_of_the_participation_ratio():
    for variances in (falling(6, 0.5), falling(30, 2), np.r_[1.0, np.zeros(9)], np.ones(7)):
        expected = (participation_ratio(variances) - 1) / (len(variances) - 1)
        assert iso_score(variances) == pytest.approx(expected, abs=1e-12)
    out = geometry(gaussian(falling(6, 0.5)))
    assert out["iso_score"] == pytest.approx((out["participation_ratio"] - 1) / 5, rel=1e-12)
