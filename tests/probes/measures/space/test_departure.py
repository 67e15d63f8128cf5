"""Departure from the baseline's dynamics: planted layers, damage that is only passed on, intervals, messages."""

from functools import partial

import numpy as np
import pytest

import probes
from probes.measures.probe import Run
from probes.measures.space.departure import DEPARTURE
from probes.measures.space.dynamics import folds_of_units, known_dynamics
from probes.results.draws import sample
from probes.states.representations import states

TURNS = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3, 3)))[0]


def path(rng, count, start=None, added=(0, 0, 0)):
    x = [rng.normal(size=(count, 3)) if start is None else start]
    for turn, size in zip(TURNS, added, strict=True):
        x.append(x[-1] @ turn + size * rng.normal(size=(count, 3)))
    return np.stack(x)


def test_only_the_layer_that_adds_departs():
    rng = np.random.default_rng(0)
    x = path(rng, 400, added=(0.3, 0.3, 0.3))
    y = x.copy()
    off = 0.5 * rng.normal(size=(400, 3))
    y[2] += off
    y[3] += off @ TURNS[2]  # passed on as the baseline does
    base, other = probes.from_arrays(x), probes.from_arrays(y)
    found = probes.departure(base, other)
    one = found.sel(language="pooled")
    size = 0.25 / np.square(x[2] - x[2].mean(axis=0)).mean()
    np.testing.assert_allclose(one.value, [0, size, 0], atol=0.03)
    assert float(one.low.sel(layer=2)) > 0.1
    moved = probes.drift(base, other).value.sel(measure="cosine_to_baseline", language="pooled")
    assert float(moved.sel(layer=3)) < 0.95  # drift sees what was passed on
    assert np.abs(probes.departure(base, base).value).max() == 0


def test_intervals_hold_the_departure_of_other_sentences():
    rng = np.random.default_rng(1)
    x = path(rng, 3000, added=(0.4, 0.4, 0.4))
    y = path(rng, 3000, start=x[0], added=(0.4, 0.7, 0.4))
    held = np.zeros(3)
    for number in range(10):
        at = slice(50 * number, 50 * number + 50)
        base, other = probes.from_arrays(x[:, at]), probes.from_arrays(y[:, at])
        found = probes.departure(base, other, draws=50).sel(language="und")
        sums = np.zeros((2, 3))
        for rows, choosing, _ in folds_of_units(sample(base, draws=50, seed=0), 0):
            known = known_dynamics(partial(states, base), 4, rows, choosing)
            for k in range(3):
                z = [[known.coordinates(j, one[j, 1000:]) for j in (k, k + 1)] for one in (x, y)]
                errors = [np.square(known.step(k, a) - b).mean() for a, b in z]
                sums[:, k] += errors[1] - errors[0], np.square(z[0][1]).mean()
        held += (found.low.values <= sums[0] / sums[1]) & (sums[0] / sums[1] <= found.high.values)
    assert (held >= 7).all()  # of 10; of many see the reference page


def test_what_does_not_fit_is_refused_before_models_run():
    base = probes.from_arrays(np.ones((1, 30, 2)), name="base")
    with pytest.raises(probes.InputError, match="departure: expected at least 1 layer after the embeddings"):
        probes.departure(base, base)
    run = Run(base, sample(probes.from_arrays(np.ones((2, 12, 2))), draws=2, seed=0))
    with pytest.raises(probes.InputError, match="departure: expected at least 20 ids"):
        DEPARTURE.check(run)
