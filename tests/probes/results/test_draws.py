"""Draws of ids: balanced, the same for every model, translations together."""

import hashlib

import numpy as np
import pytest
from planted import planted
from scipy.stats import norm, t

import probes
from probes.results.draws import sample, weighted_means


def drawn(**options):
    return sample(planted(np.random.default_rng(0), ids=30, **options), draws=100, seed=0)


def test_every_draw_has_as_many_ids_as_the_sample_and_every_id_is_drawn_equally_often():
    weights = drawn().weights
    assert weights.shape == (101, 30)
    assert (weights[0] == 1).all()
    assert (weights[1:].sum(axis=1) == 30).all()
    assert (weights[1:].sum(axis=0) == 100).all()


def test_draws_vary_as_a_bootstrap_does():
    weights = drawn().weights[1:].astype(float)
    # Multinomial counts: variance 1 - 1 / n.
    assert weights.var() == pytest.approx(1 - 1 / 30, abs=0.05)


def test_draws_do_not_depend_on_rows_or_languages():
    a, b = drawn(languages=2), drawn(languages=3)
    assert np.array_equal(a.weights, b.weights)
    assert a.key == b.key


def test_translations_stay_together():
    # Two languages with the same states: an interval over both is as wide as one, since there are no more sentences.
    reps = planted(np.random.default_rng(0), ids=60, languages=1)
    both = probes.from_arrays(
        np.concatenate([reps.hidden.values] * 2, axis=1),
        id=np.tile(reps.id.values, 2),
        language=np.repeat(["a", "b"], 60),
        label=np.tile(reps.label.values, 2),
    )
    split_measures = probes.from_arrays(both.hidden.values, label=both.label.values)
    width = {
        name: (out.high - out.low).sel(language="pooled").item()
        for name, out in (("one", probes.snr(reps)), ("both", probes.snr(both)), ("apart", probes.snr(split_measures)))
    }
    assert width["both"] > 0.9 * width["one"]
    assert width["apart"] < 0.9 * width["one"]


@pytest.mark.parametrize("draws", [0, 1])
def test_too_few_draws_are_refused(draws):
    with pytest.raises(probes.InputError, match=f"draws={draws}: expected a whole number of at least 2"):
        probes.snr(planted(np.random.default_rng(0), ids=30), draws=draws)


def grouped(groups, **options):
    x = np.random.default_rng(0).normal(size=(len(groups), 4))
    return sample(probes.from_arrays(x, group=groups), draws=100, seed=0, **options)


def test_draws_of_a_corpus_without_groups_are_those_that_they_were():
    weights = drawn().weights
    assert hashlib.sha256(weights.tobytes()).hexdigest()[:16] == "66ece051f4635ec6"
    assert drawn().units.tolist() == list(range(30))


def test_whole_groups_are_drawn_and_all_of_them_equally_often():
    # Of one, two, three and four ids, apart from each other in the file.
    groups = np.array(list("abcdbcdcdd"))
    found = grouped(groups)
    names = np.array(sorted(range(10), key=str))  # ids in the order of the columns of weights
    for group in "abcd":
        of_group = found.weights[:, groups[names] == group]
        assert (of_group == of_group[:, :1]).all()
        assert len(set(found.units[groups[names] == group])) == 1
        assert of_group[1:, 0].sum() == 100
    # As a bootstrap of four.
    assert found.weights[1:].astype(float).var(axis=0) == pytest.approx(np.full(10, 3 / 4), abs=0.25)


def test_the_draws_depend_on_what_belongs_together_and_not_on_what_it_is_called():
    one, other = grouped(["x", "x", "y", "y", "z"]), grouped([7, 7, 1, 1, 3])
    assert np.array_equal(one.weights, other.weights)
    assert one.key == other.key
    apart = grouped(["x", "y", "x", "y", "z"])
    assert apart.key != one.key


def test_groups_of_one_id_each_are_none():
    none = sample(probes.from_arrays(np.eye(30)), draws=100, seed=0)
    own = sample(probes.from_arrays(np.eye(30), group=[f"g{i % 7}{i}" for i in range(30)]), draws=100, seed=0)
    assert np.array_equal(none.weights, own.weights)
    assert none.key == own.key


