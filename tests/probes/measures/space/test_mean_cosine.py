"""The mean cosine of pairs: all of them, but of translations."""

import numpy as np
import pytest
from filled import falling, gaussian, mean_cosine
from planted import planted

import probes
from probes.measures.space.geometry import geometry


def test_mean_cosine_equals_brute_force_over_all_pairs():
    x = gaussian(falling(8, 1), n=30)
    assert geometry(x)["mean_cosine_of_pairs"] == pytest.approx(mean_cosine(x, np.arange(30)), rel=1e-12)


def test_mean_cosine_of_all_languages_leaves_out_pairs_of_translations():
    reps = planted(np.random.default_rng(0), ids=15, languages=3)
    x, ids = reps.hidden[0].values, reps.id.values
    value = geometry(reps).value.sel(measure="mean_cosine_of_pairs", language="pooled").item()
    assert value == pytest.approx(mean_cosine(x, ids), rel=1e-12)
    assert value != pytest.approx(mean_cosine(x, np.arange(len(x))), rel=0.01)


def test_a_state_of_zeros_has_no_direction_and_the_others_keep_their_values():
    x = gaussian(falling(6, 1), n=40)
    x[3] = 0
    with pytest.warns(probes.LayerscopeWarning, match="mean_cosine_of_pairs .* 1 rows are all zero"):
        value = geometry(probes.from_arrays(x)).value.isel(layer=0).sel(language="pooled")
    assert np.isnan(value.sel(measure="mean_cosine_of_pairs"))
    assert np.isfinite(value.drop_sel(measure="mean_cosine_of_pairs")).all()
