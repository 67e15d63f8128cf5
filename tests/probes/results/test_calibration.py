"""Interval and p from one calibration: they never contradict each other, alone or jointly."""

import numpy as np
import pytest

from probes.results.calibration import calibrated, ends, p_text, stretch
from probes.results.intervals import student_factor


def drawn(rng, cells=60, draws=200, shared=0.7, shift=0.0):
    """Differences whose draws are correlated, as those of layers are; some skew, some draws missing."""
    common = rng.normal(size=draws)
    noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=(cells, draws))
    noise[: cells // 3] = np.expm1(noise[: cells // 3])
    gap = shift + rng.normal(size=cells)
    out = gap[:, None] + 0.3 * rng.normal(size=(cells, 1)) + noise * rng.uniform(0.1, 2, size=(cells, 1))
    return gap, out


def run(gap, draws, family=None, unseen=0.0):
    cells = len(gap)
    family = np.zeros(cells, int) if family is None else family
    return calibrated(gap, draws, np.nanmax(np.abs(draws), axis=1), np.broadcast_to(unseen, cells), family)


def contradictions(out):
    alone = (out.p < 0.05) != ((out.difference_low > 0) | (out.difference_high < 0))
    jointly = (out.p_adjusted < 0.05) != ((out.adjusted_low > 0) | (out.adjusted_high < 0))
    return int(alone.sum() + jointly.sum())


@pytest.mark.parametrize("draws", [2, 19, 20, 39, 50, 199, 200, 2000])
@pytest.mark.parametrize("kind", ["plain", "discrete", "missing", "unseen", "still"])
def test_p_is_below_the_level_if_and_only_if_the_interval_leaves_out_0(draws, kind):
    rejected = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        gap, values = drawn(rng, draws=draws, shift=rng.normal())
        if kind == "discrete":  # as shares are: many ties, also with 0
            gap, values = np.round(gap * 4) / 4, np.round(values * 4) / 4
        if kind == "missing":
            values[rng.random(values.shape) < 0.4 * (draws > 20)] = np.nan
            values[:, 0] = gap
        if kind == "still":
            values[::3] = gap[::3, None]
            values[::6], gap[::6] = 0, 0
        unseen = rng.uniform(0, 0.2, len(gap)) if kind in ("unseen", "still") else 0.0
        out = run(gap, values, rng.integers(0, 5, len(gap)), unseen)
        assert contradictions(out) == 0
        assert (out.p_adjusted >= out.p).all()
        assert ((out.adjusted_low <= out.difference_low) & (out.difference_high <= out.adjusted_high)).all()
        assert ((out.difference_low <= gap) & (gap <= out.difference_high)).all()
        rejected += (out.p_adjusted < 0.05).sum()
    assert (rejected > 0) == (draws >= 20)


def test_alone_it_is_the_share_of_draws_as_far_from_their_middle_as_0():
    rng = np.random.default_rng(0)
    gap, draws = drawn(rng, cells=5)
    out = run(gap, draws, np.arange(5))
    for k in range(5):
        centre = draws[k].mean()
        far = np.abs(draws[k] - centre)
        assert out.p[k] == (1 + (far >= abs(centre)).sum()) / 201
        assert out.difference_high[k] == pytest.approx(max(gap[k], centre + np.sort(far)[-10]))
        assert out.p_adjusted[k] == out.p[k]  # a family of one


def test_jointly_it_is_step_down_max_t():
    rng = np.random.default_rng(1)
    gap, draws = drawn(rng, cells=8, shift=1.5)
    out = run(gap, draws)
    centre, spread = draws.mean(axis=1), draws.std(axis=1)
    t, far = np.abs(centre) / spread, np.abs(draws - centre[:, None]) / spread[:, None]
    largest = far.max(axis=0)
    single = np.array([(1 + (largest >= x).sum()) / 201 for x in t])
    order, before, expected = np.argsort(-t), 0.0, np.empty(8)
    for k, cell in enumerate(order):
        before = max(before, (1 + (far[order[k:]].max(axis=0) >= t[cell]).sum()) / 201)
        expected[cell] = before
    assert (expected < single).any()  # stepping down gains something
    np.testing.assert_allclose(out.p_adjusted, np.where(single < 0.05, expected, np.maximum(expected, 0.05)))
    np.testing.assert_allclose(out.adjusted_low, np.minimum(gap, centre - np.sort(largest)[-10] * spread))


def test_nothing_that_moves_is_certain_and_a_rounding_error_is_none():
    out = run(np.array([0.0, 1.0, 3e-17, 0.5]), np.array([[0.0] * 50, [1.0] * 50, [3e-17] * 50, [0.5 + 1e-9] * 50]))
    assert (out.difference_low[[0, 1]] == [0, 1]).all()
    assert (out.difference_high[[0, 1]] == [0, 1]).all()
    # The scale of the third is its own, so that it counts; a thousandth of a rounding error of it does not.
    assert out.p.tolist()[:2] == [1.0, 1 / 51]
    tiny = calibrated(np.array([3e-17]), np.full((1, 50), 3e-17), np.array([1.0]), np.zeros(1), np.zeros(1, int))
    assert (tiny.p[0], tiny.difference_low[0]) == (1.0, 0.0)


def test_what_may_be_unseen_widens_the_interval_and_is_paid_for_by_each_that_does_not_move():
    still = np.zeros((24, 200))
    one = run(np.zeros(1), still[:1], unseen=0.01)
    assert one.difference_high[0] == pytest.approx(1.96 * 0.1, rel=0.03)
    many = run(np.zeros(24), still, unseen=0.01)
    assert many.difference_high == pytest.approx(one.difference_high[0])
    # The 95 % quantile of the largest of 24 normal distances.
    assert many.adjusted_high == pytest.approx(3.07 * 0.1, rel=0.03)


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_under_the_null_a_family_is_rejected_in_5_percent(shared):
    rng = np.random.default_rng(2)
    rejected, alone = [], []
    for _ in range(1000):
        common = rng.normal(size=(2, 201))
        cells = np.sqrt(shared) * common[0] + np.sqrt(1 - shared) * rng.normal(size=(20, 201))
        # What was seen is one more draw of the same: what it is from lies at 0.
        out = run(cells[:, 0], cells[:, :1] + cells[:, 1:])
        rejected.append((out.p_adjusted < 0.05).any())
        alone.append(out.p[0] < 0.05)
    assert 0.03 < np.mean(rejected) < 0.075
    assert 0.03 < np.mean(alone) < 0.075


def test_few_sentences_are_less_sure_of_a_large_family_than_normal_draws_are():
    rng = np.random.default_rng(4)
    n, cells, factor = 20, 60, student_factor(20)
    rejected = {20.0: [], np.inf: []}
    for _ in range(300):
        x = rng.normal(size=(cells, n))
        spread = x.std(axis=1, keepdims=True) / np.sqrt(n)
        draws = x.mean(axis=1, keepdims=True) + factor * spread * rng.normal(size=(cells, 1000))
        for units, seen in rejected.items():
            found = calibrated(x.mean(axis=1), draws, np.ones(cells), np.zeros(cells), np.zeros(cells, int), units)
            seen.append((found.p_adjusted < 0.05).any())
    assert 0.02 < np.mean(rejected[20.0]) < 0.085
    assert np.mean(rejected[np.inf]) > 0.1


def test_bands_stretch_as_far_as_the_family_asks():
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(13, 2000))
    wider = stretch(draws, np.ones(13), np.zeros(13), np.zeros(13, int))
    # The quantile of the largest of 13 normal distances, over that of one.
    assert wider == pytest.approx(np.full(13, 2.88 / 1.96), rel=0.06)
    assert (stretch(draws, np.ones(13), np.zeros(13), np.arange(13)) == 1).all()


