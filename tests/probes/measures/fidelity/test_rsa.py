"""RSA of many examples takes some of them, and ranks ties as ties."""

from dataclasses import replace

import numpy as np
from alike import rsa

import probes
from probes.measures.fidelity.similarity import MEASURES, similarity


def test_rsa_ranks_the_pairs_of_some_of_many_examples(rng, monkeypatch):
    monkeypatch.setitem(MEASURES, "rsa", replace(MEASURES["rsa"], most=30))
    x = rng.normal(size=(80, 5))
    y = x + rng.normal(size=(80, 5))
    out = similarity(probes.from_arrays(x), probes.from_arrays(y), measure="rsa")
    assert (out.n == 30).all()
    assert abs(float(out.value.squeeze()[0]) - rsa(x, y)) < 0.2
    assert similarity(x, y, measure="rsa") == float(out.value.squeeze()[0])
    order = rng.permutation(80)
    shuffled = similarity(*(probes.from_arrays(z[order], id=order) for z in (x, y)), measure="rsa")
    np.testing.assert_allclose(
        shuffled.value, similarity(*(probes.from_arrays(z, id=range(80)) for z in (x, y)), measure="rsa").value
    )


def test_distances_of_copies_are_ties_within_rounding(rng):
    # Three texts, many times each: nearly all distances are one of four.
    x = np.repeat(rng.normal(size=(3, 16)), 12, axis=0).astype(np.float32)
    moved = (x * (1 + 1e-7 * rng.normal(size=x.shape))).astype(np.float32)
    assert similarity(x, moved, measure="rsa") > 1 - 1e-9
    assert rsa(x, moved) < 0.98  # by which of them is the smallest