def test_one_group_for_all_is_refused():
    with pytest.raises(probes.InputError, match="all 5 ids lie in one group, 'x', so that there is nothing to draw"):
        grouped(["x"] * 5)


def test_an_id_in_two_groups_is_refused_by_name():
    reps = probes.from_arrays(np.eye(4), id=list("abab"), language=list("xxyy"))
    reps = reps.assign_coords(group=("example", np.array(["p", "q", "p", "r"], dtype=object)))
    with pytest.raises(probes.InputError, match="model arrays: id 'b' lies in group 'q' and in group 'r'"):
        sample(reps, draws=2, seed=0)


def test_groups_widen_an_interval_as_much_as_their_sentences_are_alike():
    rng = np.random.default_rng(0)
    of_group = np.repeat(rng.normal(size=(50, 8)), 4, axis=0)
    groups = np.arange(200) // 4
    alike, unlike = of_group + 0.1 * rng.normal(size=(200, 8)), rng.normal(size=(200, 8))
    ratio = []
    for x in (alike, unlike):
        wide, narrow = (probes.geometry(probes.from_arrays(x + 3, group=g)).sel(measure="norm") for g in (groups, None))
        ratio.append(float(((wide.high - wide.low) / (narrow.high - narrow.low)).sel(layer=0, language="pooled")))
    assert ratio[0] == pytest.approx(2, abs=0.3)  # the root of four
    assert ratio[1] == pytest.approx(1, abs=0.2)


def test_means_of_few_groups_spread_as_widely_as_their_number_warrants():
    rng = np.random.default_rng(0)
    held = {True: 0, False: 0}
    for _ in range(300):
        x = np.repeat(rng.normal(size=8), 3)
        reps = probes.from_arrays(np.ones((24, 1)), group=np.arange(24) // 3)
        drawn = sample(reps, draws=200, seed=0)
        moved = weighted_means(drawn, x[np.argsort(np.argsort(reps.id.values.astype(int)))])["pooled"]
        factor = np.sqrt(8 / 7) * t.ppf(0.975, 7) / norm.ppf(0.975)
        for wide in held:
            around = moved[1:] if wide else moved[1:].mean() + (moved[1:] - moved[1:].mean()) / factor
            low, high = np.quantile(around, [0.025, 0.975])
            held[wide] += low <= 0 <= high
    assert 0.92 <= held[True] / 300 <= 0.98
    assert held[False] / 300 < 0.91


def test_one_group_of_a_language_has_a_value_and_no_interval():
    group = np.r_[np.zeros(20), np.arange(20) // 2 + 1]
    reps = probes.from_arrays(
        np.random.default_rng(0).normal(size=(40, 3)), language=np.repeat(["a", "b"], 20), group=group
    )
    out = probes.drift(reps, reps.assign(hidden=reps.hidden + 1)).sel(measure="norm_ratio", layer=0)
    assert np.isfinite(out.value).all()
    assert np.isnan(out.low.sel(language="a"))
    assert np.isfinite(out.low.sel(language="b"))


def test_rows_of_what_examples_hold_several_of_are_drawn_with_these():
    whole = drawn()
    of = np.repeat(np.arange(20), np.arange(20) % 3)
    found = whole.over(of)
    assert found.ids.tolist() == whole.ids[of].tolist()
    values = np.random.default_rng(0).normal(size=len(of))
    assert len(found.group("pooled")) == len(of)
    means = weighted_means(found, values)["pooled"]
    weights = whole.weights[:, whole.ids[of]].astype(float)
    np.testing.assert_allclose(means, weights @ values / weights.sum(axis=1))


@pytest.mark.parametrize(("column", "said"), [("tags", "its tags are of words"), ("labels", "its labels are several")])
def test_labels_of_another_kind_are_named_where_classes_of_texts_are_needed(column, said):
    reps = probes.from_arrays(np.ones((6, 2))).assign_coords({column: ("example", ["a b"] * 6)})
    with pytest.raises(
        probes.InputError, match=rf"needs labels, and the Representations have none \({said}.*Capture a"
    ):
        probes.snr(reps)
