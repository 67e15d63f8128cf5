"""Geometry: direction, isotropy, dimension and length of states, each against its definition written once more."""

import itertools

import numpy as np
import pytest
from planted import planted
from scipy.integrate import quad
from scipy.stats import ortho_group

import probes
from probes.measures.space.geometry import GEOMETRY, geometry
from probes.results.draws import sample
from probes.results.result import split_measures

OF_COVARIANCE = ["iso_score", "effective_rank", "participation_ratio"]
MEASURES = pytest.mark.parametrize("measure", GEOMETRY)


def gaussian(variances, n=200, seed=0, shift=1.0):
    """States with a known covariance, in directions that are no axes."""
    d = len(variances)
    rotation = ortho_group.rvs(d, random_state=0) if d > 1 else np.eye(1)
    x = np.random.default_rng(seed).normal(size=(n, d)) * np.sqrt(variances)
    return (x + shift * np.eye(d)[0]) @ rotation


def falling(d, decay):
    return np.arange(1, d + 1.0) ** -decay


def effective_rank(variances):
    p = variances[variances > 0] / variances.sum()
    return np.exp(-(p * np.log(p)).sum())


def participation_ratio(variances):
    return variances.sum() ** 2 / (variances**2).sum()


def iso_score(variances):
    """The seven steps of the paper, from the variances along the principal axes."""
    n = len(variances)
    normalised = np.sqrt(n) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normalised - 1) / np.sqrt(2 * (n - np.sqrt(n)))
    share = (n - defect**2 * (n - np.sqrt(n))) ** 2 / n**2
    return (n * share - 1) / (n - 1)


TRUE = {"iso_score": iso_score, "effective_rank": effective_rank, "participation_ratio": participation_ratio}


def sample_variances(x):
    return np.clip(np.linalg.eigvalsh(np.cov(x.T)), 0, None)


def mean_cosine(x, ids):
    pairs = [
        x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
        for i, j in itertools.combinations(range(len(x)), 2)
        if ids[i] != ids[j]
    ]
    return np.mean(pairs)


def two_nn(x):
    """Maximum likelihood of exponentials whose largest tenth is known only to be at least as large as the others."""
    ratios = []
    for i in range(len(x)):
        first, second = sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[:2]
        ratios.append(np.log(second / first))
    ratios = sorted(ratios)
    k = int(np.ceil(0.9 * len(ratios)))
    return (k - 1) / (sum(ratios[:k]) + (len(ratios) - k) * ratios[k - 1])


def ratio_of_distinct(x, ids):
    """The participation ratio from means over all choices of four rows of different sentences."""
    square_of, of_square = [], []
    for rows in itertools.permutations(range(len(x)), 4):
        if len({ids[r] for r in rows}) == 4:
            a, b = x[rows[0]] - x[rows[1]], x[rows[2]] - x[rows[3]]
            square_of.append((a @ a) * (b @ b) / 4)
            of_square.append((a @ b) ** 2 / 4)
    return np.mean(square_of) / np.mean(of_square)


def rank_by_quadrature(x):
    """exp of the integral of the degrees of freedom, with those of the sample at ridge w taken at w / (1 - f / n)."""
    n = len(x) - 1
    p = sample_variances(x) / sample_variances(x).sum()

    def f(w):
        return (p / (p + w)).sum()

    def integrand(log_w):
        w = np.exp(log_w)
        b = 1 - f(w) / n
        rise = 1 / b - w / b**2 * (p / (p + w) ** 2).sum() / n
        return (f(w) - 1 / (1 + w / b)) * rise * w

    return np.exp(quad(integrand, -25, 20, limit=500)[0])


def test_mean_cosine_equals_brute_force_over_all_pairs():
    x = gaussian(falling(8, 1), n=30)
    assert geometry(x)["mean_cosine_of_pairs"] == pytest.approx(mean_cosine(x, np.arange(30)), rel=1e-12)


