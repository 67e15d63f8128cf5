"""Class separability against theory, chance and copies; the rest is in test_labels."""

import brute_force
import numpy as np
import pytest
from planted import classes_apart, planted

import probes


def test_labels_that_say_nothing_give_zero_on_average_and_self_pairs_more():
    found, with_self = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(24, 8)), np.arange(24) % 4
        found.append(probes.class_separability(x, y))
        with_self.append(probes.class_separability(x, y, self_pairs=True))
    error = np.std(found) / np.sqrt(60)
    assert abs(np.mean(found)) < 3 * error
    assert np.min(found) < 0
    assert np.mean(with_self) > 0.1


def test_the_value_with_self_pairs_is_the_papers():
    x, y = classes_apart()
    found = probes.class_separability(x, y, self_pairs=True)
    assert found == pytest.approx(brute_force.class_separability_with_self_pairs(x, y), rel=1e-9)
    reps = planted(np.random.default_rng(0), ids=40)
    out = probes.class_separability(reps, self_pairs=True)
    paper = brute_force.class_separability_with_self_pairs(reps.hidden[0].values, reps.label.values)
    assert out.value.sel(language="pooled").item() == pytest.approx(paper, rel=1e-9)
    assert out.attrs["probe"] == "class_separability_with_self_pairs"
    assert (out.value > probes.class_separability(reps).value).all()
    twice = np.concatenate([np.arange(len(y)), np.flatnonzero(y == 0)])
    assert probes.class_separability(x[twice], y[twice], self_pairs=True) == pytest.approx(found, rel=1e-9)


def test_pieces_of_a_corpus_give_the_same_as_all_at_once(monkeypatch):
    reps = planted(np.random.default_rng(0), ids=60, languages=3)
    whole = probes.class_separability(reps)
    monkeypatch.setattr("probes.measures.classes.class_separability.BLOCK", 16)
    pieces = probes.class_separability(reps)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-9)


def test_with_self_pairs_the_interval_knows_that_classes_have_another_size_in_another_sample():
    values, widths = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        y = np.concatenate([np.arange(4).repeat(5), rng.choice(4, p=[0.1, 0.1, 0.4, 0.4], size=60)])
        reps = probes.from_arrays(rng.normal(size=(80, 64)), label=y)
        out = probes.class_separability(reps, self_pairs=True, seed=seed).isel(layer=0, language=-1)
        values.append(float(out.value))
        widths.append(float(out.high - out.low))
    assert 0.9 < np.mean(widths) / (3.92 * np.std(values, ddof=1)) < 1.25
