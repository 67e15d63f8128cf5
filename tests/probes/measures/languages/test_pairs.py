"""What retrieval, margin retrieval and alignment gap share, each against brute force."""

import brute_force
import numpy as np
import pytest
from planted import planted, translations
from scipy.stats import ortho_group

import probes

PROBES = [probes.retrieval, probes.margin_retrieval, probes.alignment_gap]

EACH = pytest.mark.parametrize("probe", PROBES)


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
