import numpy as np
import pytest

from probes.measures.classes.binning import Grids, binned, grids, hashed


def shares(distances, drawn):
    """How often two rows meet that lie so far apart along the first feature."""
    rows = np.zeros((1 + len(distances), drawn.density.shape[1]))
    rows[1:, 0] = distances
    bins = hashed(rows + 0.3, drawn)
    return (bins[1:] == bins[0]).mean(axis=1)


def test_rows_meet_as_often_as_the_laplacian_kernel_says():
    distances = np.array([0.2, 0.7, 1.5])
    found = shares(distances, grids(1, 60_000, 1.3, seed=0))
    np.testing.assert_allclose(found, np.exp(-1.3 * distances), atol=0.005)


def test_distances_along_several_features_add_up():
    drawn = grids(5, 60_000, 0.5, seed=1)
    x = np.array([[0.0] * 5, [0.3, -0.2, 0.4, 0.0, -0.5]])
    bins = hashed(x, drawn)
    assert (bins[0] == bins[1]).mean() == pytest.approx(np.exp(-0.5 * 1.4), abs=0.005)


@pytest.mark.parametrize("law", ["normal", "cauchy"])
def test_widths_of_the_spectrum_give_another_kernel(law):
    rng = np.random.default_rng(0)
    width = np.abs(rng.normal(size=(60_000, 1)) if law == "normal" else rng.standard_cauchy(size=(60_000, 1)))
    drawn = Grids(1.3 / width, rng.random(width.shape), np.full(width.shape, 3, np.uint64))
    assert abs(shares(np.array([0.7]), drawn)[0] - np.exp(-1.3 * 0.7)) > 0.05


def test_features_are_the_kernel_of_shared_bins():
    rng = np.random.default_rng(0)
    train, other = rng.normal(size=(2, 30, 3))
    drawn = grids(3, 200, 0.4, seed=0)
    one, two = (hashed(x, drawn) for x in (train, other))
    features, of_others = binned(one, two)
    assert features.shape[0] == 30
    np.testing.assert_allclose((features @ features.T).toarray(), (one[:, None] == one[None]).mean(axis=2))
    np.testing.assert_allclose((of_others @ features.T).toarray(), (two[:, None] == one[None]).mean(axis=2))


def test_bins_are_those_of_each_feature_by_hand():
    rng = np.random.default_rng(0)
    x, drawn = rng.normal(size=(40, 2)), grids(2, 20, 0.8, seed=0)
    found = hashed(x, drawn)
    for k in range(20):
        pairs = [tuple(row) for row in np.floor(x * drawn.density[k] - drawn.offset[k])]
        same = np.array([[a == b for b in pairs] for a in pairs])
        np.testing.assert_array_equal(found[:, None, k] == found[None, :, k], same)


def test_a_row_where_none_was_trained_on_has_no_feature():
    drawn = grids(2, 50, 1.0, seed=0)
    train, far = hashed(np.zeros((3, 2)), drawn), hashed(np.full((1, 2), 1e6), drawn)
    features, of_others = binned(train, far)
    assert (features.nnz, of_others.nnz) == (150, 0)
