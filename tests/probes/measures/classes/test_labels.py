"""What holds for all probes of labels: class_separability, variability, snr."""

import brute_force
import numpy as np
import pytest
from planted import classes_apart, planted
from scipy.stats import ortho_group

import probes

PROBES = [probes.class_separability, probes.variability, probes.snr]

EACH = pytest.mark.parametrize("probe", PROBES)


@EACH
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(probe, seed):
    x, y = classes_apart(seed, n=50 + 7 * seed, classes=3 + seed)
    assert probe(x, y) == pytest.approx(getattr(brute_force, probe.__name__)(x, y), rel=1e-9)


@EACH
def test_equals_brute_force_for_classes_of_different_size(probe):
    x, y = classes_apart()
    y = np.where(np.arange(len(y)) < 60, 0, y)
    assert len(set(np.bincount(y))) > 1
    assert probe(x, y) == pytest.approx(getattr(brute_force, probe.__name__)(x, y), rel=1e-9)


@EACH
def test_equals_brute_force_in_every_layer_and_language_and_pooled(probe):
    reps = planted(np.random.default_rng(0), ids=40, layers=3, languages=3)
    out = probe(reps)
    expected = getattr(brute_force, probe.__name__)
    for layer in range(3):
        x, y = reps.hidden[layer].values, reps.label.values
        for language in ("l0", "l1", "l2"):
            rows = reps.language.values == language
            assert out.value.sel(layer=layer, language=language).item() == pytest.approx(expected(x[rows], y[rows]))
        assert out.value.sel(layer=layer, language="pooled").item() == pytest.approx(expected(x, y))


@EACH
def test_equals_brute_force_on_states_dominated_by_their_mean(probe):
    x, y = classes_apart()
    x = (x + 300.0).astype(np.float32)
    assert probe(x, y) == pytest.approx(getattr(brute_force, probe.__name__)(x, y), rel=1e-6)


@EACH
def test_does_not_depend_on_the_order_of_rows(probe):
    reps = planted(np.random.default_rng(0), ids=40)
    shuffled = reps.isel(example=np.random.default_rng(1).permutation(80))
    a, b = probe(reps), probe(shuffled).sel(language=probe(reps).language)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5)


@EACH
def test_ignores_rotation_and_scale(probe):
    x, y = classes_apart()
    rotation = ortho_group.rvs(x.shape[1], random_state=0)
    assert probe(x @ rotation * 7.5, y) == pytest.approx(probe(x, y), rel=1e-9)


@EACH
def test_does_not_ignore_a_stretch_along_one_axis(probe):
    x, y = classes_apart()
    stretched = x * np.r_[10.0, np.ones(x.shape[1] - 1)]
    assert probe(stretched, y) != pytest.approx(probe(x, y), rel=0.05)


@EACH
def test_ignores_shift_where_it_says_so_and_only_there(probe):
    x, y = classes_apart()
    invariant = probe(planted(np.random.default_rng(0), ids=60)).attrs["unchanged_by"]
    same = probe(x + 5.0, y) == pytest.approx(probe(x, y), rel=1e-6)
    assert same == ("shift" in invariant)


@EACH
def test_sees_classes_move_apart(probe):
    near, far = (probe(*classes_apart(distance=d)) for d in (1.0, 4.0))
    better = probe(planted(np.random.default_rng(0), ids=60)).attrs["higher_is"].startswith("better")
    assert (far > near) == better


@EACH
def test_one_language_pooled_is_that_language(probe):
    out = probe(planted(np.random.default_rng(0), ids=40, languages=1))
    np.testing.assert_allclose(out.value.sel(language="pooled"), out.value.sel(language="l0"))
    np.testing.assert_allclose(out.low.sel(language="pooled"), out.low.sel(language="l0"), rtol=1e-5)


@EACH
def test_interval_holds_the_value_and_narrows_with_more_sentences(probe):
    few, many = (probe(planted(np.random.default_rng(0), ids=n)) for n in (60, 600))
    for out in (few, many):
        assert ((out.low <= out.value) & (out.value <= out.high)).all()
    assert ((many.high - many.low) < (few.high - few.low)).all()


@EACH
def test_draws_repeat_with_a_seed_and_differ_with_another(probe):
    reps = planted(np.random.default_rng(0), ids=60)
    assert probe(reps, seed=1).identical(probe(reps, seed=1))
    assert not np.array_equal(probe(reps, seed=1).low, probe(reps, seed=2).low)


@pytest.mark.parametrize(
    ("probe", "theory"),
    [
        (probes.class_separability, 0.40),
        (probes.snr, 1.42),  # two of one class lie sqrt(32) apart, of different classes sqrt(64)
        (probes.variability, 2 / 3 / (16 / 3)),  # the covariance between the classes has the eigenvalue 16 / 3 twice
    ],
)
def test_matches_theory_on_three_gaussians(probe, theory):
    y = np.arange(6000) % 3
    x = np.random.default_rng(0).normal(size=(6000, 16)) + 4 * np.eye(16)[y]
    assert probe(x, y) == pytest.approx(theory, rel=0.03)