def test_mean_cosine_of_all_languages_leaves_out_pairs_of_translations():
    reps = planted(np.random.default_rng(0), ids=15, languages=3)
    x, ids = reps.hidden[0].values, reps.id.values
    value = geometry(reps).value.sel(measure="mean_cosine_of_pairs", language="pooled").item()
    assert value == pytest.approx(mean_cosine(x, ids), rel=1e-12)
    assert value != pytest.approx(mean_cosine(x, np.arange(len(x))), rel=0.01)


def test_norm_is_the_mean_length():
    x = gaussian(falling(8, 1), n=30)
    assert geometry(x)["norm"] == pytest.approx(np.mean([np.sqrt((row**2).sum()) for row in x]), rel=1e-12)


@pytest.mark.parametrize("d", [3, 12])
def test_participation_ratio_equals_the_mean_over_all_fours_of_rows(d):
    x = gaussian(falling(d, 1), n=9)
    assert geometry(x)["participation_ratio"] == pytest.approx(ratio_of_distinct(x, np.arange(9)), rel=1e-9)


@pytest.mark.filterwarnings("ignore:effective_rank")  # of 5 sentences there is none
@pytest.mark.parametrize("features", [3, 20])
def test_participation_ratio_of_all_languages_takes_fours_of_different_sentences(features):
    reps = planted(np.random.default_rng(0), ids=5, languages=2, features=features, classes=2)
    x, ids = reps.hidden[0].values, reps.id.values
    value = geometry(reps).value.sel(measure="participation_ratio", language="pooled").item()
    assert value == pytest.approx(ratio_of_distinct(x, ids), rel=1e-9)


def test_iso_score_is_that_of_the_participation_ratio():
    for variances in (falling(6, 0.5), falling(30, 2), np.r_[1.0, np.zeros(9)], np.ones(7)):
        expected = (participation_ratio(variances) - 1) / (len(variances) - 1)
        assert iso_score(variances) == pytest.approx(expected, abs=1e-12)
    out = geometry(gaussian(falling(6, 0.5)))
    assert out["iso_score"] == pytest.approx((out["participation_ratio"] - 1) / 5, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(60, 20), (45, 40), (300, 16)])
def test_effective_rank_equals_its_integral_by_quadrature(n, d):
    # Uniform, so that the rows differ less in length than normal ones and none of their spread is real.
    x = np.random.default_rng(0).uniform(size=(n, d)) * np.sqrt(falling(d, 0.5))
    assert geometry(x)["effective_rank"] == pytest.approx(rank_by_quadrature(x), rel=1e-6)


@pytest.mark.parametrize("decay", [0, 0.5, 1, 2])
def test_measures_of_covariance_are_those_of_the_true_one_in_large_samples(decay):
    variances = falling(20, decay)
    out = geometry(gaussian(variances, n=4000))
    for measure in OF_COVARIANCE:
        assert out[measure] == pytest.approx(TRUE[measure](variances), rel=0.05)


def test_states_along_one_line_have_one_dimension():
    rng = np.random.default_rng(0)
    out = geometry(np.outer(rng.normal(size=300), rng.normal(size=12)) + 3.0)
    assert out["effective_rank"] == pytest.approx(1, abs=0.01)
    assert out["participation_ratio"] == pytest.approx(1, abs=0.05)
    assert out["iso_score"] == pytest.approx(0, abs=0.005)
    assert out["intrinsic_dimension"] == pytest.approx(1, abs=0.15)


def test_states_spread_evenly_have_all_dimensions():
    out = geometry(gaussian(np.ones(40), n=400, shift=0.0))
    assert out["effective_rank"] == pytest.approx(40, rel=0.01)
    assert out["participation_ratio"] == pytest.approx(40, rel=0.02)
    assert out["iso_score"] == pytest.approx(1, rel=0.02)
    assert out["mean_cosine_of_pairs"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("decay", "n"), [(0, 60), (0.5, 60), (0.5, 200), (1, 60), (1, 200)])
