"""Means over pairs of two classes: what units do to them, against jackknives and the spread over many samples."""

import brute_force
import numpy as np
import pytest
from planted import planted

import probes

PROBES = [probes.snr, probes.class_separability]
EACH = pytest.mark.parametrize("probe", PROBES)


def grouped(reps, each):
    """The same with groups of so many ids that follow each other."""
    return reps.assign_coords(group=("example", np.array([f"g{int(i) // each}" for i in reps.id.values], object)))


@EACH
def test_pairs_of_one_group_are_left_out(probe):
    reps = grouped(planted(np.random.default_rng(0), ids=48), 4)  # all four classes in every group
    out = probe(reps)
    for language in ("l0", "pooled"):
        part = reps.isel(example=(reps.language.values == language) | (language == "pooled"))
        x, y, unit = part.hidden[0].values, part.label.values, part.group.values
        expected = getattr(brute_force, probe.__name__)(x, y, unit)
        assert out.value.sel(language=language).item() == pytest.approx(expected, rel=1e-9)
        assert out.value.sel(language=language).item() != getattr(brute_force, probe.__name__)(x, y, part.id.values)


@EACH
@pytest.mark.parametrize("each", [1, 2])
def test_the_draws_follow_the_jackknife(probe, each):
    # Where classes lie far apart and are large, what a unit does is nearly all there is.
    reps = grouped(planted(np.random.default_rng(0), ids=80, distance=6.0, languages=1), each)
    out = probe(reps, draws=2000)
    units = np.unique(reps.group.values)
    without = [
        getattr(brute_force, probe.__name__)(part.hidden[0].values, part.label.values, part.group.values)
        for part in (
            reps.isel(example=reps.group.values != unit)
            for unit in np.random.default_rng(0).choice(units, 20, replace=False)
        )
    ]
    jackknife = np.sqrt((len(units) - 1) * np.var(without))
    assert out.draws.sel(language="l0").std().item() == pytest.approx(jackknife, rel=0.2)


@EACH
@pytest.mark.parametrize("design", [{"distance": 0.0}, {"distance": 1.0}, {"distance": 1.0, "classes": 2, "ids": 60}])
def test_draws_spread_as_samples_do_also_where_classes_hardly_differ(probe, design):
    samples = [planted(np.random.default_rng(s), layers=20, languages=1, **design) for s in range(10)]
    found = [probe(reps, draws=100).isel(language=0) for reps in samples]
    spread = np.std([out.value.values for out in found])
    said = np.sqrt(np.mean([np.square(out.draws.values.std(axis=0)) for out in found]))
    assert 0.9 < said / spread < 1.25  # Student's t is in what is said


@EACH
def test_a_part_of_the_pairs_tells_the_spread_of_many(probe, monkeypatch):
    reps = planted(np.random.default_rng(0), ids=240, distance=1.0)
    whole = probe(reps).draws.std("draw")
    monkeypatch.setattr("probes.measures.classes.class_pairs._MOST", 100)
    some = probe(reps).draws.std("draw")
    np.testing.assert_allclose(some, whole, rtol=0.05)


@EACH
def test_value_and_difference_are_for_pairs_of_different_sentences(probe):
    # Translations that are copies: pooled is as the language alone, in value, interval and difference.
    a, b = (planted(np.random.default_rng(0), ids=60, shared=1.0, distance=d) for d in (2.0, 3.0))
    a, b = (r.assign(hidden=(r.hidden.dims, np.tile(r.hidden.values[:, :60], (1, 2, 1)))) for r in (a, b))
    out = probe(a)
    for name in ("value", "low", "high"):
        assert out[name].sel(language="pooled").item() == pytest.approx(out[name].sel(language="l0").item())
    gap = probes.difference(probe(b), out)
    assert gap.low.sel(language="pooled").item() == pytest.approx(gap.low.sel(language="l0").item())


@EACH
def test_classes_that_are_points_have_a_value(probe):
    x = np.repeat(np.eye(4), 10, axis=0) + 1e-3 * np.tile(np.eye(4), (10, 1))
    out = probe(probes.from_arrays(x, label=np.repeat([*"abcd"], 10)))
    assert np.isfinite(out.value).all()
    assert ((out.low <= out.value) & (out.value <= out.high)).all()


@pytest.mark.parametrize("probe", [probes.snr, probes.fisher_ratio, probes.class_distance])
def test_float32_distances_of_many_states_give_the_same(probe, monkeypatch):
    wide = planted(np.random.default_rng(0), ids=120, distance=2.0)
    # Of classes that are much narrower than they lie apart float32 keeps too little: float64 is taken.
    narrow = wide.assign(hidden=wide.hidden + 1e4 * np.eye(wide.sizes["feature"])[wide.label.values.astype(int)])
    for reps, tolerance in ((wide, 1e-6), (narrow, 1e-12)):
        double = probe(reps)
        with monkeypatch.context() as patch:
            patch.setattr("probes.measures.classes.class_pairs._MANY", 0)
            single = probe(reps)
        for name in ("value", "low", "high"):
            np.testing.assert_allclose(single[name], double[name], rtol=tolerance)
        assert (single.value.values == double.value.values).all() == (reps is narrow)
