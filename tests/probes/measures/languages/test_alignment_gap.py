"""Alignment gap: its value, and pieces of rows."""

import numpy as np
import pytest
from planted import translations

import probes


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
