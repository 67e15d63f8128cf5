"""Principal axes: of what has none or few, of rounding, and in the large."""

import numpy as np
import pytest
from filled import OF_COVARIANCE, TRUE, falling, gaussian

import probes
from probes.measures.space.geometry import GEOMETRY, geometry


@pytest.mark.parametrize("decay", [0, 0.5, 1, 2])
def test_measures_of_covariance_are_those_of_the_true_one_in_large_samples(decay):
    variances = falling(20, decay)
    out = geometry(gaussian(variances, n=4000))
    for measure in OF_COVARIANCE:
        assert out[measure] == pytest.approx(TRUE[measure](variances), rel=0.05)


def test_states_along_one_line_have_one_dimension():
    rng = np.random.default_rng(0)
    out = geometry(np.outer(rng.normal(size=300), rng.normal(size=12)) + 3.0)
    assert out["effective_rank"] == pytest.approx(1, abs=0.01)
    assert out["participation_ratio"] == pytest.approx(1, abs=0.05)
    assert out["iso_score"] == pytest.approx(0, abs=0.005)
    assert out["intrinsic_dimension"] == pytest.approx(1, abs=0.15)


def test_rounding_is_no_geometry():
    x = np.full((40, 5), 3.0) * (1 + 1e-7 * np.random.default_rng(0).normal(size=(40, 5)))
    with pytest.warns(probes.LayerscopeWarning):
        value = geometry(probes.from_arrays(x)).value
    assert np.isnan(value.sel(measure=[*OF_COVARIANCE, "intrinsic_dimension"])).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_values_at_the_ends_of_float32_do_not_overflow(scale):
    x = gaussian(falling(12, 1), n=60)
    ours, small = geometry(scale * x), geometry(x)
    for measure in GEOMETRY:
        expected = small[measure] * (scale if measure == "norm" else 1)
        assert ours[measure] == pytest.approx(expected, rel=1e-7)
