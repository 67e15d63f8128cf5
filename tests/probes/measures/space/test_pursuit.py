"""Binary codes: planted ones come back, the objective never rises, small cases against all there are."""

from itertools import combinations

import numpy as np
import pytest

from probes.measures.space.pursuit import centred, coded, halves, left_over, pursue


def planted(k, seed, noise, n=120, features=20):
    rng = np.random.default_rng(seed)
    codes = rng.random((n, k)) < rng.uniform(0.2, 0.5, k)
    x = codes @ rng.normal(size=(k, features))
    return codes, x + noise * x.std() * rng.normal(size=x.shape)


def as_set(codes):
    """Up to order and complement."""
    return {np.where(one[0], ~one, one).tobytes() for one in codes.T}


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("k", [2, 4, 6])
def test_planted_codes_come_back(k, noise):
    for seed in range(4):
        codes, x = planted(k, seed, noise)
        found = pursue(x @ x.T, k, np.random.default_rng(seed))
        assert as_set(found.bits) == as_set(codes)


@pytest.mark.parametrize("k", [3, 12])  # all combinations of bits, and single flips
def test_what_is_left_never_rises_and_is_that_of_least_squares(k):
    x = np.random.default_rng(0).normal(size=(60, 15)) + 3
    found = pursue(x @ x.T, k, np.random.default_rng(0))
    assert all(after <= before for before, after in zip(found.left, found.left[1:], strict=False))
    assert len(found.left) > k + 1  # more than choosing: exchanges or flips
    design = np.column_stack([np.ones(60), found.bits])
    missed = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
    assert found.left[-1] == pytest.approx(np.square(missed).sum() / np.square(x - x.mean(axis=0)).sum(), rel=1e-9)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    assert found.left[-1] >= values[k:].sum() / values.sum()


def test_small_cases_come_near_the_best_of_all_codes():
    every = (np.arange(1, 32)[:, None] >> np.arange(5) & 1).astype(bool).T
    every = np.vstack([np.zeros((1, 31), bool), every])  # 6 rows, up to the complement
    best, found = [], []
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=(6, 4))
        gram = centred(x @ x.T)
        best.append(min(left_over(gram, every[:, pair]) for pair in map(list, combinations(range(31), 2))))
        found.append(pursue(gram, 2, np.random.default_rng(0)).left[-1])
    assert (np.array(found) >= np.array(best) - 1e-9).all()
    assert np.mean(np.array(found) - best) < 0.03


def test_halves_are_the_best_two_means():
    y = np.random.default_rng(0).normal(size=(9, 5))
    y -= y.mean(axis=0)
    for column, found in zip(y.T, halves(y).T, strict=True):
        splits = [column > cut for cut in np.sort(column)[:-1]]
        within = [sum(np.square(column[s] - column[s].mean()).sum() for s in (one, ~one)) for one in splits]
        assert np.array_equal(found, splits[int(np.argmin(within))])


def test_bits_are_the_best_of_all_combinations_and_flips_leave_none_that_is_better():
    rng = np.random.default_rng(0)
    features, x = rng.normal(size=(11, 15)), rng.normal(size=(20, 15)) * 3
    every = (np.arange(2**11)[:, None] >> np.arange(11) & 1).astype(bool)

    def missed(rows, bits, w):
        return np.square(rows[:, None] - bits[None] @ w).sum(axis=2)

    few = features[:4]
    found = coded(x @ few.T, few @ few.T, np.zeros((20, 4), bool))
    cost = missed(x, every[:16, :4], few)
    np.testing.assert_array_equal(found, every[cost.argmin(axis=1), :4])
    found = coded(x @ features.T, features @ features.T, np.zeros((20, 11), bool))
    for row, bits in zip(x, found, strict=True):
        costs = missed(row[None], np.vstack([bits, bits ^ np.eye(11, dtype=bool)]), features)[0]
        assert costs.argmin() == 0
        assert costs[0] <= missed(row[None], np.zeros((1, 11), bool), features)[0, 0]


def test_fewer_codes_where_more_explain_nothing_and_large_ones_by_other_means(monkeypatch):
    codes, x = planted(2, 0, 0.0)
    found = pursue(x @ x.T, 5, np.random.default_rng(0))
    assert as_set(found.bits) == as_set(codes)
    monkeypatch.setattr("probes.measures.space.pursuit._LARGE", 10)
    codes, x = planted(3, 1, 0.1)
    assert as_set(pursue(x @ x.T, 3, np.random.default_rng(0)).bits) == as_set(codes)
