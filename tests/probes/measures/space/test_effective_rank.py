"""The effective rank, corrected for few sentences, for lengths and for translations."""

import numpy as np
import pytest
from filled import effective_rank, falling, gaussian, rank_by_quadrature

import probes
from probes.measures.space.geometry import geometry


@pytest.mark.parametrize(("n", "d"), [(60, 20), (45, 40), (300, 16)])
def test_effective_rank_equals_its_integral_by_quadrature(n, d):
    # Uniform, so that the rows differ less in length than normal ones and none of their spread is real.
    x = np.random.default_rng(0).uniform(size=(n, d)) * np.sqrt(falling(d, 0.5))
    assert geometry(x)["effective_rank"] == pytest.approx(rank_by_quadrature(x), rel=1e-6)


def test_effective_rank_is_corrected_for_lengths_that_differ():
    variances = falling(64, 0.5)
    ours = []
    for seed in range(8):
        lengths = np.random.default_rng(100 + seed).lognormal(0, 0.25, size=(150, 1))
        ours.append(geometry(gaussian(variances, n=150, seed=seed, shift=0.0) * lengths)["effective_rank"])
    assert np.mean(ours) == pytest.approx(effective_rank(variances), rel=0.03)


def test_effective_rank_of_loose_translations_is_that_of_many_sentences():
    variances = falling(64, 0.5)
    ours = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sentence = rng.normal(size=(80, 64))
        x = [np.sqrt(0.7) * sentence + np.sqrt(0.3) * rng.normal(size=(80, 64)) for _ in range(5)]
        reps = probes.from_arrays(
            np.concatenate(x) * np.sqrt(variances), id=np.tile(np.arange(80), 5), language=np.repeat(list("abcde"), 80)
        )
        ours.append(geometry(reps, draws=2).value.sel(measure="effective_rank", language="pooled").item())
    assert np.mean(ours) == pytest.approx(effective_rank(variances), rel=0.04)


def test_too_few_sentences_for_the_dimensions_have_no_effective_rank_and_the_reason_is_said():
    reps = probes.from_arrays(gaussian(np.ones(300), n=30))
    with pytest.warns(probes.LayerscopeWarning, match="effective_rank .* 30 sentences are too few for so many dimen"):
        assert np.isnan(geometry(reps).value.sel(measure="effective_rank")).all()