def test_correction_for_few_sentences_comes_closer_than_the_naive_measures(decay, n):
    variances = falling(96, decay)
    samples = [gaussian(variances, n=n, seed=seed) for seed in range(8)]
    found = [geometry(x) for x in samples]
    for measure in OF_COVARIANCE:
        true = TRUE[measure](variances)
        ours = np.mean([out[measure] for out in found])
        naive = np.mean([TRUE[measure](sample_variances(x)) for x in samples])
        assert ours == pytest.approx(true, rel=0.12)
        assert abs(ours - true) < 0.5 * abs(naive - true)


def test_effective_rank_is_corrected_for_lengths_that_differ():
    variances = falling(64, 0.5)
    ours = []
    for seed in range(8):
        lengths = np.random.default_rng(100 + seed).lognormal(0, 0.25, size=(150, 1))
        ours.append(geometry(gaussian(variances, n=150, seed=seed, shift=0.0) * lengths)["effective_rank"])
    assert np.mean(ours) == pytest.approx(effective_rank(variances), rel=0.03)


def test_translations_are_no_further_sentences():
    one = gaussian(falling(24, 0.5), n=60)
    same = probes.from_arrays(np.tile(one, (4, 1)), id=np.tile(np.arange(60), 4), language=np.repeat(list("abcd"), 60))
    out = geometry(same).value.isel(layer=0)
    close = ["effective_rank", "intrinsic_dimension"]
    pooled, alone = out.sel(language="pooled"), out.sel(language="a")
    np.testing.assert_allclose(pooled.drop_sel(measure=close), alone.drop_sel(measure=close), rtol=1e-9)
    np.testing.assert_allclose(pooled.sel(measure=close), alone.sel(measure=close), rtol=0.03)
    assert pooled.sel(measure="effective_rank").item() > 1.1 * effective_rank(sample_variances(one))


def test_effective_rank_of_loose_translations_is_that_of_many_sentences():
    variances = falling(64, 0.5)
    ours = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sentence = rng.normal(size=(80, 64))
        x = [np.sqrt(0.7) * sentence + np.sqrt(0.3) * rng.normal(size=(80, 64)) for _ in range(5)]
        reps = probes.from_arrays(
            np.concatenate(x) * np.sqrt(variances), id=np.tile(np.arange(80), 5), language=np.repeat(list("abcde"), 80)
        )
        ours.append(geometry(reps, draws=2).value.sel(measure="effective_rank", language="pooled").item())
    assert np.mean(ours) == pytest.approx(effective_rank(variances), rel=0.04)


@pytest.mark.parametrize("seed", range(3))
def test_two_nn_equals_brute_force(seed):
    x = gaussian(falling(8, 1), n=40 + seed, seed=seed)
    assert geometry(x)["intrinsic_dimension"] == pytest.approx(two_nn(x), rel=1e-9)


def test_two_nn_of_all_languages_looks_for_neighbours_in_the_same_language():
    reps = planted(np.random.default_rng(0), ids=50, languages=3)
    value = geometry(reps).value.sel(measure="intrinsic_dimension").isel(layer=0)
    split_measures = [value.sel(language=k).item() for k in ("l0", "l1", "l2")]
    assert value.sel(language="pooled").item() == pytest.approx(1 / np.mean(1 / np.array(split_measures)), rel=0.1)
    assert value.sel(language="pooled").item() != pytest.approx(two_nn(reps.hidden[0].values), rel=0.1)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_two_nn_finds_the_dimension_of_a_cube_in_many_features(d):
    flat = np.random.default_rng(0).uniform(size=(1500, d))
    x = np.pad(flat, ((0, 0), (0, 30 - d))) @ ortho_group.rvs(30, random_state=1)
    assert geometry(x)["intrinsic_dimension"] == pytest.approx(d, rel=0.12)


def test_two_nn_finds_two_dimensions_in_a_rolled_sheet_and_the_covariance_three():
    rng = np.random.default_rng(0)
    angle, along = rng.uniform(5, 14, size=1500), rng.uniform(-12, 12, size=1500)
    roll = np.column_stack([angle * np.cos(angle), along, angle * np.sin(angle)])
    out = geometry(np.pad(roll, ((0, 0), (0, 17))) @ ortho_group.rvs(20, random_state=1))
    assert out["intrinsic_dimension"] == pytest.approx(2, rel=0.1)
    assert out["effective_rank"] == pytest.approx(3, rel=0.05)


