"""Known dynamics: affine maps by ridge regression, against scikit-learn; folds of ids; what is refused."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import probes
from probes.measures.space.dynamics import check_dynamics, folds_of_units, known_dynamics, ridge
from probes.results.draws import sample


def test_ridge_is_that_of_scikit_learn_with_the_strength_that_predicts_best():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6)) + 3
    y = x @ rng.normal(size=(6, 2)) + 4 * rng.normal(size=(80, 2))
    choosing = np.arange(80) % 5 == 0
    size = np.trace(np.cov(x.T, bias=True)) / 6
    strengths = (1e-3, 1e-1, 1.0, 10.0)

    def fitted(rows, strength):
        at = x[rows]
        return Ridge(strength * len(at) * np.trace(np.cov(at.T, bias=True)) / 6).fit(at, y[rows])

    errors = [np.square(fitted(~choosing, s).predict(x[choosing]) - y[choosing]).sum() for s in strengths]
    best = fitted(np.ones(80, bool), strengths[int(np.argmin(errors))])
    found = ridge(x, y, choosing, strengths)
    assert size > 0
    np.testing.assert_allclose(x @ found[:-1] + found[-1], best.predict(x), rtol=1e-8)


def test_what_is_only_noise_is_left_as_it_is():
    rng = np.random.default_rng(1)
    found = ridge(rng.normal(size=(40, 20)), rng.normal(size=(40, 5)), np.arange(40) % 5 == 0)
    assert not found.any()


def test_coordinates_have_one_scale_a_layer_and_a_map_of_equal_states_is_missing():
    rng = np.random.default_rng(2)
    x = np.stack([np.ones((50, 4)), 5 * rng.normal(size=(50, 4)) + 100, rng.normal(size=(50, 4))])
    known = known_dynamics(lambda k, at: x[k][at], 3, np.arange(50), np.arange(50) % 5 == 0)
    z = known.coordinates(1, x[1])
    assert np.square(z).mean() == pytest.approx(1)
    assert np.isnan(known.scales).tolist() == [True, False, False]
    assert np.isnan(known.maps[0]).all()
    assert np.isfinite(known.maps[1]).all()
    np.testing.assert_array_equal(known.copied(0, z), z)


def test_folds_keep_translations_and_groups_together_and_do_not_depend_on_order():
    rng = np.random.default_rng(3)
    ids = np.repeat(np.arange(60), 2)
    reps = probes.from_arrays(
        rng.normal(size=(120, 2)), id=ids, language=np.tile(["a", "b"], 60), group=[f"g{i // 2}" for i in ids]
    )
    order = rng.permutation(120)
    tested = {}
    for name, one in (("as it is", reps), ("shuffled", reps.isel(example=order))):
        drawn = sample(one, draws=2, seed=0)
        folds = folds_of_units(drawn, 0)
        assert np.array_equal(np.sort(np.concatenate([test for *_, test in folds])), np.arange(120))
        for rows, choosing, test in folds:
            groups = [set(one["group"].values[at]) for at in (rows[choosing], rows[~choosing], test)]
            assert not groups[0] & groups[1]
            assert not (groups[0] | groups[1]) & groups[2]
        tested[name] = [set(one["id"].values[test]) for *_, test in folds]
    assert tested["as it is"] == tested["shuffled"]


@pytest.mark.parametrize(
    ("base", "other", "says"),
    [
        ((3, 40, 4), (4, 40, 4), "expected models of one depth; 'base' has the layers 0, 1, 2 and 'other' 0, 1, 2, 3"),
        ((3, 40, 4), (3, 40, 5), "expected models of one width; 'base' has 4 features and 'other' 5"),
        ((2, 40, 4), (2, 40, 4), "expected at least 2 layers after the embeddings; 'base' has the layers 0, 1"),
        ((3, 19, 4), (3, 19, 4), "expected at least 20 ids, to learn from three quarters of them and test on the"),
    ],
)
def test_what_does_not_fit_is_refused(base, other, says):
    one, two = (probes.from_arrays(np.ones(shape), name=n) for shape, n in ((base, "base"), (other, "other")))
    with pytest.raises(probes.InputError, match=says):
        check_dynamics(one, two, sample(one, draws=2, seed=0), 3, "a probe")
