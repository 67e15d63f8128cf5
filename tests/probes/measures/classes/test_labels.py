"""What holds for all probes of labels: class_separability, variability, snr."""

import brute_force
import numpy as np
import pytest
from planted import classes_apart, planted
from scipy.stats import ortho_group

import probes

PROBES = [probes.class_separability, probes.variability, probes.snr]


def brute(probe, reps, layer=0):
    """The value by brute force of Representations; pairs of one id, or of one group, are left out of pairs."""
    unit = reps.group.values if "group" in reps.coords else reps.id.values
    units = () if probe is probes.variability else (unit,)
    return getattr(brute_force, probe.__name__)(reps.hidden[layer].values, reps.label.values, *units)


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
    for layer in range(3):
        for language in ("l0", "l1", "l2", "pooled"):
            part = reps.isel(example=(reps.language.values == language) | (language == "pooled"))
            expected = brute(probe, part, layer)
            assert out.value.sel(layer=layer, language=language).item() == pytest.approx(expected)


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


def rare(sizes=(15, 15, 3), seed=0):
    """Classes a, b, ... of these sizes, far apart."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    x = np.random.default_rng(seed).normal(size=(len(label), 5)) + 3 * np.eye(5)[label]
    return x, np.array([*"abcdefgh"])[label]


@EACH
def test_a_class_with_too_few_sentences_is_left_out_and_named(probe):
    x, y = rare()
    reps = probes.from_arrays(x, label=y)
    said = r"classes with fewer than 5 sentences are left out \(c has 3 in und(; c has 3 in pooled)?\); fewest="
    with pytest.warns(probes.LayerscopeWarning, match=said):
        out = probe(reps)
    with pytest.warns(probes.LayerscopeWarning, match=said):
        of_array = probe(x, y)
    rest = probe(probes.from_arrays(x[:30], label=y[:30]))
    assert out.value.values.ravel() == pytest.approx(rest.value.values.ravel())
    assert of_array == pytest.approx(rest.value.values[0, 0])
    assert out.n.values.tolist() == [30, 30]


@EACH
def test_a_class_with_few_sentences_is_kept_where_one_asks_for_it(probe):
    x, y = rare()
    reps = probes.from_arrays(x, label=y)
    with pytest.warns(probes.LayerscopeWarning, match=r"fewer than (5|10) sentences in a class \(c has 3 in und"):
        out = probe(reps, fewest=2)
    assert out.value.values[0, 0] == pytest.approx(brute(probe, reps))
    assert probe(x, y, fewest=3) == pytest.approx(brute(probe, reps))


@EACH
def test_a_class_that_is_rare_in_one_language_is_left_out_there_alone(probe):
    reps = planted(np.random.default_rng(0), ids=60, classes=3)
    twos = np.flatnonzero((reps.language.values == "l1") & (reps.label.values == "2"))
    part = reps.drop_isel(example=twos[3:])
    with pytest.warns(probes.LayerscopeWarning, match=r"are left out \(2 has 3 in l1\)"):
        out = probe(part).value.isel(layer=0)
    assert out.sel(language="pooled").item() == pytest.approx(brute(probe, part))
    without = reps.drop_isel(example=twos)
    assert out.sel(language="l1").item() == pytest.approx(brute(probe, without.isel(example=without.language == "l1")))


@EACH
@pytest.mark.filterwarnings("ignore:variability.*fewer than 10 groups in a class")
def test_what_counts_of_a_class_are_groups_where_there_are_groups(probe):
    x, y = rare((24, 24, 16))
    reps = probes.from_arrays(x, label=y).assign_coords(group=("example", [f"g{i // 4}" for i in range(64)]))
    with pytest.warns(probes.LayerscopeWarning, match=r"fewer than 5 groups are left out \(c has 4 in und"):
        assert probe(reps).value.values[0, 0] == pytest.approx(brute(probe, reps.isel(example=slice(48))))


@EACH
@pytest.mark.filterwarnings("ignore:.*are left out")
def test_where_no_two_classes_have_enough_sentences_there_is_no_value(probe):
    x, y = rare((15, 4, 3))
    with pytest.warns(probes.LayerscopeWarning, match="no value at every layer: no two classes have 5 sentences"):
        assert np.isnan(probe(probes.from_arrays(x, label=y)).value).all()
    with pytest.raises(probes.InputError, match=r"no two classes have 5 rows or more\. Give more rows, or a smaller"):
        probe(x, y)


@EACH
@pytest.mark.parametrize("fewest", [1, 0, 2.5, "3"])
def test_fewest_must_leave_two_sentences_a_class(probe, fewest):
    reps = planted(np.random.default_rng(0), ids=20)
    with pytest.raises(probes.InputError, match=r"fewest=.*: expected a whole number of at least 2"):
        probe(reps, fewest=fewest)


@pytest.mark.parametrize("scale", [1e-20, 1e-9, 1e9, 1e20])
def test_values_and_intervals_do_not_depend_on_the_scale(scale):
    reps = planted(np.random.default_rng(0), ids=60)
    for probe in PROBES:
        a, b = probe(reps), probe(reps.assign(hidden=reps.hidden * scale))
        for name in ("value", "low", "high"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4)


@EACH
def test_a_language_without_one_of_the_classes_is_measured_on_its_own(probe):
    reps = planted(np.random.default_rng(0), ids=60, classes=3)
    part = reps.isel(example=~((reps.language.values == "l1") & (reps.label.values == "2")))
    out = probe(part).value.isel(layer=0)
    assert out.sel(language="l1").item() == pytest.approx(brute(probe, part.isel(example=part.language == "l1")))
    assert out.sel(language="pooled").item() == pytest.approx(brute(probe, part))
