import numpy as np
import pytest
import xarray as xr
from planted import planted

import probes
from probes.measures.classes.best_layer import best_layer


def layers(distances, seed=0, ids=120, languages=2):
    """Layers whose classes lie as far apart as given, each with noise of its own."""
    parts = [planted(np.random.default_rng([seed, k]), ids=ids, distance=d) for k, d in enumerate(distances)]
    return xr.concat(parts, "layer", coords="minimal", compat="override").assign_coords(layer=np.arange(len(parts)))


def test_the_planted_layer_is_chosen_with_certainty():
    out = best_layer(layers([2.0, 3.0, 6.0, 3.0]))
    assert (out.best == 2).all()
    assert (out.value.sel(layer=2) > 0.99).all()


def test_the_choice_is_the_layer_with_the_least_variability():
    reps = layers([2.0, 2.2, 2.1, 1.9])
    np.testing.assert_array_equal(best_layer(reps).best, probes.variability(reps).value.idxmin("layer"))


def test_the_share_is_that_of_the_draws_of_variability():
    reps = layers([2.9, 3.0, 3.1])
    draws = probes.variability(reps).draws
    out = best_layer(reps)
    for language in out.language.values:
        winners = draws.sel(language=language).values.argmin(axis=1)
        np.testing.assert_allclose(out.value.sel(language=language), np.bincount(winners, minlength=3) / 200)


def test_shares_of_all_layers_sum_to_one():
    out = best_layer(layers([3.0, 3.1, 3.2]))
    np.testing.assert_allclose(out.value.sum("layer"), 1)
    assert ((out.value >= 0) & (out.value <= 1)).all()


def test_equal_layers_share_every_draw():
    reps = layers([3.0, 2.0])
    hidden = reps.hidden.values[[1, 0, 0]]
    out = best_layer(
        reps.isel(layer=[1, 0, 0]).assign(hidden=(reps.hidden.dims, hidden)).assign_coords(layer=[4, 5, 6])
    )
    np.testing.assert_allclose(out.value.sel(language="pooled"), [0, 0.5, 0.5])
    assert (out.best == 5).all()  # the lower one


def test_a_layer_and_its_scaled_copy_share_every_draw():
    reps = layers([3.0, 3.0])
    hidden = np.stack([reps.hidden.values[0], 7.3 * reps.hidden.values[0]])
    np.testing.assert_allclose(best_layer(reps.assign(hidden=(reps.hidden.dims, hidden))).value, 0.5, atol=0.05)


def test_layers_that_differ_by_chance_are_seldom_told_apart():
    # Two layers of the same make: that one wins 95 % of the draws should happen in about 10 % of corpora.
    shares = np.array(
        [best_layer(layers([3.0, 3.0], seed=seed)).value.sel(language="pooled").values for seed in range(40)]
    )
    assert (shares.max(axis=1) > 0.95).mean() < 0.2
    assert shares[:, 0].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.filterwarnings("ignore:variability of model arrays")
def test_draws_are_centred_so_that_wide_noise_does_not_decide():
    # Noise along 128 axes or along 4, at distances that give the same variability on the average of such samples.
    y = np.arange(90) % 3
    agree = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = np.zeros((2, 90, 128))
        x[0] = rng.normal(size=(90, 128)) + 1.5 * np.eye(128)[y]
        x[1, :, :4] = rng.normal(size=(90, 4)) + 2.54 * np.eye(4)[y]
        out = best_layer(probes.from_arrays(x, label=y)).sel(language="pooled")
        agree.append(out.value.sel(layer=out.best.item()).item() > 0.4)
    assert np.mean(agree) > 0.9


def test_shuffled_labels_leave_layers_of_one_make_undecided():
    shares = []
    for seed in range(20):
        reps = layers([3.0] * 4, seed=seed)
        shuffled = np.random.default_rng(seed).permutation(reps.label.values[:120])
        reps = reps.assign_coords(label=("example", np.tile(shuffled, 2)))
        with pytest.warns(probes.LayerscopeWarning, match="more than half of the distance between the class means"):
            shares.append(best_layer(reps).value.sel(language="pooled").values)
    assert (np.max(shares, axis=1) > 0.95).mean() < 0.2
    np.testing.assert_allclose(np.mean(shares, axis=0), 0.25, atol=0.2)


def test_a_layer_without_a_value_never_wins():
    reps = layers([2.0, 6.0, 3.0])
    hidden = reps.hidden.values.copy()
    hidden[1, 0, 0] = np.nan  # in language l0
    with pytest.warns(probes.LayerscopeWarning, match="variability of model arrays has no value at layer 1"):
        out = best_layer(reps.assign(hidden=(reps.hidden.dims, hidden)))
    assert out.best.sel(language=["l0", "l1", "pooled"]).values.tolist() == [2, 1, 2]
    assert out.value.sel(layer=1, language="l0") == 0
    np.testing.assert_allclose(out.value.sum("layer"), 1)


def test_a_language_without_any_value_has_no_best_layer():
    reps = layers([2.0, 3.0])
    hidden = reps.hidden.values.copy()
    hidden[:, 0] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match="has no value at layer 0"):
        out = best_layer(reps.assign(hidden=(reps.hidden.dims, hidden)))
    assert np.isnan(out.best.sel(language=["l0", "pooled"])).all()
    assert np.isnan(out.value.sel(language=["l0", "pooled"])).all()
    assert out.best.sel(language="l1") == 1


def test_draws_that_leave_a_class_out_are_passed_over():
    rng = np.random.default_rng(0)
    y = np.array([0] * 15 + [1] * 15 + [2] * 2)
    reps = probes.from_arrays(np.stack([rng.normal(size=(32, 6)) + d * np.eye(6)[y] for d in (3, 9)]), label=y)
    with pytest.warns(probes.LayerscopeWarning, match="fewer than 10 sentences in a class"):
        out = best_layer(reps, fewest=2)
    assert out.best.sel(language="pooled") == 1
    assert 0.6 < out.value.sel(layer=1, language="pooled") < 1  # two examples of a class make nothing certain
    np.testing.assert_allclose(out.value.sum("layer"), 1)


def test_says_what_it_is_and_fits_the_table():
    reps = layers([2.0, 3.0])
    out, nu = best_layer(reps), probes.variability(reps)
    assert set(out) == {"best", "value", "low", "high", "n", "units"}
    assert out.value.dims == ("layer", "language")
    assert np.isnan(out.low).all()
    assert np.isnan(out.high).all()
    assert out.n.equals(nu.n)
    assert set(out.attrs) == set(nu.attrs)
    assert out.attrs["probe"] == "best_layer"
    assert out.attrs["range"] == "0 to 1; shares of all layers sum to 1"
    assert not out.attrs["higher_is"].startswith(("better", "worse"))
    assert out.attrs["resampling"] == nu.attrs["resampling"]
    assert out.best.dtype == reps.layer.dtype


def test_repeats_and_does_not_depend_on_the_order_of_rows():
    reps = layers([2.9, 3.0, 3.1])
    assert best_layer(reps).identical(best_layer(reps))
    shuffled = best_layer(reps.isel(example=np.random.default_rng(1).permutation(240)))
    np.testing.assert_allclose(best_layer(reps).value, shuffled.value.sel(language=["l0", "l1", "pooled"]), atol=0.01)


def test_needs_labels():
    with pytest.raises(probes.InputError, match="needs labels"):
        best_layer(layers([2.0, 3.0]).drop_vars("label"))