@MEASURES
def test_ignores_rotation_and_order(measure):
    x = gaussian(falling(12, 1), n=60)
    moved = x[np.random.default_rng(1).permutation(60)] @ ortho_group.rvs(12, random_state=3)
    assert geometry(moved)[measure] == pytest.approx(geometry(x)[measure], rel=1e-8)


@MEASURES
def test_does_not_ignore_a_stretch_along_one_axis(measure):
    x = gaussian(falling(12, 0.5), n=300)
    assert geometry(x * np.r_[10.0, np.ones(11)])[measure] != pytest.approx(geometry(x)[measure], rel=0.01)


@MEASURES
def test_ignores_shift_scale_and_length_of_vectors_where_it_says_so_and_only_there(measure):
    x = gaussian(falling(12, 1), n=60)
    says = split_measures(geometry(planted(np.random.default_rng(0), ids=20)))[measure].attrs["unchanged_by"]
    inside = says.partition("(not ")[0]
    lengths = np.random.default_rng(0).uniform(0.5, 2, size=(60, 1))
    for changed, name in ((x + 2.0, "shift"), (7.5 * x, "scale"), (x * lengths, "length of each vector")):
        same = geometry(changed)[measure] == pytest.approx(geometry(x)[measure], rel=1e-7)
        assert same == (name in inside)


def test_every_layer_and_language_is_measured_alone():
    reps = planted(np.random.default_rng(0), ids=40, layers=2, languages=3)
    out = geometry(reps).value
    for layer, language in itertools.product(range(2), ("l0", "l1", "l2")):
        expected = geometry(reps.hidden[layer].values[reps.language.values == language])
        for measure in GEOMETRY:
            value = out.sel(measure=measure, layer=layer, language=language).item()
            assert value == pytest.approx(expected[measure], rel=1e-9)


def test_one_language_pooled_is_that_language():
    out = geometry(planted(np.random.default_rng(0), ids=30, languages=1))
    for name in ("value", "low", "high"):
        np.testing.assert_array_equal(out[name].sel(language="pooled"), out[name].sel(language="l0"))


def test_rows_in_another_order_give_the_same_intervals():
    reps = planted(np.random.default_rng(0), ids=40)
    a = geometry(reps)
    b = geometry(reps.isel(example=np.random.default_rng(1).permutation(80))).sel(language=a.language)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-7)


def test_draws_of_norm_and_mean_cosine_are_those_of_sentences_drawn_again():
    reps = planted(np.random.default_rng(0), ids=12, languages=2)
    out = geometry(reps, draws=5, seed=3)
    drawn = sample(reps, draws=5, seed=3)
    x, ids = reps.hidden[0].values, drawn.ids
    for draw in range(5):
        rows = np.repeat(np.arange(24), drawn.weights[1 + draw, ids])
        found = out.draws.sel(language="pooled").isel(draw=draw, layer=0)
        assert found.sel(measure="mean_cosine_of_pairs").item() == pytest.approx(mean_cosine(x[rows], ids[rows]))
        assert found.sel(measure="norm").item() == pytest.approx(np.linalg.norm(x[rows], axis=1).mean())


@MEASURES
def test_interval_holds_the_value_and_narrows_with_more_sentences(measure):
    few, many = (geometry(planted(np.random.default_rng(0), ids=n)).sel(measure=measure) for n in (60, 600))
    for out in (few, many):
        assert ((out.low <= out.value) & (out.value <= out.high)).all()
    assert ((many.high - many.low) < (few.high - few.low)).all()


def test_draws_repeat_with_a_seed_and_differ_with_another():
    reps = planted(np.random.default_rng(0), ids=40)
    assert geometry(reps, seed=1).identical(geometry(reps, seed=1))
    assert (geometry(reps, seed=1).low != geometry(reps, seed=2).low).any(["layer", "language"]).all()


