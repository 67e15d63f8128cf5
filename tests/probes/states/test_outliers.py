"""States without their largest features: as if these were not there, in every probe, on the same ones of two models."""

import numpy as np
import pytest

import probes
from probes.errors import InputError


@pytest.fixture(scope="module")
def pair():
    """Two models of parallel sentences, features 2 and 5 of which are hundreds of times larger; 5 at layer 1 only."""
    rng = np.random.default_rng(0)
    meaning = np.tile(rng.normal(size=(2, 40, 10)), (1, 2, 1))
    large = np.zeros((2, 1, 10))
    large[:, :, 2], large[1, :, 5] = 400.0, 900.0
    about = {"id": np.tile(np.arange(40), 2), "language": np.repeat(["en", "fr"], 40), "label": np.arange(80) % 40 % 2}
    models = (meaning + k * rng.normal(size=meaning.shape) + large * (1 + 0.01 * k) for k in (0.5, 0.6))
    return [probes.from_arrays(x, **about, name=name) for x, name in zip(models, "ab", strict=True)]


def zeroed(reps, left):
    hidden = reps.hidden.values.copy()
    for layer, features in enumerate(left):
        hidden[layer][:, features] = 0
    return reps.assign(hidden=(reps.hidden.dims, hidden))


MEASURES = {
    "retrieval": lambda one, two: probes.retrieval(one, pivot="en", draws=4),
    "alignment_gap": lambda one, two: probes.alignment_gap(one, pivot="en", draws=4),
    "class_separability": lambda one, two: probes.class_separability(one, draws=4),
    "drift": lambda one, two: probes.drift(one, two, draws=4),
    "similarity": lambda one, two: probes.similarity(one, two, measure="neighbour_overlap", draws=4),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_probe_reads_zeros_and_says_which(pair, measure):
    one, two = pair
    left = [[2, int(np.square(one.hidden.values[0])[:, [0, 1, 3, 4, 5, 6, 7, 8, 9]].sum(0).argmax())], [2, 5]]
    left[0][1] = [0, 1, 3, 4, 5, 6, 7, 8, 9][left[0][1]]
    without = [probes.without_outliers(reps, 2, like=one) for reps in (one, two)]
    found, expected = measure(*without), measure(*(zeroed(reps, left) for reps in pair))
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
    assert "layer 1: features 2, 5" in found.attrs["left_out"]
    assert "left_out" not in expected.attrs
    assert not np.allclose(found.value, measure(*pair).value)


def test_the_features_are_those_of_the_baseline_and_otherwise_its_own(pair):
    one, two = pair
    moved = two.assign(hidden=two.hidden.roll(feature=1))
    assert probes.without_outliers(moved, 1).left_out.values.argmax(1).tolist() == [3, 6]
    assert probes.without_outliers(moved, 1, like=one).left_out.values.argmax(1).tolist() == [2, 5]
    # Of a model that is less deep the layer that stands beside one.
    deep = probes.without_outliers(one.isel(layer=[1]).assign_coords(layer=[0]), 1, like=one)
    assert deep.left_out.values.any(1).all()
    assert one.identical(probes.without_outliers(one, 0))


def test_a_comparison_leaves_them_out_of_all_models(pair):
    models = dict(zip("ab", pair, strict=True))
    how = {"pivot": "en", "probes": ["retrieval", "cosine_to_baseline"], "draws": 4}
    found = probes.compare(models, without_outliers=2, **how)
    alone = probes.drift(*(probes.without_outliers(reps, 2, like=pair[0]) for reps in pair), draws=4)
    rows = found.table.query("probe == 'cosine_to_baseline' and language == 'pooled'")
    np.testing.assert_allclose(rows["value"], alone.value.sel(measure="cosine_to_baseline", language="pooled"))
    assert found.provenance["left_out"].endswith("layer 1: features 2, 5")
    assert "left_out" not in probes.compare(models, **how).provenance


def test_what_cannot_be_left_out_is_said(pair):
    with pytest.raises(InputError, match="without_outliers=10: expected a whole number of 0 to 9, as of 10 features"):
        probes.without_outliers(pair[0], 10)
    with pytest.raises(
        InputError, match="model 'a' has 10 features and model 'arrays' 3, so that they have not the same"
    ):
        probes.without_outliers(pair[0], 1, like=probes.from_arrays(np.ones((2, 4, 3))))
