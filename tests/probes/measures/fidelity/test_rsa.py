"""RSA of many examples takes some of them."""

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
