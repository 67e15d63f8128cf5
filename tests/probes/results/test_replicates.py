"""Replicates of one model: the mean, with draws that vary by sentences and by replicates."""

import numpy as np
import pytest
from calibration.seeds import REPLICATES, SHARES, results_of, row
from scipy.stats import norm, t

import probes
from probes.results.difference import difference
from probes.results.replicates import over_replicates


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


@pytest.mark.parametrize("words", SHARES)
@pytest.mark.parametrize("k", REPLICATES)
def test_intervals_hold_the_mean_over_all_seeds_and_sentences(k, words):
    found = row(k, words, sets=1000)
    assert 0.89 <= found["holds"] <= 0.995
    if k == 10:
        assert 0.9 <= found["width"] <= 1.25


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


def test_shares_that_are_all_right_in_every_replicate_are_not_certain():
    y = np.arange(60) % 2
    logits = 3.0 * np.eye(2)[y]
    reps = probes.from_arrays(np.zeros((60, 2)), label=y).assign(logits=(("example", "class"), logits))
    one = probes.accuracy(reps.assign_coords({"class": ["0", "1"]}))
    out = over_replicates([one, one], "m", seed=0, bounds=(0, 1))
    assert out.value.sel(language="pooled").item() == 1
    assert out.low.sel(language="pooled").item() == pytest.approx(one.low.sel(language="pooled").item())
    assert 0.9 < out.low.sel(language="pooled").item() < 0.96