def test_translations_that_agree_do_not_narrow_the_interval():
    one = gaussian(falling(12, 1), n=60)
    out = geometry(
        probes.from_arrays(np.tile(one, (3, 1)), id=np.tile(np.arange(60), 3), language=np.repeat(list("abc"), 60))
    )
    width = (out.high - out.low).isel(layer=0)
    np.testing.assert_allclose(width.sel(language="pooled"), width.sel(language="a"), rtol=0.05)


@pytest.mark.parametrize(("decay", "n", "languages"), [(1.0, 80, 1), (0.5, 120, 1), (1.0, 60, 3)])
def test_intervals_hold_the_value_of_a_large_corpus_and_of_two_nn_the_mean_of_this_size(decay, n, languages):
    variances, sets, at_once = falling(32, decay), 200, 20

    def draw(rng, layers, n):
        base = rng.normal(size=(layers, n, 32))
        x = [np.sqrt(0.7) * base + np.sqrt(0.3) * rng.normal(size=base.shape) for _ in range(languages)]
        return probes.from_arrays(
            np.concatenate(x, axis=1) * np.sqrt(variances) + 0.5,
            id=np.tile(np.arange(n), languages),
            language=np.repeat([f"l{k}" for k in range(languages)], n),
        )

    outs = [geometry(draw(np.random.default_rng(s), at_once, n), seed=s) for s in range(sets // at_once)]
    large = geometry(draw(np.random.default_rng(99), 1, 3000 // languages), draws=2).value.isel(layer=0)
    for measure in GEOMETRY:
        at = {"measure": measure, "language": "pooled"}
        truth = large.sel(at).item()
        if measure in TRUE:
            truth = TRUE[measure](variances)
        if measure == "intrinsic_dimension":
            truth = np.mean([out.value.sel(at).mean() for out in outs])
        held = np.mean([(out.low.sel(at) <= truth) & (truth <= out.high.sel(at)) for out in outs])
        assert 0.88 <= held <= 0.995, (measure, held)


def test_differences_between_models_are_paired():
    reps = planted(np.random.default_rng(0), ids=80)
    longer = reps.assign(hidden=1.1 * reps.hidden)
    base, other = split_measures(geometry(reps)), split_measures(geometry(longer))
    norm = probes.difference(other["norm"], base["norm"])
    assert (norm.low > 0).all()
    rank = probes.difference(other["effective_rank"], base["effective_rank"])
    np.testing.assert_allclose(rank.difference, 0, atol=1e-9)
    np.testing.assert_allclose(rank.high - rank.low, 0, atol=1e-9)


def test_says_of_every_measure_what_it_is():
    found = split_measures(geometry(planted(np.random.default_rng(0), ids=20)))
    assert tuple(found) == tuple(GEOMETRY)
    for out in found.values():
        assert {"estimator", "range", "higher_is", "unchanged_by", "paper", "interval", "model"} <= set(out.attrs)
        assert not out.attrs["higher_is"].startswith(("better", "worse"))


def test_too_few_sentences_are_refused_by_name():
    reps = probes.from_arrays(np.eye(9), id=[0, 1, 2, 3, 4, 5, 0, 1, 2], language=["fr"] * 6 + ["sw"] * 3)
    with pytest.raises(probes.InputError, match="language 'sw' has 3 sentences, and needs at least 4"):
        geometry(reps)
    with pytest.raises(probes.InputError, match="needs at least 4"):
        geometry(np.eye(2))


def test_four_sentences_are_enough():
    out = geometry(gaussian(falling(3, 1), n=4))
    assert np.isfinite(list(out.values())).sum() >= 3


def test_too_few_sentences_for_the_dimensions_have_no_effective_rank_and_the_reason_is_said():
    reps = probes.from_arrays(gaussian(np.ones(300), n=30))
    with pytest.warns(probes.LayerscopeWarning, match="effective_rank .* 30 sentences are too few for so many dimen"):
        assert np.isnan(geometry(reps).value.sel(measure="effective_rank")).all()


@pytest.mark.parametrize("constant", [1.5, 0.1, 1e6 / 3])
def test_constant_states_have_direction_and_length_only(constant):
    reps = probes.from_arrays(np.full((1, 40, 5), constant))
    with pytest.warns(probes.LayerscopeWarning) as warned:
        value = geometry(reps).value.isel(layer=0).sel(language="pooled")
    assert np.isnan(value.sel(measure=[*OF_COVARIANCE, "intrinsic_dimension"])).all()
    assert value.sel(measure="mean_cosine_of_pairs").item() == pytest.approx(1)
    assert value.sel(measure="norm").item() == pytest.approx(constant * np.sqrt(5))
    messages = " ".join(str(w.message) for w in warned)
    assert "effective_rank of model arrays has no value at layer 0: undefined here (0/0)" in messages


def test_rounding_is_no_geometry():
    x = np.full((40, 5), 3.0) * (1 + 1e-7 * np.random.default_rng(0).normal(size=(40, 5)))
    with pytest.warns(probes.LayerscopeWarning):
        value = geometry(probes.from_arrays(x)).value
    assert np.isnan(value.sel(measure=[*OF_COVARIANCE, "intrinsic_dimension"])).all()


def test_a_state_of_zeros_has_no_direction_and_the_others_keep_their_values():
    x = gaussian(falling(6, 1), n=40)
    x[3] = 0
    with pytest.warns(probes.LayerscopeWarning, match="mean_cosine_of_pairs .* 1 rows are all zero"):
        value = geometry(probes.from_arrays(x)).value.isel(layer=0).sel(language="pooled")
    assert np.isnan(value.sel(measure="mean_cosine_of_pairs"))
    assert np.isfinite(value.drop_sel(measure="mean_cosine_of_pairs")).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_states_that_are_not_finite_leave_the_other_languages_and_layers(bad):
    reps = planted(np.random.default_rng(0), ids=40, layers=2)
    hidden = reps.hidden.values.copy()
    hidden[1, 3, 2] = bad
    with pytest.warns(probes.LayerscopeWarning, match="at layer 1: 1 rows are not finite"):
        out = geometry(reps.assign(hidden=(reps.hidden.dims, hidden)))
    assert np.isnan(out.value.sel(layer=1, language=["l0", "pooled"])).all()
    assert np.isnan(out.low.sel(layer=1, language=["l0", "pooled"])).all()
    clean = geometry(reps).value
    np.testing.assert_allclose(out.value.sel(layer=1, language="l1"), clean.sel(layer=1, language="l1"))
    np.testing.assert_allclose(out.value.sel(layer=0), clean.sel(layer=0))


def test_copies_of_a_state_are_left_out_of_two_nn_and_counted():
    x = gaussian(falling(6, 1), n=40)
    copied = np.concatenate([x, x[:5], x[:2]])
    with pytest.warns(probes.LayerscopeWarning, match="copies of another: 7 of und at layer 0"):
        value = geometry(probes.from_arrays(copied)).value.sel(measure="intrinsic_dimension", language="pooled").item()
    assert value == pytest.approx(geometry(x)["intrinsic_dimension"], rel=1e-9)


def test_nearly_equal_states_hardly_move_two_nn():
    x = gaussian(falling(6, 1), n=400)
    near = geometry(np.concatenate([x, x[:10] + 1e-4]))["intrinsic_dimension"]
    assert near == pytest.approx(geometry(x)["intrinsic_dimension"], rel=0.2)


def test_languages_of_different_size_are_pooled():
    reps = planted(np.random.default_rng(0), ids=40, languages=3)
    out = geometry(reps.isel(example=np.r_[0:40, 45:70, 80:95]))
    assert np.isfinite(out.value).all()
    assert out.n.sel(language=["l0", "l1", "l2", "pooled"]).values.tolist() == [[40, 25, 15, 80]] * len(GEOMETRY)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_values_at_the_ends_of_float32_do_not_overflow(scale):
    x = gaussian(falling(12, 1), n=60)
    ours, small = geometry(scale * x), geometry(x)
    for measure in GEOMETRY:
        expected = small[measure] * (scale if measure == "norm" else 1)
        assert ours[measure] == pytest.approx(expected, rel=1e-7)
