import importlib

import numpy as np
import pytest
from planted import planted, with_split
from sklearn.linear_model import LogisticRegression

import probes
from probes.measures.classes.sparse_probe import likeness, needed, one_vs_rest, sparse_probe
from probes.results.result import split_measures

MODULE = importlib.import_module("probes.measures.classes.sparse_probe")


@pytest.fixture(autouse=True)
def few_fits(monkeypatch):
    monkeypatch.setattr(MODULE, "PENALTIES", 6)
    monkeypatch.setattr(MODULE, "HALVES", 3)


def measured(reps, **options):
    return split_measures(sparse_probe(reps, **{"pivot": "l0", "progress": False, "draws": 50, **options}))


def carried(seed=0, ids=300, features=30, moved=False, spread=False):
    """A class that three features carry, or all of them a little; in the second language the same ones, or others."""
    rng = np.random.default_rng(seed)
    y = np.arange(ids) % 2
    hidden = []
    for language in range(2):
        where = 3 * (language if moved else 0) + np.arange(3)
        part = np.full(features, 3 / np.sqrt(features)) if spread else 1.7 * np.isin(np.arange(features), where)
        hidden.append((y[:, None] - 0.5) * part + rng.normal(size=(ids, features)))
    reps = probes.from_arrays(
        np.concatenate(hidden), id=np.tile(np.arange(ids), 2), language=["l0"] * ids + ["l1"] * ids, label=np.tile(y, 2)
    )
    return with_split(reps)


def test_a_class_that_three_features_carry_takes_three_and_one_that_all_carry_takes_many():
    few, many = measured(carried()), measured(carried(spread=True))
    assert (few["sparse_probe_features"].value <= 4).all()
    assert (few["sparse_probe"].value > 0.85).all()
    assert (few["sparse_probe_stability"].value > 0.25).all()
    stability = [out["sparse_probe_stability"].value.mean() for out in (few, many)]
    assert stability[0] > stability[1] + 0.1
    assert (many["sparse_probe_features"].value > 10).all()
    assert (many["sparse_probe_features"].low >= 3).all()


def test_a_linear_probe_reads_both_alike_and_spreads_its_weights_over_all():
    reps, spread = carried(), carried(spread=True)
    linear = [
        split_measures(probes.linear_probe(one, pivot="l0", progress=False, draws=10))["linear_probe"].value
        for one in (reps, spread)
    ]
    assert np.abs(linear[0] - linear[1]).max() < 0.1
    x, y = reps.hidden[0].values[:300], reps.label.values[:300]
    dense = LogisticRegression().fit(x, y).coef_[0]
    assert (dense != 0).all()
    assert (np.sort(np.abs(dense))[-3:] ** 2).sum() < 0.95 * (dense**2).sum()


def test_the_same_features_in_both_languages_are_shared_and_others_are_not():
    same, other = measured(carried()), measured(carried(moved=True))
    name = "sparse_probe_pivot_support"
    assert same["sparse_probe_overlap"].value.sel(language="l1") > 0.4
    assert other["sparse_probe_overlap"].value.sel(language="l1") < 0.2
    assert same[name].value.sel(language="l1") > 0.85
    assert other[name].value.sel(language="l1") < 0.65
    assert other["sparse_probe_in_language"].value.sel(language="l1") > 0.85
    assert other["sparse_probe_overlap"].value.sel(language="l0") == 1


@pytest.mark.filterwarnings("ignore:sparse_probe_:probes.LayerscopeWarning")  # it may well choose no feature
def test_labels_that_say_nothing_are_at_chance():
    reps = carried()
    label = np.random.default_rng(1).permutation(reps.label.values[:300])
    out = measured(reps.assign_coords(label=("example", np.tile(label, 2))))
    np.testing.assert_allclose(out["sparse_probe"].value, 0.5, atol=0.15)
    assert np.abs(out["sparse_probe_stability"].value.fillna(0)).max() < 0.25


def test_all_fits_are_certified():
    out = sparse_probe(carried(), pivot="l0", progress=False, draws=10)
    assert 0 < out.attrs["residual"] < 1e-6


