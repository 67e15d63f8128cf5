import brute_force
import numpy as np
import pytest
from planted import planted
from scipy.stats import ortho_group

import probes

PROBES = [probes.retrieval, probes.margin_retrieval, probes.alignment_gap]
EACH = pytest.mark.parametrize("probe", PROBES)
FINDS = pytest.mark.parametrize("probe", PROBES[:2])


def translations(seed=0, n=60, d=10, noise=0.8):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x + 0.3, x + noise * rng.normal(size=(n, d)) + 0.3


@EACH
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(probe, seed):
    x, y = translations(seed, n=40 + 9 * seed)
    expected = getattr(brute_force, probe.__name__)(x, y)
    assert 0.1 < expected < 0.95
    assert probe(x, y) == pytest.approx(expected, rel=1e-12)


@EACH
def test_equals_brute_force_in_every_layer_and_language(probe):
    reps = planted(np.random.default_rng(0), ids=40, layers=2, languages=3)
    reps = reps.isel(example=np.random.default_rng(1).permutation(120)[:100])
    out = probe(reps, pivot="l1")
    assert out.language.values.tolist().count("l1") == 0
    for layer in range(2):
        values = []
        for language in ("l0", "l2"):
            here, there = (reps.isel(example=reps.language.values == k) for k in (language, "l1"))
            shared, i, j = np.intersect1d(here.id.values, there.id.values, return_indices=True)
            assert out.n.sel(language=language) == len(shared)
            x, y = here.hidden[layer].values[i], there.hidden[layer].values[j]
            values.append(getattr(brute_force, probe.__name__)(x, y))
            assert out.value.sel(layer=layer, language=language).item() == pytest.approx(values[-1])
        assert out.value.sel(layer=layer, language="pooled").item() == pytest.approx(np.mean(values))


@EACH
def test_ignores_what_it_says_it_ignores(probe):
    x, y = translations()
    rotation = ortho_group.rvs(x.shape[1], random_state=0)
    lengths = np.random.default_rng(0).uniform(0.5, 2, size=(len(x), 1))
    order = np.random.default_rng(1).permutation(len(x))
    for a, b in ((x @ rotation * 3, y @ rotation), (x * lengths, y), (x[order], y[order])):
        assert probe(a, b) == pytest.approx(probe(x, y), rel=1e-9)


@EACH
def test_does_not_ignore_shift_or_a_rotation_of_one_side(probe):
    x, y = translations()
    rotation = ortho_group.rvs(x.shape[1], random_state=0)
    assert probe(x @ rotation, y) < probe(x, y) / 2
    assert probe(x + 50.0, y) != pytest.approx(probe(x, y), rel=0.01)


@EACH
def test_translations_in_the_wrong_order_are_at_chance(probe):
    x, y = translations(n=200, noise=0.2)
    wrong = np.roll(np.arange(200), 7)
    assert probe(x, y) > 0.8
    assert abs(probe(x, y[wrong])) < 0.05


@FINDS
def test_a_tie_with_the_right_one_counts_as_right(probe):
    x = np.repeat(np.random.default_rng(0).normal(size=(20, 6)), 2, axis=0)
    assert probe(x, x) == 1.0
    # What separates equal texts that ran in different batches.
    rounding = 1 + 1e-7 * np.random.default_rng(1).normal(size=x.shape)
    assert probe(x.astype(np.float32), (x * rounding).astype(np.float32)) == 1.0


@FINDS
def test_a_near_miss_is_no_tie(probe):
    x = np.random.default_rng(0).normal(size=(20, 6))
    x[1] = x[0] + 1e-2
    y = x.copy()
    y[[0, 1]] = y[[1, 0]]
    assert probe(x, y) == pytest.approx(0.9)


@FINDS
def test_states_that_are_all_equal_have_no_value(probe):
    reps = probes.from_arrays(np.ones((20, 4)), id=np.tile(np.arange(10), 2), language=np.repeat(["a", "b"], 10))
    with pytest.warns(probes.LayerscopeWarning, match=r"layer 0: undefined here \(0/0\)"):
        assert np.isnan(probe(reps, pivot="b").value).all()


@FINDS
def test_states_with_a_large_common_mean_do_not_tie(probe):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(200, 64)).astype(np.float32) + np.float32(1000) for _ in range(2))
    assert probe(x, y) == pytest.approx(getattr(brute_force, probe.__name__)(x, y), abs=0.01)
    assert probe(x, y) < 0.05
    assert probe(x, x * np.float32(1 + 1e-7)) == 1.0


