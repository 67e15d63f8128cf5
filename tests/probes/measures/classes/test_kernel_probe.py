import importlib

import numpy as np
import pytest
from planted import planted, with_split
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression

import probes
from probes.measures.classes.kernel_probe import kernel_probe, mean_distance, of_gains
from probes.results.result import split_measures

MODULE = importlib.import_module("probes.measures.classes.kernel_probe")


@pytest.fixture(autouse=True)
def few_fits(monkeypatch):
    monkeypatch.setattr(MODULE, "GRIDS", 128)
    monkeypatch.setattr(MODULE, "BANDWIDTHS", (3.0,))
    monkeypatch.setattr(MODULE, "STRENGTHS", (10.0,))
    monkeypatch.setattr(MODULE, "SHUFFLES", 2)
    monkeypatch.setattr("probes.measures.classes.linear_probe.STRENGTHS", (0.1,))


def measured(reps, **options):
    return split_measures(kernel_probe(reps, **{"pivot": "l0", "progress": False, "draws": 50, **options}))


def crossed(seed=0, ids=240, features=4, languages=2, linear=False):
    """A class that is the sign of a product of two features, or of one; translations share the signs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ids, features))
    y = (x[:, 0] if linear else x[:, 0] * x[:, 1]) > 0
    hidden = np.concatenate([x + 0.1 * rng.normal(size=x.shape) for _ in range(languages)])
    names = np.repeat([f"l{k}" for k in range(languages)], ids)
    reps = probes.from_arrays(
        hidden, id=np.tile(np.arange(ids), languages), language=names, label=np.tile(y, languages)
    )
    return with_split(reps)


def test_what_no_line_shows_is_found_and_what_a_line_shows_is_no_gain():
    found = {linear: measured(crossed(linear=linear)) for linear in (False, True)}
    assert (found[False]["kernel_probe"].value > 0.8).all()
    assert (found[False]["gain_over_linear"].low > 0.15).all()
    assert (found[False]["gain_over_linear_in_language"].low > 0.15).all()
    assert (found[True]["gain_over_linear"].value < 0.03).all()
    assert (found[True]["gain_over_linear"].low < 0).all()
    np.testing.assert_allclose(found[False]["kernel_probe_control"].value, 0.5, atol=0.15)


def test_labels_that_say_nothing_are_no_gain():
    reps = crossed()
    reps = reps.assign_coords(label=("example", np.tile(np.random.default_rng(1).permutation(reps.label[:240]), 2)))
    out = measured(reps)
    assert (out["gain_over_linear"].low < 0).all()
    np.testing.assert_allclose(out["kernel_probe"].value, 0.5, atol=0.15)


def test_the_gain_is_the_difference_to_the_linear_probe_on_the_same_rows():
    reps = crossed(ids=120)
    out = measured(reps)
    linear = split_measures(probes.linear_probe(reps, pivot="l0", progress=False, draws=50))
    for suffix in ("", "_in_language"):
        np.testing.assert_allclose(
            out[f"gain_over_linear{suffix}"].value,
            out[f"kernel_probe{suffix}"].value - linear[f"linear_probe{suffix}"].value,
            atol=1e-12,
        )


def test_the_span_of_the_rows_has_the_solution_of_all_bins():
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, 60, 3))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    drawn = MODULE.grids(3, 128, 3.0 / mean_distance((x - x.mean(axis=0)) / x.std(axis=0)), 0)
    bins = [MODULE.hashed((part - x.mean(axis=0)) / x.std(axis=0), drawn) for part in (x, other)]
    features, of_others = MODULE.binned(*bins)
    whole = LogisticRegression(C=10.0, max_iter=3000, tol=1e-8).fit(features, y)
    said = MODULE.fitted(x, y, [(np.arange(40), np.arange(40, 60))], seed=0)(x, [y, 1 - y])(other)
    np.testing.assert_array_equal(said[0], whole.predict(of_others))
    np.testing.assert_array_equal(said[1], 1 - said[0])


def test_the_mean_distance_is_that_of_all_pairs():
    x = np.random.default_rng(0).normal(size=(30, 5))
    assert mean_distance(x) == pytest.approx(pdist(x, "cityblock").mean())
    assert mean_distance(np.ones((4, 2))) == 0


def test_groups_stay_together(monkeypatch):
    reps = planted(np.random.default_rng(0), ids=80, languages=2)
    groups = np.array([f"g{int(i) // 4}" for i in reps.id.values], dtype=object)
    reps = reps.assign_coords(group=("example", groups))
    seen = []

    def spied(x, y, inner, *, seed):
        seen.append({tuple(row) for row in x})
        return lambda x, labellings: lambda x: np.zeros((len(labellings), len(x)), int)

    monkeypatch.setattr(MODULE, "fitted", spied)
    measured(reps)
    of_group = {}
    for row, group, language in zip(reps.hidden[0].values, groups, reps.language.values, strict=True):
        of_group.setdefault(group, []).append(tuple(row)) if language == "l0" else None
    assert len(seen) == 5
    assert all(len(set(rows) & part) in (0, 4) for part in seen for rows in of_group.values())


def test_a_constant_layer_is_at_chance():
    reps = planted(np.random.default_rng(0), ids=40)
    out = measured(reps.assign(hidden=reps.hidden * 0 + 3.0))
    np.testing.assert_allclose(out["kernel_probe"].value, 0.25)
    assert (out["gain_over_linear"].value == 0).all()


def test_where_both_read_the_same_the_interval_of_the_gain_is_not_a_point():
    out = measured(with_split(planted(np.random.default_rng(0), ids=90, distance=20.0)))["gain_over_linear"]
    assert (out.value == 0).all()
    np.testing.assert_allclose(out.high.sel(language="l1"), 1.96 * np.sqrt(2) / 30, rtol=1e-3)


def test_the_interval_of_a_gain_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    reps = probes.from_arrays(np.zeros((60, 1)))
    drawn = MODULE.sample(reps, draws=200, seed=0)
    apart = rng.choice([-1.0, 0.0, 1.0], p=[0.03, 0.82, 0.15], size=(60, 500))
    statistics = MODULE.weighed(apart, np.arange(60), drawn.weights, drawn.units, (-1, 1))
    about = {"probe": "gain_over_linear", "interval": ""}
    out = MODULE.result(reps, drawn, {"und": statistics}, about, over={"layer": np.arange(500)})
    out = of_gains(out)
    inside = (out.low <= 0.12) & (out.high >= 0.12)
    assert 0.93 < inside.mean() < 0.99


@pytest.mark.usefixtures("untrained")
def test_what_cannot_be_trained_is_refused_before_the_work():
    with pytest.raises(probes.InputError, match="this probe needs labels, and the Representations have none"):
        measured(planted(np.random.default_rng(0), ids=40).drop_vars("label"))
    with pytest.raises(probes.InputError, match="pivot 'xx': no such language in the corpus"):
        measured(planted(np.random.default_rng(0), ids=40), pivot="xx")
