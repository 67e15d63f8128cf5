"""Translations are no further sentences, and some sentences there must be."""

import numpy as np
import pytest
from filled import effective_rank, falling, gaussian, sample_variances
from planted import planted

import probes
from probes.measures.space.geometry import GEOMETRY, geometry


def test_translations_are_no_further_sentences():
    one = gaussian(falling(24, 0.5), n=60)
    same = probes.from_arrays(np.tile(one, (4, 1)), id=np.tile(np.arange(60), 4), language=np.repeat(list("abcd"), 60))
    out = geometry(same).value.isel(layer=0)
    close = ["effective_rank", "intrinsic_dimension"]
    pooled, alone = out.sel(language="pooled"), out.sel(language="a")
    np.testing.assert_allclose(pooled.drop_sel(measure=close), alone.drop_sel(measure=close), rtol=1e-9)
    np.testing.assert_allclose(pooled.sel(measure=close), alone.sel(measure=close), rtol=0.03)
    assert pooled.sel(measure="effective_rank").item() > 1.1 * effective_rank(sample_variances(one))


def test_translations_that_agree_do_not_narrow_the_interval():
    one = gaussian(falling(12, 1), n=60)
    out = geometry(
        probes.from_arrays(np.tile(one, (3, 1)), id=np.tile(np.arange(60), 3), language=np.repeat(list("abc"), 60))
    )
    width = (out.high - out.low).isel(layer=0)
    np.testing.assert_allclose(width.sel(language="pooled"), width.sel(language="a"), rtol=0.05)


def test_too_few_sentences_are_refused_by_name():
    reps = probes.from_arrays(np.eye(9), id=[0, 1, 2, 3, 4, 5, 0, 1, 2], language=["fr"] * 6 + ["sw"] * 3)
    with pytest.raises(probes.InputError, match="language 'sw' has 3 sentences, and needs at least 4"):
        geometry(reps)
    with pytest.raises(probes.InputError, match="needs at least 4"):
        geometry(np.eye(2))


def test_four_sentences_are_enough():
    out = geometry(gaussian(falling(3, 1), n=4))
    assert np.isfinite(list(out.values())).sum() >= 3


def test_languages_of_different_size_are_pooled():
    reps = planted(np.random.default_rng(0), ids=40, languages=3)
    out = geometry(reps.isel(example=np.r_[0:40, 45:70, 80:95]))
    assert np.isfinite(out.value).all()
    assert out.n.sel(language=["l0", "l1", "l2", "pooled"]).values.tolist() == [[40, 25, 15, 80]] * len(GEOMETRY)
