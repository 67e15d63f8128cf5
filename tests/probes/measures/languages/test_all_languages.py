"""Retrieval among the sentences of all languages: against brute force, planted languages, and what it cannot do."""

from dataclasses import replace

import brute_force
import numpy as np
import pytest
from planted import planted

import probes
from probes.measures.catalogue import by_name
from probes.measures.probe import Run
from probes.results.draws import sample

FINDS = [probes.retrieval, probes.margin_retrieval]
EACH = pytest.mark.parametrize("probe", FINDS)


def found(probe, reps, pivot="l0", **settings):
    return probe(reps, pivot=pivot, pool="all", **settings)


def by_brute_force(probe, reps, language, pivot, layer=0):
    given = reps.hidden[layer].values, reps.id.values, reps.language.values
    return brute_force.retrieval_all_languages(*given, language, pivot, probe is probes.margin_retrieval)


@EACH
def test_equals_brute_force_in_every_layer_and_language_of_shuffled_rows_with_gaps(probe, monkeypatch):
    monkeypatch.setattr("probes.measures.languages.neighbours._ENTRIES", 7 * 64)  # some rows at a time
    reps = planted(np.random.default_rng(0), ids=25, layers=2, languages=3, shared=0.5, classes=1)
    reps = reps.isel(example=np.random.default_rng(1).permutation(75)[:64])
    out = found(probe, reps, "l1", draws=20)
    values = np.array([[by_brute_force(probe, reps, x, "l1", layer) for x in ("l0", "l2")] for layer in range(2)])
    assert len(np.unique(values)) > 2
    np.testing.assert_allclose(out.value.sel(language=["l0", "l2"]), values, rtol=1e-12)
    np.testing.assert_allclose(out.value.sel(language="pooled"), values.mean(axis=1), rtol=1e-12)
    ids = {x: set(reps.id.values[reps.language.values == x]) for x in ("l0", "l1", "l2")}
    assert out.n.sel(language="l0") == len(ids["l0"] & ids["l1"])


@EACH
def test_a_draw_weighs_an_id_by_what_leaving_it_out_changes(probe):
    reps = planted(np.random.default_rng(3), ids=20, languages=3, shared=0.4, classes=1)
    declared = by_name()[f"{probe.__name__}_all_languages"]
    drawn = replace(sample(reps, draws=20, seed=0), weights=np.vstack([np.ones(20), 1 - np.eye(20)]))
    out = declared.measure(Run(reps, drawn, pivot="l0")).draws.sel(language="l1").values[:, 0]
    if probe is probes.margin_retrieval:  # which keeps the neighbours that there are
        assert np.ptp(out) > 0
        return
    names = np.unique(drawn.ids)
    without = [by_brute_force(probe, reps.isel(example=drawn.ids != i), "l1", "l0") for i in names]
    assert len(set(without)) > 2
    np.testing.assert_allclose(out - out.mean(), without - np.mean(without), rtol=1e-12)


@EACH
def test_what_languages_have_in_common_of_their_own_hides_the_translation(probe):
    rng = np.random.default_rng(0)
    sentence, *noise = (np.pad(scale * rng.normal(size=(60, 29)), [(0, 0), (3, 0)]) for scale in (1, 0.1, 0.1, 0.1))
    far = np.concatenate([sentence + noise[k] + 8 * np.eye(32)[k] for k in range(3)])
    labels = {"id": np.tile(np.arange(60), 3), "language": np.repeat(["l0", "l1", "l2"], 60)}
    reps = probes.from_arrays(far, **labels)
    assert (probe(reps, pivot="l0").value == 1).all()  # which looks in one language at a time
    # A margin is over the neighbours in each language, so it does not see what a whole language has.
    assert (found(probe, reps).value == (0 if probe is probes.retrieval else 1)).all()
    near = probes.from_arrays(np.concatenate([sentence + one for one in noise]), **labels)
    assert (found(probe, near).value == 1).all()


