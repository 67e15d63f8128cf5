"""Intervals of ratios of sums with long tails: against loops, and where percentiles hold too seldom."""

from dataclasses import replace

import numpy as np
import pytest

import probes
from probes.results.counts import Counts
from probes.results.draws import POOLED, sample, weighted_ratios
from probes.results.ratios import half_widths, of_ratios
from probes.results.result import result

ABOUT = {"probe": "a ratio", "interval": "for the value of a large sample"}


def measured(above, below, draws=200, **given):
    """The ratio of sums of columns (example, column), by percentiles and as it is given here."""
    reps = probes.from_arrays(np.zeros((len(above), 1)), **given)
    drawn = sample(reps, draws=draws, seed=0)
    columns = [weighted_ratios(drawn, above[:, [k]], below[:, k]) for k in range(above.shape[1])]
    whole = {group: np.concatenate([one[group] for one in columns], axis=1) for group in columns[0]}
    out = result(
        reps, drawn, whole, ABOUT, over={"column": np.arange(above.shape[1])}, missing=lambda at, language: "some"
    )
    return drawn, out, of_ratios(out, drawn, above, below)


def test_ends_are_those_of_a_loop_over_draws_in_groups_and_without():
    rng = np.random.default_rng(0)
    above, below = rng.normal(size=(24, 1)) ** 3, 1 + rng.random((24, 1))
    for group in (None, np.arange(24) // 3):
        drawn, out, found = measured(above, below, **({} if group is None else {"group": group.astype(str)}))
        units = drawn.units[drawn.ids]
        a, b = (np.bincount(units, weights=side[:, 0]) for side in (above, below))

        def at(w, a=a, b=b):
            ratio = (w * a).sum() / (w * b).sum()
            return ratio, np.sqrt((w * (a - ratio * b) ** 2).sum()) / (w * b).sum()

        first = np.unique(units, return_index=True)[1]
        value, error = at(np.ones(len(a)))
        far = sorted(abs(at(w[drawn.ids[first]])[0] - value) / at(w[drawn.ids[first]])[1] for w in drawn.weights[1:])
        half = np.quantile(far, 0.95, method="weibull") * error
        one = found.sel(language="und", column=0)
        np.testing.assert_allclose([one.low, one.value, one.high], [value - half, value, value + half])
        np.testing.assert_array_equal(found.draws, out.draws)
        assert found.attrs["interval"].startswith("95% symmetric bootstrap-t interval of 200 bootstrap draws of")


def test_they_hold_where_few_examples_make_most_of_a_sum_and_percentiles_do_not():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 20, 400, 3))
    missed = [np.square(size * z + bent * (z**2 - 1)).sum(axis=2) for z, size, bent in ((x, 1.3, 0.6), (y, 1, 0.4))]
    truth = 3 * (1.3**2 + 2 * 0.6**2 - 1 - 2 * 0.4**2)
    _, plain, found = measured(missed[0] - missed[1], np.ones_like(missed[0]))
    held = [float(((one.low <= truth) & (one.high >= truth)).mean()) for one in (plain, found)]
    assert held[0] < 0.88 < 0.9 < held[1]
    _, plain, found = measured(rng.normal(size=(40, 400)), np.ones((40, 400)))  # no tails: none is wider for it
    assert 0.92 < float(((found.low <= 0) & (found.high >= 0)).mean()) < 0.985
    assert float((found.high - found.low).mean() / (plain.high - plain.low).mean()) == pytest.approx(1.05, abs=0.05)


def test_what_does_not_vary_has_no_width_and_one_group_no_interval():
    ones = np.ones((20, 1))
    _, _, found = measured(0 * ones, ones)
    assert found.low.values.tolist() == found.high.values.tolist() == [[0, 0]]
    rng = np.random.default_rng(2)
    language = np.repeat(["a", "b"], [5, 15])
    group = np.where(language == "a", "one", np.arange(20).astype(str))
    _, _, found = measured(rng.normal(size=(20, 1)), ones, language=language, group=group)
    assert found.low.isnull().sel(column=0).values.tolist() == [True, False, False]
    broken = ones.copy()
    broken[3] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match="a ratio of model arrays has no value at some"):
        _, _, found = measured(broken, ones)
    assert found.low.isnull().all()
    assert found.high.isnull().all()


def test_draws_that_are_no_matrix_give_what_a_matrix_of_them_gives():
    rng = np.random.default_rng(0)
    above, below = rng.normal(size=(30, 2)) ** 2, 1 + rng.random((30, 2))
    drawn = sample(probes.from_arrays(np.zeros((30, 1))), draws=20, seed=0)
    counts = Counts(drawn.units, 20, seed=0)
    found, expected = (
        half_widths(replace(drawn, weights=w), [POOLED], above, below) for w in (counts, counts[:, np.arange(30)])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
