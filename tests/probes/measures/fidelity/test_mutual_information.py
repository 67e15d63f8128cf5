"""Mutual information by neighbours against Gaussians in closed form, chance, its bias and its interval."""

import numpy as np
import pytest
from alike import mutual_information
from scipy.spatial.distance import cdist
from scipy.special import digamma

import probes
from probes.measures.fidelity.mutual_information import shared_information


def information(x, y):
    return probes.similarity(x, y, measure="mutual_information")


def in_nats(x, y):
    return information(x, y) * (digamma(len(x)) - digamma(3))


def gaussians(rng, n, d, rho):
    x = rng.normal(size=(n, d))
    return x, rho * x + (1 - rho**2) ** 0.5 * rng.normal(size=(n, d))


@pytest.mark.parametrize(("d", "rho"), [(1, 0.0), (1, 0.9)])
def test_it_is_the_estimator_and_near_the_closed_form(d, rho):
    rng = np.random.default_rng(d)
    x, y = gaussians(rng, 300, d, rho)
    assert information(x, y) == pytest.approx(mutual_information(x, y), rel=1e-9)
    truth = -d / 2 * np.log(1 - rho**2)
    found = np.mean([in_nats(*gaussians(rng, 300, d, rho)) for _ in range(20)])
    assert found == pytest.approx(truth, abs=0.08)


def test_it_is_too_small_where_much_is_known_in_many_directions():
    """The bias that the reference page states: below, never above, and at most psi(n) - psi(3)."""
    rng = np.random.default_rng(0)
    for d, rho, share in ((3, 0.6, 0.75), (10, 0.9, 0.28)):
        truth = -d / 2 * np.log(1 - rho**2)
        found = np.mean([in_nats(*gaussians(rng, 200, d, rho)) for _ in range(10)])
        assert found / truth == pytest.approx(share, abs=0.06)
    x = rng.normal(size=(200, 30))
    assert information(x, x) == pytest.approx(1, abs=1e-12)


def test_a_turn_of_either_says_as_much_and_shuffled_rows_say_nothing():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 16)) * np.linspace(2, 0.2, 16)
    y = x + 0.3 * rng.normal(size=x.shape)
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    assert information(x, y) > 0.2
    assert information(4 * x @ turn - 1, y) == pytest.approx(information(x, y), abs=1e-9)
    chance = [information(x, rng.permutation(y)) for _ in range(10)]
    assert abs(np.mean(chance)) < 0.05


def test_what_a_sentence_moves_is_what_leaving_it_out_moves():
    rng, n = np.random.default_rng(4), 40
    x, y = gaussians(rng, n, 3, 0.7)
    x, y = (cdist(z, z) for z in (x, np.round(y, 1)))  # with ties

    def without(i):
        rest = np.delete(np.arange(n), i)
        return shared_information((x[np.ix_(rest, rest)],), (y[np.ix_(rest, rest)],))[0]

    value, moved = shared_information((x,), (y,))
    expected = (n - 1) * (value - np.array([without(i) for i in range(n)]))
    assert moved == pytest.approx(expected - expected.mean(), abs=1e-9)
    assert np.ptp(expected) > 0.1


def test_its_interval_holds_the_mean_over_samples_of_this_size():
    rng, outs = np.random.default_rng(3), []
    for seed in range(60):
        x, y = (probes.from_arrays(z) for z in gaussians(rng, 80, 3, 0.7))
        out = probes.similarity(x, y, measure="mutual_information", draws=100, seed=seed)
        outs.append(out.isel(layer=0, other_layer=0).sel(language="pooled"))
    truth = np.mean([float(out.value) for out in outs])
    assert np.mean([float(out.low) <= truth <= float(out.high) for out in outs]) >= 0.85


def test_many_examples_have_a_value_and_no_interval_and_a_warning_says_so():
    rng = np.random.default_rng(0)
    x, y = (probes.from_arrays(z) for z in gaussians(rng, 201, 3, 0.7))
    said = r"mutual_information of model arrays has no interval at 2 of 2 .*of more than 200 examples .*Take 'cka'"
    with pytest.warns(probes.LayerscopeWarning, match=said):
        out = probes.similarity(x, y, measure="mutual_information")
    assert (out.value > 0).all()
    assert np.isnan(out.low).all()
    assert np.isnan(out.draws).all()
    few = [z.isel(example=slice(200)) for z in (x, y)]
    assert (probes.similarity(*few, measure="mutual_information").low < out.value).all()
    assert probes.similarity(x, measure="mutual_information").low.values == pytest.approx(1)  # the same in every sample


def test_too_few_are_refused():
    with pytest.raises(probes.InputError, match="mutual_information: expected at least 11 examples; found 5"):
        information(np.eye(5), np.eye(5))