def test_none_right_has_the_exact_binomial_interval():
    from scipy.stats import binomtest

    x = np.eye(30)
    reps = probes.from_arrays(
        np.concatenate([x, np.roll(x, 1, axis=0)]), id=np.tile(np.arange(30), 2), language=np.repeat(["a", "b"], 30)
    )
    out = probes.retrieval(reps, pivot="b")
    assert (out.value == 0).all()
    np.testing.assert_allclose(out.high, binomtest(0, 30).proportion_ci(0.95, "exact").high)
    np.testing.assert_allclose(out.low, 0)


def test_margin_finds_what_a_hub_hides():
    # A sentence that lies close to everything is the cosine neighbour of many, and the margin's of none but its own.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 30))
    y = x + 1.2 * rng.normal(size=x.shape)
    y[0] = 3 * x.mean(axis=0) + 0.2 * x[0]
    assert probes.margin_retrieval(x, y) > probes.retrieval(x, y)


def test_margin_counts_no_match_where_its_scale_is_not_positive():
    angles = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    x = np.column_stack([np.cos(angles), np.sin(angles)])
    # The four nearest of the opposite points have a negative mean cosine for every sentence.
    assert probes.margin_retrieval(x, -0.2 * x) == 0.0


@FINDS
def test_where_all_are_right_the_interval_is_the_exact_binomial_one(probe):
    from scipy.stats import binomtest

    reps = planted(np.random.default_rng(0), ids=50, features=64, shared=0.99)
    out = probe(reps, pivot="l0")
    exact = binomtest(50, 50).proportion_ci(0.95, "exact")
    assert (out.value == 1).all()
    np.testing.assert_allclose(out.low, exact.low)
    np.testing.assert_allclose(out.high, 1.0)


@FINDS
def test_blocks_of_similarities_give_the_same_as_one(probe, monkeypatch):
    x, y = translations()
    whole = probe(x, y)
    monkeypatch.setattr("probes.measures.languages.neighbours._ENTRIES", 7 * len(x))
    assert probe(x, y) == pytest.approx(whole, rel=1e-12)


def test_blocks_of_rows_give_the_same_gap_as_one(monkeypatch):
    x, y = translations()
    whole = probes.alignment_gap(x, y)
    monkeypatch.setattr("probes.measures.languages.alignment_gap.BLOCK", 7)
    assert probes.alignment_gap(x, y) == pytest.approx(whole, rel=1e-12)


@EACH
def test_nan_is_missing_in_its_language_and_named(probe):
    reps = planted(np.random.default_rng(0), ids=30, languages=3, layers=2)
    hidden = reps.hidden.values.copy()
    hidden[1, np.flatnonzero(reps.language.values == "l2")[4]] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match=r"layer 1: 1 rows are not finite \(l2, pooled\)"):
        out = probe(reps.assign(hidden=(reps.hidden.dims, hidden)), pivot="l0")
    assert np.isnan(out.value.sel(layer=1, language=["l2", "pooled"])).all()
    assert np.isfinite(out.value.sel(layer=1, language="l1"))


@EACH
def test_bad_pivots_are_refused(probe):
    reps = planted(np.random.default_rng(0), ids=20)
    with pytest.raises(probes.InputError, match=r"pivot 'xx': no such language in the corpus; there are 'l0', 'l1'"):
        probe(reps, pivot="xx")
    with pytest.raises(probes.InputError, match=r"expected pivot=\.\.\."):
        probe(reps)
    with pytest.raises(probes.InputError, match="there is no other language"):
        probe(reps.isel(example=reps.language.values == "l0"), pivot="l0")


@EACH
def test_no_shared_id_is_refused(probe):
    reps = probes.from_arrays(np.eye(20), id=np.arange(20), language=np.repeat(["a", "b"], 10))
    with pytest.raises(probes.InputError, match="language 'a' shares no ids with the pivot 'b'"):
        probe(reps, pivot="b")


@EACH
def test_arrays_of_different_shape_are_refused(probe):
    with pytest.raises(probes.InputError, match=r"expected two arrays \(sentence, feature\) of one shape"):
        probe(np.eye(4), np.eye(5))


def test_margin_needs_as_many_sentences_as_neighbours():
    reps = probes.from_arrays(np.eye(6), id=[0, 1, 2] * 2, language=np.repeat(["a", "b"], 3))
    with pytest.raises(probes.InputError, match="shares 3 ids with the pivot 'b', and needs at least 4"):
        probes.margin_retrieval(reps, pivot="b")
