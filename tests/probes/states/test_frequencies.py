"""Bands of the cosine transform: against scipy and by hand, and as a pooling."""

import numpy as np
import pytest
from capturing import capture, make_corpus
from scipy.fft import dct

import probes
from probes.states.frequencies import amplitudes, band_numbers


def test_amplitudes_are_those_of_the_transform_by_its_formula_and_by_scipy():
    rng = np.random.default_rng(0)
    counts = np.array([1, 5, 9, 5])
    x = rng.normal(size=(counts.sum(), 3))
    found = amplitudes(x, counts, 4)
    for text, (stop, n) in enumerate(zip(np.cumsum(counts), counts, strict=True)):
        own = x[stop - n : stop]
        k, t = np.arange(n)[:, None], np.arange(n)
        by_hand = np.sqrt(np.where(k, 2, 1) / n) * np.cos(np.pi * k * (2 * t + 1) / (2 * n)) @ own
        np.testing.assert_allclose(by_hand, dct(own, axis=0, norm="ortho"), atol=1e-12)
        np.testing.assert_allclose(found[text, 0], own.mean(axis=0), atol=1e-12)
        for band in range(1, 4):
            there = band_numbers(n, 4) == band
            np.testing.assert_allclose(found[text, band], np.sqrt(np.square(by_hand[there]).sum(0) / n), atol=1e-12)
        np.testing.assert_allclose(np.square(found[text]).sum(0), np.square(own).mean(0), atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("bands", [2, 3, 6])
def test_bands_rise_from_the_mean_to_the_fastest_and_part_the_rest_evenly(tokens, bands):
    numbers = band_numbers(tokens, bands)
    assert numbers[0] == 0
    assert (np.diff(numbers) >= 0).all()
    assert numbers.max() < bands
    assert (numbers[1:] > 0).all()
    if tokens > 3 * bands:
        assert np.bincount(numbers)[1:].max() - np.bincount(numbers)[1:].min() <= 1


def test_a_band_is_a_pooling_and_the_first_is_the_mean(tmp_path):
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = make_corpus(["The red dog sat on the mat", "a cat", "it"])
    plain = capture(model, tokenizer, corpus, tokens=True, pooling="mean")
    bands = [capture(model, tokenizer, corpus, pooling=probes.Band(k, bands=3), batch_size=2) for k in range(3)]
    np.testing.assert_allclose(bands[0].hidden, plain.hidden, atol=1e-5)
    expected = amplitudes(plain.tokens.values[2], plain.token_count.values, 3)
    for k in range(3):
        np.testing.assert_allclose(bands[k].hidden[2], expected[:, k], atol=1e-5)
    assert "tokens" not in bands[0]
    assert bands[2].attrs["pooling"] == "band(2, 3)"
    assert bands[2].attrs["pooling_means"].endswith("by feature; of tokens")
    stored = capture(model, tokenizer, corpus, pooling=probes.Band(2, bands=3), store=tmp_path / "s.zarr")
    np.testing.assert_allclose(stored.hidden, bands[2].hidden, atol=1e-5)
    with pytest.warns(probes.LayerscopeWarning, match="captured from another model, corpus or settings"):
        capture(model, tokenizer, corpus, pooling=probes.Band(1, bands=3), store=tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 1), "Band: bands=1: expected a whole number, at least 2"),
        ((3, 3), "Band: number=3: expected 0 to 2, one of the 3 bands"),
        ((-1, 3), "Band: number=-1: expected 0 to 2"),
    ],
)
def test_bands_that_are_none_are_refused(given, message):
    with pytest.raises(probes.InputError, match=message):
        probes.Band(*given)
