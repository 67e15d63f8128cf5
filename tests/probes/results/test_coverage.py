"""Do 95 % intervals hold the true value 95 % of the time? Simulated on planted data sets whose true value is known."""

import numpy as np
import pytest
import xarray as xr
from planted import planted

import probes

# Every layer is a data set of its own; ten share their draws.
SETS, AT_ONCE = 400, 10


def coverage(probe, truth: xr.DataArray, design: dict[str, float], **options: str) -> np.ndarray:
    held = []
    for seed in range(SETS // AT_ONCE):
        rng = np.random.default_rng(1000 + seed)
        out = probe(planted(rng, layers=AT_ONCE, **design), seed=seed, **options)
        held.append((out.low <= truth) & (truth <= out.high))
    return xr.concat(held, "set").mean(["set", "layer"]).values


def mean_over_sets(probe, design: dict[str, float], **options: str) -> xr.DataArray:
    """What the probe is on average in data sets of this size."""
    sets = [planted(np.random.default_rng(s), layers=20, **design) for s in range(30)]
    return xr.concat([probe(x, draws=2, **options).value.mean("layer") for x in sets], "set").mean("set")


@pytest.mark.parametrize("design", [{}, {"decay": 1.0, "features": 32}, {"classes": 6, "ids": 150}])
@pytest.mark.parametrize("probe", [probes.class_separability, probes.snr])
def test_intervals_hold_the_value_of_a_large_sample(probe, design):
    # What the value tends to as sentences are added: self pairs and pairs of translations fall out.
    large = planted(np.random.default_rng(0), layers=4, **(design | {"ids": 3000}))
    held = coverage(probe, probe(large, draws=2).value.mean("layer"), design)
    # Never below; above where classes overlap, as the docstrings say.
    assert (held >= 0.90).all(), held
    assert design or (held <= 0.98).all(), held


@pytest.mark.parametrize("design", [{}, {"decay": 1.0, "features": 32}, {"classes": 6, "ids": 150}])
def test_intervals_of_variability_hold_the_mean_over_data_sets_of_this_size(design):
    held = coverage(probes.variability, mean_over_sets(probes.variability, design), design)
    assert ((held >= 0.90) & (held <= 0.985)).all(), held


@pytest.mark.parametrize("design", [{}, {"shared": 0.5}, {"ids": 60, "features": 12}])
@pytest.mark.parametrize("probe", [probes.retrieval, probes.margin_retrieval, probes.alignment_gap])
def test_intervals_of_alignment_probes_hold_the_mean_over_data_sets_of_this_size(probe, design):
    truth = mean_over_sets(probe, design, pivot="l0")
    held = coverage(probe, truth, design, pivot="l0")
    assert ((held >= 0.90) & (held <= 0.985)).all(), held


@pytest.mark.parametrize("probe", [probes.class_separability, probes.snr])
def test_differences_between_models_hold_their_true_difference(probe):
    # One state of randomness for both: the same sentences, less far apart.
    large = [
        probe(planted(np.random.default_rng(0), ids=1500, layers=16, distance=d), draws=2).value.mean("layer")
        for d in (2.5, 3.0)
    ]
    assert_differences_hold(probe, large[0] - large[1])


def test_differences_of_variability_hold_their_mean_over_data_sets_of_this_size():
    means = [mean_over_sets(probes.variability, {"distance": d}) for d in (2.5, 3.0)]
    assert_differences_hold(probes.variability, means[0] - means[1])


def assert_differences_hold(probe, truth):
    held = []
    for seed in range(SETS // AT_ONCE):
        a, b = (planted(np.random.default_rng(2000 + seed), layers=AT_ONCE, distance=d) for d in (2.5, 3.0))
        out = probes.difference(probe(a, seed=seed), probe(b, seed=seed))
        held.append((out.low <= truth) & (truth <= out.high))
    held = xr.concat(held, "set").mean(["set", "layer"]).values
    assert ((held >= 0.90) & (held <= 0.985)).all(), held


@pytest.mark.parametrize("probe", [probes.class_separability, probes.variability, probes.snr])
def test_p_values_of_equal_models_are_small_no_more_often_than_they_say(probe):
    # Two noisy copies of the same states: no true difference at any layer.
    small = []
    for seed in range(100):
        rng = np.random.default_rng(3000 + seed)
        base = planted(rng, layers=5)
        copies = [base.assign(hidden=base.hidden + 0.5 * rng.normal(size=base.hidden.shape)) for _ in range(2)]
        out = probes.difference(*(probe(c, seed=seed) for c in copies))
        small.append((out.p_adjusted < 0.05).any("layer").values)
    share = np.mean(small, axis=0)
    assert (share <= 0.11).all(), share
