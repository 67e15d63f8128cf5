"""Depth as time: what linear maps miss and the network finds, and what neither does; series; messages."""

import warnings
from functools import partial

import numpy as np
import pytest

import probes
from probes.measures.space.dynamics import folds_of_units, known_dynamics
from probes.results.draws import sample
from probes.states.representations import states

LAYERS, FEATURES = 4, 3
TURNS = np.linalg.qr(np.random.default_rng(9).normal(size=(LAYERS - 1, FEATURES, FEATURES)))[0]


def path(rng, count, bent=0.0, noise=0.05):
    """States that turn from layer to layer; the second step may add a square, which no linear map knows."""
    x = [rng.normal(size=(count, FEATURES))]
    for k, turn in enumerate(TURNS):
        added = bent * (k == 1) * (np.square(x[-1][:, :1]) - 1) * np.array([0.0, 1.0, 0.0])
        x.append(x[-1] @ turn + added + noise * rng.normal(size=(count, FEATURES)))
    return np.stack(x)


def pair(bent, seed=0, count=240, changed=None):
    rng = np.random.default_rng(seed)
    x, y = path(rng, count), path(rng, count, bent)
    y += 0.0 if changed is None else changed(y)
    return probes.from_arrays(x, name="base"), probes.from_arrays(y, name="other")


@pytest.fixture(scope="module")
def bent():
    return probes.depth_dynamics(*pair(1.0, count=160), steps=60, progress=False)


def test_the_network_finds_what_a_linear_map_misses(bent):
    one = bent.one_step.sel(language="pooled", layer=2)
    assert float(one.sel(dynamics="linear")) < 0.8
    assert float(one.sel(dynamics="network")) > 0.9
    assert float(bent.value.sel(dynamics="network", horizon=3, language="pooled")) > 0.1 + float(
        bent.value.sel(dynamics="linear", horizon=3, language="pooled")
    )
    # The baseline's last map once more is no prediction: layers turn otherwise.
    assert (bent.value.sel(dynamics="copied") < bent.value.sel(dynamics="known")).all()


def test_it_says_where_the_model_leaves_the_known_dynamics(bent):
    assert bent.leaves.values.tolist() == [2.0, 2.0]
    apart = bent.departure.sel(language="pooled")
    assert float(apart.sel(layer=2)) > 10 * float(np.abs(apart.sel(layer=[1, 3])).max())


def test_where_nothing_is_added_nothing_is_found():
    found = probes.depth_dynamics(*pair(0.0), steps=10, progress=False)
    known, network = (found.value.sel(dynamics=k, language="pooled") for k in ("known", "network"))
    np.testing.assert_allclose(network, known, atol=0.003)
    assert float(known[0]) > 0.99
    assert np.isnan(found.leaves).all()


def test_known_shares_are_those_of_a_loop_over_held_out_rows():
    base, other = pair(1.0, count=60)
    found = probes.depth_dynamics(base, other, steps=0, progress=False)
    drawn = sample(base, draws=200, seed=0)
    missed, whole = np.zeros(3), np.zeros(3)
    for rows, choosing, test in folds_of_units(drawn, 0):
        known = known_dynamics(partial(states, base), LAYERS, rows, choosing)
        z = [known.coordinates(k, states(other, k, slice(None))) for k in range(LAYERS)]
        for start in range(LAYERS - 1):
            for row in test:
                at = z[start][row]
                for k in range(start, LAYERS - 1):
                    at = at + at @ known.maps[k, :-1] + known.maps[k, -1]
                    missed[k - start] += ((at - z[k + 1][row]) ** 2).sum()
                    whole[k - start] += ((z[k + 1][row] - z[k + 1][rows].mean(axis=0)) ** 2).sum()
    np.testing.assert_allclose(found.value.sel(dynamics="known", language="und"), 1 - missed / whole, atol=1e-5)