def test_is_never_easier_and_the_same_where_other_languages_lie_apart():
    rng = np.random.default_rng(0)
    reps = planted(rng, ids=60, languages=4, shared=0.5, classes=1)
    assert (found(probes.retrieval, reps).value < probes.retrieval(reps, pivot="l0").value).any()
    assert (found(probes.retrieval, reps).value <= probes.retrieval(reps, pivot="l0").value).all()
    # A language at a right angle to the others is no distractor.
    x = np.pad(rng.normal(size=(40, 8)), [(0, 0), (0, 8)])
    noise, far = np.pad(rng.normal(size=(40, 8)), [(0, 0), (0, 8)]), np.roll(x, 8, axis=1)
    labels = {"id": np.tile(np.arange(40), 3), "language": np.repeat(["l0", "l1", "l2"], 40)}
    three = probes.from_arrays(np.concatenate([x, x + noise, far]), **labels)
    of_three, of_two = (
        found(probes.retrieval, one).value.sel(language="l1") for one in (three, three[{"example": slice(80)}])
    )
    assert 0.1 < of_two.item() == of_three.item() < 1


@EACH
def test_translations_in_the_wrong_order_are_at_chance(probe):
    reps = planted(np.random.default_rng(0), ids=100, languages=3, shared=0.95, classes=1)
    wrong = reps.assign_coords(id=("example", np.where(reps.language == "l0", np.roll(reps.id, 7), reps.id)))
    assert found(probe, reps).value.sel(language="l1") > 0.6
    assert found(probe, wrong).value.sel(language="l1") < 0.05


@EACH
def test_a_tie_counts_as_right_and_equal_states_have_no_value(probe):
    x = np.repeat(np.random.default_rng(0).normal(size=(10, 6)), 2, axis=0)
    labels = {"id": np.tile(np.arange(20), 3), "language": np.repeat(["l0", "l1", "l2"], 20)}
    assert (found(probe, probes.from_arrays(np.tile(x, (3, 1)), **labels)).value == 1).all()
    with pytest.warns(probes.LayerscopeWarning, match=r"layer 0: undefined here \(0/0\)"):
        assert np.isnan(found(probe, probes.from_arrays(np.ones((60, 6)), **labels)).value).all()


def test_a_state_that_is_no_number_leaves_its_layer_without_a_value():
    reps = planted(np.random.default_rng(0), ids=20, languages=3, layers=2)
    hidden = reps.hidden.values.copy()
    hidden[1, 45] = np.nan  # of l2, which the others are looked for in
    with pytest.warns(probes.LayerscopeWarning, match=r"layer 1: 1 rows of all languages are not finite \(l1, l2, p"):
        out = found(probes.retrieval, reps.assign(hidden=(reps.hidden.dims, hidden)))
    assert np.isnan(out.value.sel(layer=1)).all()
    assert np.isfinite(out.value.sel(layer=0)).all()


def test_the_interval_holds_the_mean_over_corpora_of_this_size():
    values, held = [], []
    for seed in range(40):
        out = found(
            probes.retrieval, planted(np.random.default_rng(seed), ids=40, languages=3, shared=0.5, classes=1), draws=50
        )
        values.append(out.value.sel(language="l1").item())
        held.append((out.low.sel(language="l1").item(), out.high.sel(language="l1").item()))
    low, high = np.array(held).T
    assert 0.2 < np.mean(values) < 0.8
    assert np.mean((low <= np.mean(values)) & (np.mean(values) <= high)) >= 0.9
    assert np.mean(high - low) < 1.5 * 2 * 1.96 * np.std(values)


def test_a_comparison_measures_it_by_name_and_judges_by_it():
    reps = planted(np.random.default_rng(0), ids=80, languages=3, shared=0.99)
    worse = planted(np.random.default_rng(1), ids=80, languages=3, shared=0.5)
    found = probes.compare({"base": reps, "small": worse}, pivot="l0", probes=["retrieval_all_languages"], draws=50)
    assert found.verdict().state("small") == "lost"
    assert set(found.verdict().models["probe"]) == {"retrieval_all_languages"}


def test_no_such_pool_and_two_arrays_are_refused():
    x = np.eye(6)
    with pytest.raises(probes.InputError, match="pool='every': expected one of 'language', 'all'"):
        probes.retrieval(x, x, pool="every")
    for probe in FINDS:
        with pytest.raises(probes.InputError, match=r"two arrays are of two: expected Representations, found ndarray"):
            probe(x, x, pool="all")
    reps = probes.from_arrays(np.eye(6), id=[0, 1, 2] * 2, language=np.repeat(["a", "b"], 3))
    with pytest.raises(probes.InputError, match="shares 3 ids with the pivot 'b', and needs at least 4"):
        probes.margin_retrieval(reps, pivot="b", pool="all")
    with pytest.raises(probes.InputError, match=r"expected pivot=\.\.\."):
        probes.retrieval(reps, pool="all")
