"""The share of the largest feature: by hand, planted, and named where it decides cosines."""

import numpy as np
import pytest
from planted import planted

import probes
from probes.measures.space.geometry import geometry
from probes.results.draws import sample


def test_it_is_the_share_of_the_squares_and_its_draws_those_of_sentences():
    reps = planted(np.random.default_rng(0), ids=12, languages=2)
    out = geometry(reps, draws=5, seed=3).sel(measure="largest_feature_share", language="pooled").isel(layer=0)
    drawn, squares = sample(reps, draws=5, seed=3), np.square(reps.hidden[0].values)
    feature = squares.sum(0).argmax()
    for draw in range(6):
        w = drawn.weights[draw, drawn.ids]
        expected = (w @ squares[:, feature]) / (w @ squares.sum(1))
        assert float(out.value if draw == 0 else out.draws[draw - 1]) == pytest.approx(expected)


def test_a_feature_that_decides_cosines_is_named_and_one_that_does_not_is_not():
    x = np.random.default_rng(0).normal(size=(2, 60, 16))
    x[1, :, 3] += 200
    with pytest.warns(
        probes.LayerscopeWarning, match=r"model arrays: layer 1: feature 3 is 100 % of the squared length"
    ):
        out = geometry(probes.from_arrays(x))
    share = out.value.sel(measure="largest_feature_share", language="und")
    assert share.values[0] < 0.15  # close to one in 16
    assert share.values[1] == pytest.approx(200**2 / (200**2 + 16), rel=0.01)
    assert out.attrs["largest_features"].startswith("layer 0: feature ")
    geometry(probes.from_arrays(x[:1]))  # nothing is said: a warning is an error here
