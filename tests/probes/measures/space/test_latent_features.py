"""Latent features: planted codes, labels and languages are told, noise is not, messages."""

import numpy as np
import pytest
from sklearn.decomposition import NMF
from sklearn.metrics import mutual_info_score

import probes
from probes.measures.space.latent_features import information, permuted

LANGUAGES = ("en", "fr")


def parallel(codes_of_id, of_language=True, noise=0.3, layers=2, features=12, seed=0):
    """Translations share the codes of their id; one code more is that of the language."""
    rng = np.random.default_rng(seed)
    n = len(codes_of_id)
    codes = np.column_stack([np.tile(codes_of_id, (2, 1)), np.repeat([0, 1], n)])
    weights = rng.normal(size=(layers, codes.shape[1], features)) + 1.0
    weights[:, -1] *= of_language
    x = codes @ weights + noise * rng.normal(size=(layers, 2 * n, features))
    ids = np.tile([f"s{i:03}" for i in range(n)], 2)
    return probes.from_arrays(x, id=ids, language=np.repeat(LANGUAGES, n), label=codes[:, 0].astype(str)), codes


def same(found, codes):
    return (found == codes).all() or (found != codes).all()


@pytest.fixture(scope="module")
def pair():
    codes_of_id = np.random.default_rng(0).random((60, 2)) < [0.3, 0.45]
    reps, codes = parallel(codes_of_id)
    return reps, codes, probes.latent_features(reps, k=3, refits=4)


def test_planted_codes_are_found_and_tell_their_label_and_their_language(pair):
    _, codes, found = pair
    at = [next(j for j in range(3) if same(found.codes.values[:, j], planted)) for planted in codes.T]
    assert sorted(at) == [0, 1, 2]
    assert (found.stability > 0.95).all()
    assert found.stability_chance < 0.9
    told = found.information.values[at]
    share = codes[:, 0].mean()
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert told[0, 0] == pytest.approx(entropy)
    assert told[2, 1] == pytest.approx(np.log(2))
    p = found.p.values[at]
    assert p[0, 0] == p[2, 1] == 1 / 200
    assert (found.information.values <= found.chance.values)[[j for j in at if j != at[0]], 0].all()
    assert found.about.values.tolist() == ["label", "language"]


def test_what_is_explained_is_that_of_least_squares_below_principal_components(pair):
    reps, _, found = pair
    for layer in range(2):
        x = reps.hidden.values[layer].astype(float)
        whole = np.square(x - x.mean(axis=0))
        design = np.column_stack([np.ones(len(x)), found.codes.values])
        missed = np.square(x - design @ np.linalg.lstsq(design, x, rcond=None)[0])
        of = found.explained.sel(layer=layer)
        assert float(of.sel(language="pooled")) == pytest.approx(1 - missed.sum() / whole.sum())
        french = reps.language.values == "fr"
        assert float(of.sel(language="fr")) == pytest.approx(1 - missed[french].sum() / whole[french].sum())
        values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
        assert float(found.bound[layer]) == pytest.approx(values[:3].sum() / values.sum())
        built = found["mean"].values[layer] + found.codes.values @ found.features.values[layer]
        np.testing.assert_allclose(np.square(x - built).sum(), missed.sum(), rtol=1e-6)
    pooled = found.explained.sel(language="pooled").values
    assert (pooled <= found.bound.values).all()
    assert 1 - pooled.mean() == pytest.approx(found.left.values[-1])  # each layer counts alike
    assert (np.diff(found.left) <= 0).all()


def test_two_independent_codes_that_every_principal_component_mixes_are_found():
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(30, axis=0)
    one, other = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 2)))[0].T
    weights = np.array([one + 0.5 * other, other + 0.5 * one])  # of one size, so that components are sum and difference
    x = codes @ weights + 0.1 * np.random.default_rng(4).normal(size=(120, 12))
    found = probes.latent_features(probes.from_arrays(x), k=2, refits=2)
    assert all(any(same(found.codes.values[:, j], one) for j in range(2)) for one in codes.T)
    components = np.linalg.svd(x - x.mean(axis=0))[0][:, :2]
    split = [column > cut for column in components.T for cut in np.sort(column)[:-1]]
    assert not any(same(one, code) for one in split for code in codes.T)


def test_parts_that_are_not_negative_explain_what_those_of_scikit_learn_do(pair):
    rng = np.random.default_rng(5)
    x = rng.random((60, 3)) @ np.eye(3).repeat(4, axis=1) * 2
    found = probes.latent_features(probes.from_arrays(np.stack([x, 0 * x + 1.3])), k=3, refits=2)
    assert float(found.nonnegative[0]) == pytest.approx(1, abs=1e-3)
    assert float(found.nonnegative[0]) > float(found.explained.sel(language="pooled")[0]) + 0.05
    assert np.isnan(found.nonnegative[1])
    reps, _, found = pair
    assert (found.nonnegative.values <= found.bound.values + 1e-12).all()
    order = np.lexsort((reps.language.values.astype(str), reps.id.values.astype(str)))
    layers = [one - one.mean(axis=0) for one in reps.hidden.values[:, order].astype(float)]
    whole = np.hstack([one / np.sqrt(np.square(one).mean()) for one in layers])
    shares = NMF(3, init="nndsvda", random_state=0).fit_transform(whole - whole.min(axis=0))
    design = np.column_stack([np.ones(120), shares])
    for layer, one in enumerate(layers):
        missed = np.square(one - design @ np.linalg.lstsq(design, one, rcond=None)[0]).sum()
        assert float(found.nonnegative[layer]) == pytest.approx(1 - missed / np.square(one).sum(), abs=2e-3)


