"""Differences of models: paired, and adjusted over layers."""

import numpy as np
import pytest
from planted import planted

import probes
from probes.results.result import split_measures


def pair(noise=0.3, layers=4, change=0.0, seed=0):
    rng = np.random.default_rng(seed)
    base = planted(rng, ids=80, layers=layers)
    other = base.hidden.values + noise * rng.normal(size=base.hidden.shape)
    other[-1] *= 1 - change * np.eye(16)[:4].sum(axis=0)
    return base, base.assign(hidden=(base.hidden.dims, other)).assign_attrs(model="other")


def test_difference_of_a_model_to_itself_is_zero_and_not_significant():
    base, _ = pair()
    for probe in (probes.snr, probes.variability, probes.class_separability):
        out = probes.difference(probe(base), probe(base))
        assert (out.difference == 0).all()
        assert (out.low == 0).all()
        assert (out.high == 0).all()
        assert (out.p_adjusted == 1).all()


def test_difference_finds_the_layer_that_was_changed():
    base, other = pair(noise=0.05, change=0.3)
    out = probes.difference(probes.snr(other), probes.snr(base)).sel(language="pooled")
    assert out.p_adjusted[-1] == pytest.approx(1 / 201)
    assert out.high[-1] < 0


def test_paired_intervals_are_narrower_than_unpaired_ones():
    base, other = pair(noise=0.1)
    a, b = probes.snr(other), probes.snr(base)
    paired = probes.difference(a, b)
    unpaired = np.hypot(a.high - a.low, b.high - b.low)
    assert ((paired.high - paired.low) < 0.6 * unpaired).all()


def test_adjustment_grows_with_the_number_of_layers():
    base, other = pair(layers=8, noise=1.0, seed=3)
    whole = probes.difference(probes.snr(other), probes.snr(base))
    for layer in range(8):
        alone = probes.difference(*(probes.snr(r.isel(layer=[layer])) for r in (other, base)))
        assert (alone.p_adjusted.squeeze() <= whole.p_adjusted.sel(layer=layer) + 1e-9).all()


def test_only_layers_of_both_models_are_compared():
    base, other = pair()
    out = probes.difference(probes.snr(other.isel(layer=slice(0, 2))), probes.snr(base))
    assert out.layer.values.tolist() == [0, 1]


def test_a_missing_value_has_no_difference_and_leaves_the_other_layers():
    base, other = pair()
    hidden = other.hidden.values.copy()
    hidden[2, 0] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match="layer 2"):
        broken = probes.snr(other.assign(hidden=(other.hidden.dims, hidden)))
    out = probes.difference(broken, probes.snr(base)).sel(language="pooled")
    assert np.isnan(out.p_adjusted.sel(layer=2))
    assert np.isfinite(out.p_adjusted.sel(layer=[0, 1, 3])).all()


@pytest.mark.parametrize("options", [{"seed": 1}, {"draws": 100}])
def test_results_that_are_not_paired_are_refused(options):
    base, other = pair()
    with pytest.raises(probes.InputError, match="come from different ids, groups, seeds or numbers of draws"):
        probes.difference(probes.snr(other, **options), probes.snr(base))


def test_results_of_different_probes_are_refused():
    base, other = pair()
    with pytest.raises(probes.InputError, match="come from different probes"):
        probes.difference(probes.snr(other), probes.variability(base))


def test_differences_of_several_measures_are_those_of_each():
    rng = np.random.default_rng(0)
    base, other = (planted(rng, layers=2) for _ in range(2))
    both = probes.difference(probes.geometry(other), probes.geometry(base))
    assert both.difference.dims == ("measure", "layer", "language")
    one = probes.difference(
        split_measures(probes.geometry(other))["norm"], split_measures(probes.geometry(base))["norm"]
    )
    np.testing.assert_array_equal(both.p_adjusted.sel(measure="norm"), one.p_adjusted)
    with pytest.raises(probes.InputError, match="best_layer has no draws, so no difference"):
        probes.difference(probes.best_layer(base), probes.best_layer(base))
