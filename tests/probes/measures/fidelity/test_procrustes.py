"""The Procrustes distance is one."""

import numpy as np
import pytest

from probes.measures.fidelity.procrustes import angle, unit_scores
from probes.measures.fidelity.similarity import similarity


def test_the_distance_keeps_the_triangle_inequality(rng):
    x = [rng.normal(size=(20, int(rng.integers(2, 12)))) for _ in range(12)]
    x += [z[:, : max(1, z.shape[1] // 2)] + 0.1 * rng.normal(size=(20, max(1, z.shape[1] // 2))) for z in x]
    d = np.array([[similarity(a, b, measure="procrustes") for a in x] for b in x])
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-7).all()
    # One minus CKA is no metric: this is not true of every function.
    s = 1 - np.array([[similarity(a, b) for a in x] for b in x])
    assert not (s[:, None, :] <= s[:, :, None] + s[None, :, :] + 1e-7).all()


@pytest.mark.parametrize(("n", "widths", "exact"), [(40, (60, 60), 0.1), (40, (60, 12), 0.2), (200, (6, 9), 0.02)])
def test_an_example_moves_the_angle_as_leaving_it_out_does(rng, n, widths, exact):
    hidden = rng.normal(size=(n, 60)) / np.sqrt(np.arange(1, 61))
    x, y = (hidden[:, :w] + 0.3 * rng.normal(size=(n, w)) for w in widths)

    def found(x, y):
        return angle(*(unit_scores(z - z.mean(axis=0)) for z in (x, y)))

    value, moved = found(x, y)
    left_out = np.array([(n - 1) * (value - found(np.delete(x, i, 0), np.delete(y, i, 0))[0]) for i in range(n)])
    assert abs(moved.std() / left_out.std() - 1) < exact
    assert np.corrcoef(moved, left_out)[0, 1] > 0.9
    assert abs(moved.sum()) < 1e-8


def test_models_that_do_not_differ_are_told_apart_in_few_corpora(rng):
    """Fewer sentences than features, models that change places by a coin: with the rotation held, in 25 of 100."""
    found = []
    for _ in range(120):
        x = rng.normal(size=(40, 64))
        near, far = (x + s * rng.normal(size=x.shape) for s in (0.1, 0.5))
        coin = rng.random((40, 1)) < 0.5
        (a, f), (b, g) = (
            angle(*(unit_scores(z - z.mean(axis=0)) for z in (x, y)))
            for y in (np.where(coin, near, far), np.where(coin, far, near))
        )
        found.append(abs(a - b) > 1.96 * np.std(f - g) / np.sqrt(len(x)))
    assert np.mean(found) < 0.14
