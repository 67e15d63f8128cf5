"""Margin retrieval: hubs, margins without a meaning, and too few neighbours."""

import numpy as np
import pytest

import probes


def test_margin_finds_what_a_hub_hides():
    # A sentence that lies close to everything is the cosine neighbour of many, and the margin's of none but its own.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 30))
    y = x + 1.2 * rng.normal(size=x.shape)
    y[0] = 3 * x.mean(axis=0) + 0.2 * x[0]
    assert probes.margin_retrieval(x, y) > probes.retrieval(x, y)


def test_margin_counts_no_match_where_its_scale_is_not_positive():
    angles = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    x = np.column_stack([np.cos(angles), np.sin(angles)])
    # The four nearest of the opposite points have a negative mean cosine for every sentence.
    assert probes.margin_retrieval(x, -0.2 * x) == 0.0


def test_margin_needs_as_many_sentences_as_neighbours():
    reps = probes.from_arrays(np.eye(6), id=[0, 1, 2] * 2, language=np.repeat(["a", "b"], 3))
    with pytest.raises(probes.InputError, match="shares 3 ids with the pivot 'b', and needs at least 4"):
        probes.margin_retrieval(reps, pivot="b")
