"""Every pair of layers, within one model and between two; layers without a value are named."""

import itertools

import numpy as np
import pytest
from alike import BY_HAND

import probes
from probes.measures.fidelity.similarity import MEASURES, similarity


@pytest.mark.parametrize("measure", MEASURES)
def test_every_pair_of_layers_and_every_language_and_pooled_equal_the_arrays_alone(measure, two):
    base, other = two
    out = similarity(base, other, measure=measure, draws=2)
    assert out.value.dims == ("layer", "other_layer", "language")
    assert dict(out.value.sizes) == {"layer": 3, "other_layer": 2, "language": 3}
    for language in ("l0", "l1", "pooled"):
        rows = base.language.values == language if language != "pooled" else slice(None)
        for i, j in itertools.product(range(3), range(2)):
            x, y = base.hidden.values[i][rows], other.hidden.values[j][rows]
            at = out.sel(layer=i, other_layer=j, language=language)
            assert float(at.value) == pytest.approx(BY_HAND[measure](x, y), abs=1e-9)
            assert at.n == len(x)


@pytest.mark.parametrize("measure", MEASURES)
def test_within_one_model_is_the_same_as_against_a_copy_of_it(measure, two):
    base = two[0]
    within, against = similarity(base, measure=measure), similarity(base, base.copy(), measure=measure)
    # Rounding of the cosine of an angle of 0 is its square root.
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(within[name], against[name], atol=1e-7)
    same = np.einsum("iik->ik", within.value.values)
    np.testing.assert_allclose(same, 0 if MEASURES[measure].kind == "distance" else 1, atol=1e-7)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_constant_layer_and_rows_that_are_not_finite_have_no_value_and_are_named(two, measure):
    base, other = two[0].copy(deep=True), two[1].copy(deep=True)
    base.hidden.values[1] = 0.1 + 0.2
    other.hidden.values[0, 3] = np.inf
    other.hidden.values[0, 5] = np.nan
    with pytest.warns(probes.LayerscopeWarning) as caught:
        out = similarity(base, other, measure=measure)
    text = str(caught[0].message)
    assert "layer 1 of model arrays: all states are equal, so there is nothing to compare (l0, l1, pooled)" in text
    assert "layer 0 of model arrays: 2 rows are not finite (l0, pooled)" in text
    assert np.isnan(out.value.sel(layer=1)).all()
    assert np.isnan(out.value.sel(other_layer=0, language=["l0", "pooled"])).all()
    there = out.sel(layer=[0, 2], other_layer=1)
    assert np.isfinite(there.value).all()
    clean = similarity(two[0], two[1], measure=measure).sel(layer=[0, 2], other_layer=1)
    np.testing.assert_allclose(there.low, clean.low)
