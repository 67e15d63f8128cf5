"""Alignment gap: its value, and pieces of rows."""

import numpy as np
import pytest
from planted import translations

import probes
from probes.results.draws import sample


def test_is_the_mean_cosine_of_translations_minus_that_of_others():
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    y = np.array([[1.0, 1.0], [0.0, 2.0]])
    half = np.sqrt(0.5)
    assert probes.alignment_gap(x, y) == pytest.approx((half + 1) / 2 - (0 + half) / 2)


def test_blocks_of_rows_give_the_same_gap_as_one(monkeypatch):
    x, y = translations()
    whole = probes.alignment_gap(x, y)
    monkeypatch.setattr("probes.measures.languages.alignment_gap.BLOCK", 7)
    assert probes.alignment_gap(x, y) == pytest.approx(whole, rel=1e-12)


def test_pairs_of_one_group_are_left_out_of_value_and_draws(monkeypatch):
    x, y = translations(n=30)
    group = np.random.default_rng(0).permutation(np.repeat(np.arange(10), [1, 2, 3, 4, 5, 3, 3, 3, 3, 3]))
    reps = probes.from_arrays(
        np.concatenate([x, y]), id=np.r_[:30, :30], language=np.repeat(["a", "b"], 30), group=np.r_[group, group]
    )
    drawn = sample(reps, draws=5, seed=0)
    cosine = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T
    expected = []
    for weights in drawn.weights.astype(float):
        w = weights[drawn.ids[:30]]
        apart = np.outer(w, w) * (group[:, None] != group)
        expected.append((w @ np.diag(cosine)) / w.sum() - (apart * cosine).sum() / apart.sum())
    for block in (7, 1024):
        monkeypatch.setattr("probes.measures.languages.alignment_gap.BLOCK", block)
        found = probes.alignment_gap(reps, pivot="a", draws=5).sel(layer=0, language="b")
        assert found.value.item() == pytest.approx(expected[0])
        assert found.draws.values == pytest.approx(expected[1:])
