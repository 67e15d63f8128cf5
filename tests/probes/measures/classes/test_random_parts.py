"""SNR of very many texts, by pairs within random parts."""

from importlib import import_module

import numpy as np
import pytest
import xarray as xr

import probes
from probes.results.draws import sample

MODULE, SNR = import_module("probes.measures.classes.random_parts"), import_module("probes.measures.classes.snr")
N = 1200


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(SNR, "MOST", 800)
    monkeypatch.setattr(MODULE, "PART", 200)
    monkeypatch.setattr(MODULE, "_FEW", 10)


def corpus(rng, n=N, rare=0):
    label = np.arange(n) % 3
    label[:rare] = 3
    x = rng.normal(size=(n, 6)) + 1.5 * np.eye(6)[label]
    x = np.concatenate([x, x + 0.1 * rng.normal(size=x.shape)])
    ids, languages = np.tile(np.arange(n), 2), np.repeat(["en", "fr"], n)
    return probes.from_arrays(x[None], id=ids, language=languages, label=np.tile(label, 2))


def test_parts_have_whole_ids_of_all_classes_whatever_the_order(few):
    reps = corpus(np.random.default_rng(0), rare=15)
    drawn = sample(reps, draws=2, seed=0)
    parts = MODULE.random_parts(drawn, np.arange(2 * N))
    assert len(parts) == 12
    rare = drawn.label == 3
    for part in parts:
        assert np.array_equal(np.sort(part % N)[::2], np.sort(part % N)[1::2])  # both translations
        assert (np.bincount(drawn.label[part])[:3] > 50).all()
        assert rare[part].sum() == 30  # all of the small class
    every = np.concatenate([part[~rare[part]] for part in parts])
    assert np.array_equal(np.sort(every), np.flatnonzero(~rare))  # each once
    order = np.random.default_rng(1).permutation(2 * N)
    moved = sample(reps.isel(example=order), draws=2, seed=0)
    for one, other in zip(parts, MODULE.random_parts(moved, np.arange(2 * N)), strict=True):
        assert np.array_equal(one, np.sort(order[other]))


def test_the_value_and_the_interval_are_about_those_of_all_pairs(monkeypatch, few):
    reps = corpus(np.random.default_rng(0), rare=15)
    parted = probes.snr(reps)
    monkeypatch.setattr(SNR, "MOST", 2 * N)
    whole = probes.snr(reps)
    assert "within random parts of about 8,192 texts, whose error is in it (en, fr, pooled)" in parted.attrs["interval"]
    assert "random parts" not in whole.attrs["interval"]
    width = whole.high - whole.low
    assert (abs(parted.value - whole.value) < 0.3 * width).all()
    assert ((parted.high - parted.low) / width).values == pytest.approx(np.ones((1, 3)), abs=0.3)


def test_all_parts_count_however_few_are_in_memory(monkeypatch, few):
    reps = corpus(np.random.default_rng(0), rare=15)
    every = probes.snr(reps, draws=4)
    monkeypatch.setattr(MODULE, "_NUMBERS", 3 * 200 * 6)  # 3 parts of 6 and of 12
    xr.testing.assert_identical(probes.snr(reps, draws=4), every)


def test_intervals_hold_the_value_of_a_large_corpus(few):
    truth = probes.snr(corpus(np.random.default_rng(0), 4000).isel(example=slice(0, 4000)), draws=2)
    truth = float(truth.value.sel(language="pooled")[0])
    held = 0
    for seed in range(1, 31):
        one = probes.snr(corpus(np.random.default_rng(seed)).isel(example=slice(0, N)), draws=100)
        low, high = (float(one[end].sel(language="pooled")[0]) for end in ("low", "high"))
        held += low < truth < high
    assert held >= 25


def test_states_that_are_not_finite_have_no_value(few):
    reps = corpus(np.random.default_rng(0))
    reps.hidden[0, 5, 2] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match="1 rows are not finite"):
        assert np.isnan(probes.snr(reps, draws=2).value.sel(language="pooled")).all()
