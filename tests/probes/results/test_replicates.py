"""Replicates of one model: the mean, with draws that vary by sentences and by replicates."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm, t

import probes
from probes.results.difference import difference
from probes.results.replicates import over_replicates


def results_of(value, draws, **attributes):
    """A result (layer, language) a replicate, of values (replicate, layer) and draws (replicate, draw, layer)."""
    out = []
    for v, d in zip(np.asarray(value, float), np.asarray(draws, float), strict=True):
        found = {"value": (("layer", "language"), v[:, None]), "draws": (("draw", "layer", "language"), d[..., None])}
        found |= {"low": found["value"], "high": found["value"], "n": ("language", [150])}
        coords = {"layer": np.arange(len(v)), "language": ["pooled"]}
        about = {"probe": "norm", "model": "m", "interval": "of draws", "resampling": "x"} | attributes
        out.append(xr.Dataset(found, coords, about))
    return out


def simulated(rng, k, *, seeds, ids, both, draws=200, layers=1):
    """Results of k replicates whose values vary by seed, by sentence, and by both; the truth is 0.

    Each value is a mean over sentences, and its draws spread as a bootstrap's, with an error of their own.
    """
    shared = np.sqrt(ids) * rng.normal(size=layers)
    own = np.sqrt(both) * rng.normal(size=(k, layers))
    value = shared + own + np.sqrt(seeds) * rng.normal(size=(k, layers))
    moved = np.sqrt(ids) * rng.normal(size=(1, draws, layers)) + np.sqrt(both) * rng.normal(size=(k, draws, layers))
    return results_of(value, value[:, None] + moved)


def test_value_spread_and_number_are_those_of_the_replicates():
    value = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    draws = value[:, None] + np.random.default_rng(0).normal(size=(1, 200, 2))
    out = over_replicates(results_of(value, draws), "m", seed=0)
    assert out.value.values.ravel() == pytest.approx(value.mean(axis=0))
    assert out.between.values.ravel() == pytest.approx(value.std(axis=0, ddof=1))
    assert out.replicates == 3
    # Where replicates agree in value and draws, they are one model.
    alone = results_of(value, draws)[0].draws.values[:, 1, 0]
    assert np.allclose(out.draws.values[:, 1, 0], alone)
    assert "3 replicates" in out.attrs["interval"]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_spread_is_that_of_students_t_where_only_replicates_vary(k):
    value = np.random.default_rng(k).normal(size=(k, 1))
    out = over_replicates(results_of(value, np.repeat(value[:, None], 200, axis=1)), "m", seed=0)
    half = t.ppf(0.975, k - 1) * value.std(ddof=1) / np.sqrt(k)
    assert (out.high - out.low).item() / 2 == pytest.approx(half, rel=0.1)
    assert float(out.draws.std()) == pytest.approx(half / norm.ppf(0.975), rel=1e-6)


def test_replicates_are_drawn_alike_in_every_model_and_layer():
    rng = np.random.default_rng(0)
    still = np.zeros((3, 200, 2))
    value = rng.normal(size=(3, 1)) * [1.0, -2.0]
    one = over_replicates(results_of(value, still + value[:, None]), "one", seed=0)
    drawn = one.draws.values[..., 0] - value.mean(axis=0)
    assert np.allclose(drawn[:, 1], -2 * drawn[:, 0])
    # What shifts every replicate by as much as its pair is known without error.
    other = over_replicates(results_of(value + 1, still + value[:, None] + 1), "other", seed=0)
    gap = difference(other, one)
    assert gap.low.values == pytest.approx(1)
    assert gap.high.values == pytest.approx(1)


def test_a_missing_value_is_missing_and_an_infinite_one_stays():
    value = np.array([[1.0, np.inf, np.nan], [2.0, np.inf, 3.0]])
    draws = value[:, None] + np.random.default_rng(0).normal(size=(1, 50, 3))
    out = over_replicates(results_of(value, draws), "m", seed=0)
    assert np.isfinite(out.low.values.ravel()).tolist() == [True, False, False]
    assert np.isinf(out.value.values[1, 0])
    assert np.isnan([out.value.values[2, 0], out.low.values[2, 0], out.high.values[2, 0]]).all()


def test_bounds_hold_the_interval():
    value = np.array([[0.9], [1.0]])
    out = over_replicates(results_of(value, np.repeat(value[:, None], 50, axis=1)), "m", seed=0, bounds=(0, 1))
    assert out.high.item() == 1
    assert out.low.item() > 0


@pytest.mark.parametrize("shares", [(0, 1, 0), (0, 0, 1), (0.3, 1, 1), (3, 1, 1), (1, 0, 0)], ids=str)
@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_intervals_hold_the_mean_over_all_replicates(k, shares):
    rng = np.random.default_rng([k, *(int(10 * s) for s in shares)])
    seeds, ids, both = shares
    out = over_replicates(simulated(rng, k, seeds=seeds, ids=ids, both=both, layers=1500), "m", seed=0)
    held = float(((out.low <= 0) & (out.high >= 0)).mean())
    assert 0.925 <= held <= 0.995
    if k == 10:
        true = np.sqrt(ids + (seeds + both) / k) * 2 * 1.96
        assert 0.9 <= float((out.high - out.low).mean()) / true <= 1.25


def test_replicates_that_differ_in_layers_or_draws_are_refused():
    one, two = results_of([[1.0, 2.0], [1.0, 2.0]], np.zeros((2, 10, 2)))
    with pytest.raises(probes.InputError, match=r"model 'm': replicate 2 has other values of 'layer'.*found \[0\]"):
        over_replicates([one, two.isel(layer=[0])], "m", seed=0)
    with pytest.raises(probes.InputError, match="model 'm': replicate 2 has other draws than the first"):
        over_replicates([one, two.assign_attrs(resampling="y")], "m", seed=0)


def test_a_result_without_draws_has_its_mean_and_no_interval():
    shares = [r.drop_vars("draws") for r in results_of([[0.2, 0.8], [0.4, 0.6]], np.zeros((2, 1, 2)))]
    shares = [r.assign(low=np.nan * r.low, high=np.nan * r.high) for r in shares]
    out = over_replicates(shares, "m", seed=0)
    assert out.value.values.ravel() == pytest.approx([0.3, 0.7])
    assert np.isnan(out.low.values).all()
