"""Intervals of draws: percentiles, widened where they must hold the value; exact ones of shares."""

import numpy as np
import pytest
from scipy import stats

import probes
from probes.results.intervals import interval, student_factor, widened


def test_interval_is_the_percentile_interval():
    values = np.random.default_rng(0).normal(size=10001)
    low, high = interval(np.array(0.0), values)
    assert (low, high) == (pytest.approx(-1.96, abs=0.05), pytest.approx(1.96, abs=0.05))


def test_interval_is_widened_to_hold_the_value():
    low, high = interval(np.array([5.0, -5.0]), np.random.default_rng(0).normal(size=(1000, 2)))
    assert high[0] == 5.0
    assert low[1] == -5.0


def test_interval_passes_over_missing_draws():
    values = np.r_[np.linspace(0, 1, 200), [np.nan] * 50]
    assert interval(np.array(0.5), values)[1] == pytest.approx(0.975, abs=0.01)
    assert np.isnan(interval(np.array(np.nan), values)).all()


def test_draws_of_classes_are_widened_as_for_a_mean_of_their_means():
    draws = np.r_[0.0, np.random.default_rng(0).normal(size=1000)]
    # One class: Student's t. Several of one size: n - 1 of each. One that is small counts by its part of the variance.
    assert widened(draws, np.array([8]))[1:].std() == pytest.approx(student_factor(8) * draws[1:].std())
    welch = np.sqrt(8 / 7) * stats.t.ppf(0.975, 21) / stats.norm.ppf(0.975)
    assert widened(draws, np.array([8, 8, 8]))[1:].std() == pytest.approx(welch * draws[1:].std())
    uneven = widened(draws, np.array([8, 80, 80]))[1:].std() / draws[1:].std()
    assert widened(draws, np.array([80, 80, 80]))[1:].std() / draws[1:].std() < uneven < student_factor(8)
    assert widened(draws, np.array([8, 80]))[0] == 0


def right_or_wrong(wrong, n=150, alike=1, models=1):
    """Predictions of which some are wrong, those of whole groups first."""
    out = []
    for count in np.broadcast_to(wrong, models):
        logits = np.tile([1.0, 0.0], (n, 1))
        logits[:count] = [0.0, 1.0]
        reps = probes.from_arrays(np.ones((n, 1)), label=["a"] * n)
        if alike > 1:
            reps = reps.assign_coords(group=("example", (np.arange(n) // alike).astype(str)))
        out.append(reps.assign(logits=(("example", "class"), logits)).assign_coords({"class": ["a", "b"]}))
    return out


def accuracy_of(wrong, **given):
    return probes.accuracy(right_or_wrong(wrong, **given)[0]).sel(language="pooled")


@pytest.mark.parametrize("wrong", [0, 1, 5, 40, 75, 149, 150])
def test_a_share_has_the_interval_of_clopper_and_pearson(wrong):
    out = accuracy_of(wrong)
    exact = stats.binomtest(150 - wrong, 150).proportion_ci()
    # The spread of 200 draws is off by a tenth, all the less so the fewer are wrong.
    assert float(out.low) == pytest.approx(exact.low, abs=0.008 * (wrong not in (0, 150)) + 1e-12)
    assert float(out.high) == pytest.approx(exact.high, abs=0.008 * (wrong not in (0, 150)) + 1e-12)


def test_where_none_is_wrong_groups_count_as_sentences_do():
    assert float(accuracy_of(0, n=160, alike=4).low) == pytest.approx(0.025 ** (1 / 40))
    # Whole groups are wrong: as many independent ones as there are groups. Else nearly as many as sentences.
    wide, narrow = accuracy_of(40, n=160, alike=4), accuracy_of(40, n=160)
    assert 1.7 < float((wide.high - wide.low) / (narrow.high - narrow.low)) < 2.3


def test_two_models_that_are_always_right_may_differ_by_what_so_few_sentences_can_show():
    base, other = (probes.accuracy(reps) for reps in right_or_wrong(0, models=2))
    out = probes.difference(other, base).sel(language="pooled")
    # Bonett and Price 2012: one more sentence for either.
    assert float(out.high) == -float(out.low) == pytest.approx(1.96 * np.sqrt(2) / 150, rel=0.03)
    assert out.p == out.p_adjusted == 1


def test_the_difference_of_shares_is_as_sure_as_mcnemar_is():
    for wrong in range(2, 14):  # all on one side
        base, other = (probes.accuracy(reps) for reps in right_or_wrong([0, wrong], models=2))
        out = probes.difference(other, base).sel(language="pooled")
        assert (out.p < 0.05) == (out.high < 0)
        # The exact p of five on one side is 0.06, of six 0.03.
        assert not (out.p < 0.05) or wrong >= 5
        assert (out.p < 0.05) or wrong <= 8


@pytest.mark.parametrize(
    ("n", "shares"), [(60, (0.0, 0.01)), (150, (0.0, 0.004)), (150, (0.01, 0.03)), (150, (0.1, 0.15))]
)
def test_differences_of_shares_hold_the_true_one_also_at_the_ceiling(n, shares):
    rng = np.random.default_rng(0)
    held, widths, gaps = [], [], []
    for _ in range(100):
        # Wrong in the one, in the other, never in both: the difference is the least certain.
        which = np.searchsorted(np.cumsum(shares), rng.random(n), side="right")
        wrong = [(which == k).sum() for k in (0, 1)]
        base, other = right_or_wrong([wrong[0], 0], n=n, models=2)
        logits = np.tile([1.0, 0.0], (n, 1))
        logits[wrong[0] : sum(wrong)] = [0.0, 1.0]
        other = other.assign(logits=(("example", "class"), logits))
        out = probes.difference(probes.accuracy(other), probes.accuracy(base)).sel(language="pooled")
        held.append(bool(out.low <= shares[0] - shares[1] <= out.high))
        widths.append(float(out.high - out.low))
        gaps.append(float(out.difference))
    assert np.mean(held) >= 0.9
    if min(shares) * n > 5:
        assert 0.85 < np.mean(widths) / (2 * 1.96 * np.std(gaps)) < 1.3
