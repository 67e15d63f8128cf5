"""The Procrustes distance is one."""

import numpy as np

from probes.measures.fidelity.similarity import similarity


def test_the_distance_keeps_the_triangle_inequality(rng):
    x = [rng.normal(size=(20, int(rng.integers(2, 12)))) for _ in range(12)]
    x += [z[:, : max(1, z.shape[1] // 2)] + 0.1 * rng.normal(size=(20, max(1, z.shape[1] // 2))) for z in x]
    d = np.array([[similarity(a, b, measure="procrustes") for a in x] for b in x])
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-7).all()
    # One minus CKA is no metric: this is not true of every function.
    s = 1 - np.array([[similarity(a, b) for a in x] for b in x])
    assert not (s[:, None, :] <= s[:, :, None] + s[None, :, :] + 1e-7).all()
