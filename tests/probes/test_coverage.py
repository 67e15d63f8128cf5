"""Do 95 % intervals hold the true value 95 % of the time? Simulated on planted data sets whose true value is known."""

import numpy as np
import pytest
import xarray as xr
from planted import planted

import probes

# Every layer is a data set of its own; ten share their draws.
SETS, AT_ONCE = 400, 10


def coverage(probe, truth: xr.DataArray, **options: str) -> np.ndarray:
    held = []
    for seed in range(SETS // AT_ONCE):
        rng = np.random.default_rng(1000 + seed)
        out = probe(planted(rng, layers=AT_ONCE), seed=seed, **options)
        held.append((out.low <= truth) & (truth <= out.high))
    return xr.concat(held, "set").mean(["set", "layer"]).values


@pytest.mark.parametrize("probe", [probes.class_separability, probes.variability, probes.snr])
def test_intervals_of_label_probes_hold_the_value_of_a_large_sample(probe):
    # What the value tends to as sentences are added: self pairs, translations and noise in class means fall out.
    rng = np.random.default_rng(0)
    truth = probe(planted(rng, ids=4000, layers=4), draws=2).value.mean("layer")
    held = coverage(probe, truth)
    assert ((held >= 0.90) & (held <= 0.98)).all(), held


@pytest.mark.parametrize("probe", [probes.retrieval, probes.margin_retrieval, probes.alignment_gap])
def test_intervals_of_alignment_probes_hold_the_mean_over_data_sets_of_this_size(probe):
    # Retrieval depends on how many candidates there are, so the true value is the mean over sets of the same size.
    truth = xr.concat(
        [
            probe(planted(np.random.default_rng(s), layers=20), pivot="l0", draws=2).value.mean("layer")
            for s in range(30)
        ],
        "set",
    ).mean("set")
    held = coverage(probe, truth, pivot="l0")
    assert ((held >= 0.90) & (held <= 0.98)).all(), held


@pytest.mark.parametrize("probe", [probes.class_separability, probes.snr, probes.variability])
def test_differences_between_models_hold_their_true_difference(probe):
    # One state of randomness for both: the same sentences, less far apart.
    large = [
        probe(planted(np.random.default_rng(0), ids=1500, layers=16, distance=d), draws=2).value.mean("layer")
        for d in (2.5, 3.0)
    ]
    truth = large[0] - large[1]
    held = []
    for seed in range(SETS // AT_ONCE):
        a, b = (planted(np.random.default_rng(2000 + seed), layers=AT_ONCE, distance=d) for d in (2.5, 3.0))
        out = probes.difference(probe(a, seed=seed), probe(b, seed=seed))
        held.append((out.low <= truth) & (truth <= out.high))
    held = xr.concat(held, "set").mean(["set", "layer"]).values
    assert ((held >= 0.90) & (held <= 0.98)).all(), held


def test_p_values_of_equal_models_are_small_as_often_as_they_say():
    # Two noisy copies of the same states: no true difference at any layer.
    small = []
    for seed in range(150):
        rng = np.random.default_rng(3000 + seed)
        base = planted(rng, layers=5)
        copies = [base.assign(hidden=base.hidden + 0.5 * rng.normal(size=base.hidden.shape)) for _ in range(2)]
        out = probes.difference(*(probes.snr(c, seed=seed) for c in copies))
        small.append((out.p_adjusted < 0.05).any("layer").values)
    share = np.mean(small, axis=0)
    assert (share <= 0.11).all(), share