def test_a_series_is_learned_as_it_comes_in():
    rng = np.random.default_rng(0)
    x = path(rng, 160)
    off = x[1] @ rng.normal(size=(3, 3))
    parts = np.array([0, 0, 1.0, 1.0])[:, None, None] * off
    series = [probes.from_arrays(x + share * parts, name="c") for share in (0.2, 1.0, 1.0)]
    found = probes.depth_dynamics(probes.from_arrays(x), series, steps=0, draws=50, progress=False)
    assert found.value.dims == ("checkpoint", "dynamics", "horizon", "language")
    ahead = found.ahead.sel(language="pooled").values
    known = found.one_step.sel(dynamics="known", language="pooled").mean("layer").values
    assert ahead[0] == pytest.approx(known[0], abs=0.01)  # nothing has been learned yet
    assert ahead[1] < ahead[2] > 0.9 > known[1]
    assert found.needed.values.tolist() == [2.0, 2.0]
    assert (found.needed_low <= found.needed).all()
    assert (found.needed <= found.needed_high).all()
    with pytest.warns(probes.LayerscopeWarning, match="cannot be told from nothing"):
        same = probes.depth_dynamics(
            probes.from_arrays(x), {"a": series[0].copy(data={"hidden": x}), "b": series[0].copy(data={"hidden": x})},
            steps=0, draws=20, progress=False,
        )  # fmt: skip
    assert np.isnan(same.needed).all()
    assert list(same.checkpoint.values) == ["a", "b"]


def test_intervals_hold_the_shares_of_other_sentences():
    rng = np.random.default_rng(1)
    x, y = path(rng, 4000, noise=0.5), path(rng, 4000, 0.5, noise=0.5)
    held, count = 0, 8
    for number in range(count):
        at = slice(60 * number, 60 * number + 60)
        base, other = probes.from_arrays(x[:, at]), probes.from_arrays(y[:, at])
        found = probes.depth_dynamics(base, other, steps=0, draws=50, progress=False)
        truths = []
        for rows, choosing, _ in folds_of_units(sample(base, draws=50, seed=0), 0):
            known = known_dynamics(partial(states, base), LAYERS, rows, choosing)
            z = [known.coordinates(k, y[k, 1000:]) for k in range(LAYERS)]
            own = [known.coordinates(k, y[k, at][rows]).mean(axis=0) for k in range(LAYERS)]
            missed = sum(np.square(known.step(k, z[k]) - z[k + 1]).sum() for k in range(LAYERS - 1))
            truths.append([missed, sum(np.square(z[k + 1] - own[k + 1]).sum() for k in range(LAYERS - 1))])
        truth = 1 - np.sum(truths, axis=0)[0] / np.sum(truths, axis=0)[1]
        one = found.sel(dynamics="known", horizon=1, language="und")
        held += bool(one.low <= truth <= one.high)
    assert held >= 6  # of 8; of many see the reference page


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"look_ahead": 0}, "look_ahead=0: expected a whole number, at least 1"),
        ({"steps": -1}, "steps=-1: expected a whole number, at least 0"),
        ({"others": []}, "expected Representations, or several of them in the order of training; found list"),
        ({"nan": 1}, "layer 1 of model 'other': 1 rows are not finite"),
        ({"flat": 0}, "layer 0 of model 'other': all states are equal, and a path through it cannot be followed"),
    ],
)
def test_what_cannot_be_used_is_refused(how, says):
    base, other = pair(0.0, count=40)
    if "nan" in how:
        other["hidden"][how.pop("nan"), 3, 0] = np.nan
    if "flat" in how:
        other["hidden"][how.pop("flat")] = 2.0
    others = how.pop("others", other)
    with pytest.raises(probes.InputError, match=says):
        probes.depth_dynamics(base, others, progress=False, **how)


def test_nothing_depends_on_order():
    base, other = pair(1.0, count=40)
    order = np.random.default_rng(0).permutation(40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = probes.depth_dynamics(base, other, steps=0, progress=False)
        two = probes.depth_dynamics(base.isel(example=order), other.isel(example=order[::-1]), steps=0, progress=False)
    np.testing.assert_allclose(one.value, two.value, atol=1e-5)
    np.testing.assert_allclose(one.departure, two.departure, atol=1e-9)