def test_predictions_are_those_of_the_largest_margin_by_hand():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 5)) + 2 * np.eye(5)[y]
    found = one_vs_rest(x, y, 4)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for k in range(4):
        margins = np.stack([z @ w + b for w, b in zip(found.weights[k], found.intercepts[k], strict=True)])
        np.testing.assert_array_equal(found.predict(x)[k], margins.argmax(axis=0))
    limited = one_vs_rest(x, y, 4, np.arange(5) < 2)
    assert not limited.support()[:, 2:].any()


def test_likeness_is_chance_corrected():
    rng = np.random.default_rng(0)
    at_random = [likeness(rng.random((4, 100)) < 0.3) for _ in range(200)]
    assert np.mean(at_random) == pytest.approx(0, abs=0.02)
    assert likeness(np.tile(rng.random(50) < 0.3, (3, 1))) == 1
    one, other = np.arange(10) < 5, np.arange(10) >= 5
    assert likeness(np.stack([one, other])) == -1
    assert np.isnan(likeness(np.zeros((2, 4), bool)))


def test_needed_is_the_smallest_that_is_enough_draw_by_draw():
    paths = np.array([[0.5, 0.95, 1.0], [0.5, 0.6, 1.0], [0.99, 0.6, 1.0]])
    assert needed(paths, np.array([1, 4, 9])).tolist() == [4, 9, 1]


def test_halves_keep_groups_together(monkeypatch):
    seen = []
    monkeypatch.setattr(MODULE, "one_vs_rest", lambda x, *_: seen.append(x) or stub)
    stub = type("Stub", (), {"support": lambda self: np.eye(2, dtype=bool)})()
    units = np.repeat(np.arange(10), 3)
    MODULE._stability(units[:, None] * 1.0, units % 2, units, 2, 0)
    assert len(seen) == 3
    assert all((np.unique(x, return_counts=True)[1] == 3).all() and len(np.unique(x)) == 5 for x in seen)


def test_folds_keep_groups_together(monkeypatch):
    monkeypatch.setattr(MODULE, "PENALTIES", 2)
    reps = planted(np.random.default_rng(0), ids=40, languages=1, features=4, classes=2)
    group = np.array([f"g{int(i) // 4}" for i in reps.id.values], dtype=object)
    of_row = {tuple(row): one for row, one in zip(reps.hidden[0].values, group, strict=True)}
    fit, seen = MODULE.one_vs_rest, []

    def spied(x, *rest):
        seen.append([of_row[tuple(row)] for row in x])
        return fit(x, *rest)

    monkeypatch.setattr(MODULE, "one_vs_rest", spied)
    measured(reps.assign_coords(group=("example", group)))
    assert {len(learned) for learned in seen} >= {32, 24}  # of all folds, and of those that choose the penalty
    assert all(learned.count(one) == 4 for learned in seen for one in learned)


def test_a_constant_layer_has_accuracy_at_chance_and_no_features_to_compare():
    reps = planted(np.random.default_rng(0), ids=40)
    with pytest.warns(probes.LayerscopeWarning, match="sparse_probe_(stab|over).* no feature is chosen, or all are"):
        out = measured(with_split(reps.assign(hidden=reps.hidden * 0 + 3.0), test=0.4))
    assert (out["sparse_probe_features"].value == 0).all()
    assert np.isnan(out["sparse_probe_stability"].value).all()
    assert np.isfinite(out["sparse_probe"].value).all()


def test_fits_that_do_not_converge_are_named(monkeypatch):
    monkeypatch.setattr(MODULE, "l1_path", lambda *args, tolerance: probes_path(*args))
    path = importlib.import_module("probes.measures.classes.l1_path").l1_path
    probes_path = lambda *args: path(*args, steps=1)  # noqa: E731
    with pytest.warns(probes.LayerscopeWarning, match="sparse_probe of model arrays: fits did not converge at layer 0"):
        measured(carried(ids=60))


@pytest.mark.usefixtures("untrained")
def test_what_cannot_be_trained_is_refused_before_the_work():
    with pytest.raises(probes.InputError, match="this probe needs labels, and the Representations have none"):
        measured(carried().drop_vars("label"))
    with pytest.raises(probes.InputError, match="pivot 'xx': no such language in the corpus"):
        measured(carried(), pivot="xx")
