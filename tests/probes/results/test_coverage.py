"""Do 95 % intervals hold the true value 95 % of the time? Simulated on planted data sets whose true value is known."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from planted import planted
from simulated import AT_ONCE, CASES, PLAIN, SETS, STEEP, coverage, true_values

import probes
from probes.measures import catalogue
from probes.measures.probe import LARGE

OF_CLASSES = [c for c in CASES if c.names[0] in ("class_separability", "snr")]
AT_THIS_SIZE = [
    c
    for c in CASES
    if c.names[0] in ("variability", "retrieval", "margin_retrieval", "alignment_gap") and c.words != STEEP
]


def named(case):
    return f"{case.names[0]}, {case.words}"


@pytest.mark.parametrize("case", OF_CLASSES, ids=named)
def test_intervals_hold_the_value_of_a_large_sample(case):
    # What the value tends to as sentences are added: self pairs and pairs of translations fall out.
    assert catalogue.by_name()[case.names[0]].interval == LARGE
    held = coverage(case).values
    # Never below; above where classes overlap, as the docstrings say.
    assert (held >= 0.90).all(), held
    assert case.words != PLAIN or (held <= 0.98).all(), held


@pytest.mark.parametrize("case", AT_THIS_SIZE, ids=named)
def test_intervals_hold_the_mean_over_data_sets_of_this_size(case):
    held = coverage(case).values
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
    (case,) = (c for c in CASES if c.names == ("variability",) and c.words == PLAIN)
    means = [true_values(replace(case, settings={"distance": d})).sel(measure="variability") for d in (2.5, 3.0)]
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