@pytest.mark.parametrize(("draws", "text"), [(200, "< 0.005"), (100, "< 0.01"), (30, "< 0.04"), (2000, "< 0.0005")])
def test_no_p_is_printed_smaller_than_the_draws_allow(draws, text):
    assert p_text(1 / (draws + 1), draws) == text
    assert p_text(2 / (draws + 1), draws) == f"{2 / (draws + 1):.3f}"


def correlated(rng, cells=24, shared=0.5, draws=201):
    return np.sqrt(shared) * rng.normal(size=draws) + np.sqrt(1 - shared) * rng.normal(size=(cells, draws))


@pytest.mark.parametrize("weight", [1.0, 24.0])
def test_each_side_of_the_ends_holds_for_all_at_once_whatever_the_weights(weight):
    rng = np.random.default_rng(5)
    weights, above, below = np.r_[weight, np.ones(24)], [], []
    for _ in range(250):
        x = correlated(rng)
        x = np.concatenate([x.mean(axis=0, keepdims=True), x])  # all together, and each
        low, high = ends(x[:, 0], x[:, :1] + x[:, 1:], np.ones(25), np.zeros(25), weights)
        above.append((low > 0).any())
        below.append((high < 0).any())
    assert 0.02 < np.mean(above) < 0.085
    assert 0.02 < np.mean(below) < 0.085


def test_more_weight_is_a_narrower_interval_at_the_cost_of_all_others():
    x = correlated(np.random.default_rng(6), cells=25, shared=0.0, draws=4000)
    widths = {}
    for weight in (1.0, 24.0):
        low, high = ends(x[:, 0], x, np.ones(25), np.zeros(25), np.r_[weight, np.ones(24)])
        widths[weight] = (high - low) / x.std(axis=1) / 2
    # The normal quantiles of 0.05 over 25, and of half of it in the first and half over 24 in the others.
    assert widths[1.0] == pytest.approx(np.full(25, 2.87), abs=0.12)
    assert widths[24.0][0] == pytest.approx(1.95, abs=0.1)
    assert widths[24.0][1:] == pytest.approx(np.full(24, 3.07), abs=0.15)


def test_the_ends_of_what_does_not_move_are_the_value_itself_or_what_may_be_unseen():
    still = np.full((3, 100), 0.5)
    low, high = ends(still[:, 0], still, np.ones(3), np.zeros(3), np.ones(3))
    assert (low == 0.5).all()
    assert (high == 0.5).all()
    low, high = ends(still[:, 0], still, np.ones(3), np.full(3, 0.01), np.array([2.0, 1.0, 1.0]))
    # The largest of three normal distances, of which 10 % lie farther out on the two sides together.
    assert high == pytest.approx(np.full(3, 0.5 + 0.1 * 2.11), abs=0.01)
    few = ends(np.ones(1), np.random.default_rng(7).normal(1, 0.01, size=(1, 5)), np.ones(1), np.zeros(1), np.ones(1))
    assert few[0] <= 0  # of five draws nothing can be shown
