"""Geometry: direction, isotropy, dimension and length of states, what they ignore, and their intervals."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from filled import (
    OF_COVARIANCE,
    TRUE,
    falling,
    gaussian,
    mean_cosine,
    sample_variances,
)
from planted import planted
from scipy.stats import ortho_group

import probes
from probes.measures.probe import THIS_SIZE, Run
from probes.measures.space.geometry import GEOMETRY, geometry
from probes.results.counts import Counts
from probes.results.draws import sample
from probes.results.result import split_measures

# Of nearly equal variances an unbiased estimate hardly varies, which its interval does not know.
TOO_WIDE = {(name, 0.5) for name in ("mean_cosine_of_pairs", "participation_ratio", "iso_score", "effective_rank")}

MEASURES = pytest.mark.parametrize("measure", GEOMETRY)


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


@MEASURES
def test_ignores_rotation_and_order(measure):
    x = gaussian(falling(12, 1), n=60)
    moved = x[np.random.default_rng(1).permutation(60)] @ ortho_group.rvs(12, random_state=3)
    same = geometry(moved)[measure] == pytest.approx(geometry(x)[measure], rel=1e-8)
    assert same == ("rotation" in GEOMETRY[measure].unchanged_by)


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


@pytest.mark.parametrize(("decay", "n", "languages"), [(1.0, 80, 1), (0.5, 120, 1), (1.0, 60, 3)])
def test_intervals_hold_the_value_of_a_large_corpus_or_the_mean_of_this_size_as_declared(decay, n, languages):
    variances, sets, at_once = falling(32, decay), 60, 10

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
        values = np.array([out.value.sel(at) for out in outs])
        if GEOMETRY[measure].interval == THIS_SIZE:
            truth = values.mean()
        held = np.mean([(out.low.sel(at) <= truth) & (truth <= out.high.sel(at)) for out in outs])
        assert held >= 0.84, (measure, held)  # of 60 sets
        width = np.mean([out.high.sel(at) - out.low.sel(at) for out in outs]) / (3.92 * values.std(ddof=1))
        assert 0.75 <= width <= (2.5 if (measure, decay) in TOO_WIDE else 1.5), (measure, width)


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


def test_sentences_of_one_group_are_one_sentence():
    # As translations of one sentence are: the same numbers, and the same intervals.
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(40, 10)), 3, axis=0) + rng.normal(size=(120, 10)) + 1
    grouped = geometry(probes.from_arrays(x, group=np.repeat(np.arange(40), 3)))
    order = np.argsort(np.tile(np.arange(3), 40), kind="stable")  # by language
    translated = probes.from_arrays(
        x[order], id=np.repeat(np.arange(40), 3)[order].astype(str), language=np.repeat(list("abc"), 40)
    )
    translated = geometry(translated)
    for measure in ("mean_cosine_of_pairs", "iso_score", "participation_ratio", "effective_rank", "norm"):
        one, other = (out.sel(measure=measure, language="pooled", layer=0) for out in (grouped, translated))
        assert one.value.item() == pytest.approx(other.value.item(), rel=1e-6)
        widths = [(o.high - o.low).item() for o in (one, other)]
        assert widths[0] == pytest.approx(widths[1], rel=0.25)  # other draws
    pairs = [(i, j) for i in range(120) for j in range(120) if i // 3 != j // 3]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    by_hand = np.mean([unit[i] @ unit[j] for i, j in pairs])
    assert grouped.value.sel(measure="mean_cosine_of_pairs", language="pooled").item() == pytest.approx(by_hand)


def test_too_few_groups_are_refused():
    reps = probes.from_arrays(np.random.default_rng(0).normal(size=(30, 4)), group=np.arange(30) // 10)
    with pytest.raises(probes.InputError, match="language 'und' has 3 groups, and needs at least 4"):
        geometry(reps)


@pytest.mark.parametrize("group", [None, np.tile(np.arange(40) // 2, 2)])
def test_draws_that_are_no_matrix_give_what_a_matrix_of_them_gives(group, monkeypatch):
    monkeypatch.setattr("probes.results.draws.AT_ONCE", 0)
    monkeypatch.setattr("probes.results.counts._PIECE", 7 * 21)
    reps = planted(np.random.default_rng(0), ids=40)
    reps = reps if group is None else reps.assign_coords(group=("example", group.astype(str)))
    drawn = sample(reps, draws=20, seed=0)
    assert isinstance(drawn.weights, Counts)
    of_matrix = replace(drawn, weights=drawn.weights[:, :])
    out, expected = (GEOMETRY["norm"].measure(Run(reps, one)).draws for one in (drawn, of_matrix))
    np.testing.assert_allclose(out, expected, rtol=1e-9)
