"""Influence functions against heads trained without a row, planted rows, and what is refused."""

import numpy as np
import pytest

import probes
from probes.measures.attribution.influence import influence


def planted(seed=0, n=90, d=4):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, d)) + 1.5 * np.eye(d)[y], y


def head_without(x, y, i, l2):
    """The head that is trained on all rows but one, whose loss still counts 1 / n of those there were."""
    n, keep = len(x), np.arange(len(x)) != i
    # Of n - 1 rows the mean is larger by n / (n - 1), so the penalty has to be.
    return probes.representers(x[keep], x, labels=y[keep], l2=l2 * n / (n - 1)).logits


def test_it_is_what_a_row_does_to_the_logits_of_a_head_that_is_trained_without_it():
    x, y = planted()
    values = probes.representers(x, x, labels=y, l2=1e-2)
    rows, left_out = np.arange(0, 30), np.arange(0, 90, 9)
    found = influence(values, rows)
    for i in left_out:
        moved = (values.logits - head_without(x, y, i, 1e-2))[rows, values.logits[rows].argmax(1)]
        assert np.corrcoef(found[:, i], moved)[0, 1] > 0.99
        assert found[:, i] == pytest.approx(moved, rel=0.3, abs=1e-2)


def test_rows_of_the_own_class_speak_for_it_and_those_of_shuffled_labels_for_nothing():
    x, y = planted(1, n=300)
    values = probes.representers(x[:240], x[240:], labels=y[:240], l2=1e-2)
    found = influence(values)
    own = y[:240][None] == values.predicted.astype(int)[:, None]
    assert found[own].mean() > 0 > found[~own].mean()
    shuffled = np.random.default_rng(0).permutation(y[:240])
    chance = influence(probes.representers(x[:240], x[240:], labels=shuffled, l2=1e-2), target="1")
    by_truth = [chance[:, y[:240] == c].mean() for c in range(3)]
    assert np.ptp(by_truth) < 0.3 * np.ptp([found[:, y[:240] == c][y[240:] == 1].mean() for c in range(3)])


def test_a_target_is_one_class_and_a_row_without_pull_does_nothing():
    x, y = planted(2)
    values = probes.representers(x, x, labels=y, l2=1e-2)
    every = influence(values, target="2")
    own = values.predicted == "2"
    np.testing.assert_allclose(every[own], influence(values, own), rtol=1e-9)
    values.alpha[5] = 0
    assert (influence(values)[:, 5] == 0).all()


def test_what_is_refused(monkeypatch):
    x, y = planted()
    values = probes.representers(x, x, labels=y)
    with pytest.raises(probes.InputError, match="no class 'z'; there are '0', '1', '2'"):
        influence(values, target="z")
    monkeypatch.setattr("probes.measures.attribution.influence._MOST", 10)
    with pytest.raises(probes.InputError, match="a head of 3 classes by 5 features: expected 10 numbers at most"):
        influence(values)