def test_more_codes_than_features_have_parts_too():
    found = probes.latent_features(probes.from_arrays(np.random.default_rng(6).normal(size=(40, 2))), k=4, refits=2)
    assert found.sizes["code"] > 2
    assert float(found.nonnegative[0]) == pytest.approx(1, abs=1e-4)


def test_gaussian_states_have_codes_that_are_not_stable_and_tell_nothing():
    rng = np.random.default_rng(0)
    reps = probes.from_arrays(rng.normal(size=(1, 150, 16)), label=rng.integers(0, 2, 150))
    found = probes.latent_features(reps, k=4, refits=4)
    assert found.stability.mean() < 0.7
    assert (found.stability < found.stability_chance + 0.1).all()
    assert (found.information <= found.chance).sum() >= 3
    assert found.about.values.tolist() == ["label"]


def test_order_of_rows_and_size_of_layers_do_not_matter(pair):
    reps, _, found = pair
    shuffled = reps.isel(example=np.random.default_rng(1).permutation(120))
    shuffled = shuffled.assign(hidden=shuffled.hidden * np.array([1, 64])[:, None, None])
    again = probes.latent_features(shuffled, k=3, refits=4)
    back = {key: i for i, key in enumerate(zip(shuffled.id.values, shuffled.language.values, strict=True))}
    rows = [back[key] for key in zip(reps.id.values, reps.language.values, strict=True)]
    np.testing.assert_array_equal(again.codes.values[rows], found.codes.values)
    np.testing.assert_allclose(again.explained.sel(language=found.language), found.explained, rtol=1e-6)
    np.testing.assert_allclose(again.stability, found.stability)
    np.testing.assert_allclose(again.p, found.p)


def test_a_layer_of_equal_states_has_no_value_and_does_not_count(pair):
    reps, codes, _ = pair
    equal = reps.isel(layer=[0, 1, 1]).assign_coords(layer=[0, 1, 2]).copy(deep=True)
    equal.hidden.values[0] = 7.1
    found = probes.latent_features(equal, k=3, refits=2)
    assert np.isnan(found.explained[0]).all()
    assert np.isnan(found.bound[0])
    assert sum(same(found.codes.values[:, j], codes[:, 0]) for j in range(3)) == 1


def test_information_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    bits, of_row = rng.random((40, 3)) < 0.3, rng.integers(0, 4, 40)
    expected = [mutual_info_score(of_row, bits[:, j]) for j in range(3)]
    np.testing.assert_allclose(information(bits, of_row), expected, atol=1e-12)


def test_what_is_permuted_stays_together():
    rng = np.random.default_rng(0)
    ids, groups = np.tile(np.arange(6), 2), np.tile(np.arange(6) // 2, 2)
    label = np.array([0, 0, 1, 1, 0, 0] * 2)
    moved = label[permuted(label, [groups, ids], rng)]
    assert all(len(set(moved[groups == group])) == 1 for group in range(3))
    of_id = np.array([0, 1, 1, 1, 0, 0] * 2)  # one of an id, not of a group
    moved = of_id[permuted(of_id, [groups, ids], rng)]
    assert (moved[:6] == moved[6:]).all()
    assert sorted(moved) == sorted(of_id)
    language = np.repeat([0, 1], 6)
    moved = language[permuted(language, [groups, ids], rng)]
    assert (moved[:6] + moved[6:] == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "latent_features: k=0: expected a whole number, at least 1"),
        ({"k": 2.5}, r"latent_features: k=2\.5: expected a whole number"),
        ({"k": 120}, "latent_features: k=120 codes of 120 sentences: give more sentences than codes, or a smaller k"),
        ({"refits": 1}, "latent_features: refits=1: expected a whole number, at least 2"),
        ({"permutations": 5}, "latent_features: permutations=5: expected a whole number, at least 19"),
        ({"seed": -1}, "seed=-1: expected a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(pair, change, message):
    with pytest.raises(probes.InputError, match=message):
        probes.latent_features(pair[0], **change)


def test_states_that_cannot_be_read_are_refused(pair):
    reps = pair[0].copy(deep=True)
    with pytest.raises(probes.InputError, match="at every layer the states of all sentences are equal"):
        probes.latent_features(reps.assign(hidden=reps.hidden * 0 + 0.1))
    reps.hidden.values[1, 3:5] = np.inf
    with pytest.raises(probes.InputError, match="layer 1: the states of 2 sentences are not finite"):
        probes.latent_features(reps)