@pytest.mark.parametrize(("probe", "chance"), [(probes.class_separability, 0.0), (probes.snr, 1.0)])
def test_shuffled_labels_are_at_chance(probe, chance):
    x, y = classes_apart(n=300, distance=3.0)
    assert probe(x, np.random.default_rng(0).permutation(y)) == pytest.approx(chance, abs=0.02)
    assert probe(x, y) > chance + 0.2


@EACH
def test_needs_labels(probe):
    reps = planted(np.random.default_rng(0), ids=20)
    with pytest.raises(probes.InputError, match="needs labels"):
        probe(reps.drop_vars("label"))
    with pytest.raises(probes.InputError, match="expected labels beside the array"):
        probe(reps.hidden[0].values, None)


@EACH
def test_one_class_is_refused(probe):
    with pytest.raises(probes.InputError, match="compares classes, and there is only one: 'a'"):
        probe(np.eye(6), ["a"] * 6)


@EACH
def test_lengths_that_differ_are_refused(probe):
    with pytest.raises(probes.InputError, match="label: expected 6 values, one a row of the hidden states; found 5"):
        probe(np.eye(6), [0, 0, 0, 1, 1])


@EACH
def test_nan_in_one_language_leaves_the_others_and_is_named(probe):
    reps = planted(np.random.default_rng(0), ids=40, layers=2)
    hidden = reps.hidden.values.copy()
    hidden[1, 3, 2] = np.nan
    with pytest.warns(
        probes.LayerscopeWarning, match=r"of model arrays has no value at layer 1: 1 rows are not finite"
    ):
        out = probe(reps.assign(hidden=(reps.hidden.dims, hidden)))
    assert np.isnan(out.value.sel(layer=1, language=["l0", "pooled"])).all()
    assert np.isnan(out.low.sel(layer=1, language=["l0", "pooled"])).all()
    np.testing.assert_allclose(out.value.sel(layer=1, language="l1"), probe(reps).value.sel(layer=1, language="l1"))
    assert np.isfinite(out.value.sel(layer=0)).all()


@EACH
def test_inf_is_missing_too(probe):
    reps = planted(np.random.default_rng(0), ids=40)
    hidden = reps.hidden.values.copy()
    hidden[0, 3, 2] = np.inf
    with pytest.warns(probes.LayerscopeWarning, match="1 rows are not finite"):
        assert np.isnan(probe(reps.assign(hidden=(reps.hidden.dims, hidden))).value.sel(language="l0")).all()


@EACH
@pytest.mark.parametrize("constant", [0.0, 1.5, 0.1, 1e6 / 3])
def test_constant_states_have_no_value_and_the_reason_is_said(probe, constant):
    reps = probes.from_arrays(np.full((1, 40, 5), constant), label=np.arange(40) % 2)
    with pytest.warns(probes.LayerscopeWarning, match=r"undefined here \(0/0\), as for states that are all equal"):
        assert np.isnan(probe(reps).value).all()


@EACH
def test_few_examples_in_a_class_are_warned_of(probe):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(33, 5)) + 9 * np.eye(5)[[*([0, 1] * 15), 2, 2, 2]]
    reps = probes.from_arrays(x, label=[*(["a", "b"] * 15), "c", "c", "c"])
    with pytest.warns(probes.LayerscopeWarning, match=r"fewer than (5|10) examples in a class \(c has 3 in und"):
        probe(reps)


@pytest.mark.parametrize("scale", [1e-20, 1e-9, 1e9, 1e20])
def test_values_and_intervals_do_not_depend_on_the_scale(scale):
    reps = planted(np.random.default_rng(0), ids=60)
    for probe in PROBES:
        a, b = probe(reps), probe(reps.assign(hidden=reps.hidden * scale))
        for name in ("value", "low", "high"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4)


def test_a_language_without_one_of_the_classes_is_measured_on_its_own():
    reps = planted(np.random.default_rng(0), ids=60, classes=3)
    keep = ~((reps.language.values == "l1") & (reps.label.values == "2"))
    part = reps.isel(example=keep)
    rows = part.language.values == "l1"
    x, y = part.hidden[0].values, part.label.values
    for probe in PROBES:
        out = probe(part)
        expected = getattr(brute_force, probe.__name__)
        assert out.value.sel(layer=0, language="l1").item() == pytest.approx(expected(x[rows], y[rows]))
        assert out.value.sel(layer=0, language="pooled").item() == pytest.approx(expected(x, y))
