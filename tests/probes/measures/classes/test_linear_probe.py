import importlib

import numpy as np
import pytest
import xarray as xr
from planted import planted, with_split
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline

import probes
from probes.measures.classes.linear_probe import linear_probe
from probes.measures.classes.trained import weighed
from probes.results.draws import sample
from probes.results.intervals import interval
from probes.results.result import split_measures

MODULE = importlib.import_module(
    "probes.measures.classes.linear_probe"
)  # by this name the package may hold the function


@pytest.fixture
def few_fits(monkeypatch):
    """Two strengths and three shuffles, where neither is what is tested: a tenth of the fits."""
    monkeypatch.setattr(MODULE, "STRENGTHS", (1e-2, 1.0))
    monkeypatch.setattr(MODULE, "SHUFFLES", 3)


def measured(reps, **options):
    return split_measures(linear_probe(reps, **{"pivot": "l0", "progress": False, **options}))


def turned(reps, language="l1"):
    """Move every class of a language to where the next class lies in the others: as well separated, but elsewhere."""
    hidden, rows = reps.hidden.values.copy(), reps.language.values == language
    label = reps.label.values[rows].astype(int)
    shift = 3.0 * (np.eye(16)[(label + 1) % 4] - np.eye(16)[label])
    hidden[:, rows] += shift
    return reps.assign(hidden=(reps.hidden.dims, hidden))


def by_hand(x, y, train, test, strength):
    """Return a function: the probabilities of the test rows of an array, from a probe of the training rows of x."""
    middle, spread = x[train].mean(axis=0), x[train].std(axis=0)
    model = LogisticRegression(C=strength, max_iter=1000).fit((x[train] - middle) / spread, y[train])
    return lambda other: model.predict_proba((other[test] - middle) / spread)


def strength_by_hand(x, y, seed=0):
    def loss(strength):
        folds = StratifiedGroupKFold(4, shuffle=True, random_state=seed).split(x, y, np.arange(len(y)))
        return np.mean([log_loss(y[b], by_hand(x, y, a, b, strength)(x)) for a, b in folds])

    return min(MODULE.STRENGTHS, key=loss)


@pytest.mark.parametrize("seed", range(2))
def test_equals_plain_scikit_learn_on_a_split(seed):
    reps = with_split(planted(np.random.default_rng(seed), ids=150, distance=1.5, languages=2))
    out = measured(reps, seed=seed)
    x, y, split = reps.hidden[0].values, reps.label.values, reps.split.values
    one, other = (np.flatnonzero(reps.language.values == language) for language in ("l0", "l1"))
    # Rows in the order of ids as text, the order that everything random goes by.
    one, other = (rows[np.argsort(reps.id.values[rows])] for rows in (one, other))
    train, test = (np.flatnonzero(split[one] == part) for part in ("train", "test"))
    strength = strength_by_hand(x[one][train], y[one][train], seed)

    def accuracy(learned, tested, labels=y):
        found = by_hand(x[learned], labels[learned], train, test, strength)(x[tested]).argmax(axis=1)
        return np.mean(found == y[tested][test].astype(int))

    def shuffled(s):
        permuted = y.copy()
        codes = np.random.default_rng([seed, 0, s]).permutation(y[one][train].astype(int))
        permuted[one[train]] = np.unique(y)[codes]
        return permuted

    expected = {
        "linear_probe": (accuracy(one, one), accuracy(one, other)),
        "linear_probe_in_language": (accuracy(one, one), accuracy(other, other)),
        "linear_probe_control": tuple(
            np.mean([accuracy(one, rows, shuffled(s)) for s in range(MODULE.SHUFFLES)]) for rows in (one, other)
        ),
    }
    expected["linear_probe_selectivity"] = tuple(
        np.subtract(expected["linear_probe"], expected["linear_probe_control"])
    )
    for name, values in expected.items():
        np.testing.assert_allclose(out[name].value.sel(layer=0, language=["l0", "l1"]), values, atol=1e-12)
        assert out[name].n.values.tolist() == [50, 50, 50]


@pytest.mark.usefixtures("few_fits")
def test_equals_plain_scikit_learn_in_folds():
    reps = planted(np.random.default_rng(0), ids=100, distance=1.5, languages=1)
    x, y = reps.hidden[0].values, reps.label.values
    order = np.argsort(reps.id.values)
    right = []
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, y[order], reps.id.values[order]):
        train, test = order[train], order[test]
        found = by_hand(x, y, train, test, strength_by_hand(x[train], y[train]))(x).argmax(axis=1)
        right += (found == y[test].astype(int)).tolist()
    assert len(right) == 100
    out = measured(reps)["linear_probe"]
    assert out.value.sel(layer=0, language="l0").item() == pytest.approx(np.mean(right))
    assert out.n.sel(language="l0") == 100


def test_classes_in_the_same_places_are_read_in_every_language():
    out = measured(with_split(planted(np.random.default_rng(0), ids=240, languages=3)))
    for name in ("linear_probe", "linear_probe_in_language"):
        assert (out[name].value > 0.85).all()
    assert (out["linear_probe_selectivity"].value > 0.6).all()


def test_classes_in_other_places_are_read_in_the_language_but_not_from_the_pivot():
    out = measured(with_split(turned(planted(np.random.default_rng(0), ids=240))))
    assert out["linear_probe"].value.sel(language="l1") < 0.1  # every class is taken for the next one
    assert out["linear_probe"].value.sel(language="l0") > 0.85
    assert out["linear_probe_in_language"].value.sel(language="l1") > 0.85
    assert out["linear_probe_selectivity"].value.sel(language="l1") < 0


def test_classes_along_unrelated_directions_are_at_chance_from_the_pivot():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    x = rng.normal(size=(800, 64))
    x[:400] += 4 * np.eye(64)[y]
    x[400:] += 4 * np.eye(64)[y + 8]
    label = np.tile(y, 2)
    reps = probes.from_arrays(x, id=np.tile(np.arange(400), 2), language=["l0"] * 400 + ["l1"] * 400, label=label)
    out = measured(with_split(reps, test=0.5))
    assert out["linear_probe"].value.sel(language="l1").item() == pytest.approx(0.25, abs=0.1)
    assert out["linear_probe_in_language"].value.sel(language="l1") > 0.95


@pytest.mark.parametrize("split", [True, False])
def test_shuffled_labels_are_at_chance(split):
    reps = planted(np.random.default_rng(0), ids=240, languages=2)
    shuffled = np.random.default_rng(1).permutation(reps.label.values[:240])
    reps = reps.assign_coords(label=("example", np.tile(shuffled, 2)))
    out = measured(with_split(reps, test=0.5) if split else reps)
    for name, chance in (
        ("linear_probe", 0.25),
        ("linear_probe_in_language", 0.25),
        ("linear_probe_control", 0.25),
        ("linear_probe_selectivity", 0.0),
    ):
        np.testing.assert_allclose(out[name].value, chance, atol=0.1)
    assert (out["linear_probe_selectivity"].low < 0.05).all()


def test_the_control_is_chance_where_labels_are_perfectly_readable():
    control = measured(planted(np.random.default_rng(0), ids=240, languages=2, distance=9.0))["linear_probe_control"]
    np.testing.assert_allclose(control.value, 0.25, atol=0.05)
    assert ((control.low < 0.25) & (control.high > 0.25)).all()


@pytest.mark.usefixtures("few_fits")
@pytest.mark.parametrize("split", [True, False])
def test_no_probe_is_tested_on_a_sentence_it_was_trained_on(monkeypatch, split):
    reps = planted(np.random.default_rng(0), ids=60, languages=3)
    reps = reps.isel(example=np.random.default_rng(1).permutation(180)[:160])  # some translations are missing
    hidden = reps.hidden.values.copy()
    hidden[0, :, 0] = reps.id.values.astype(int)
    reps = reps.assign(hidden=(reps.hidden.dims, hidden))
    learned, asked = {}, []
    fit, predict = Pipeline.fit, Pipeline.predict

    def fit_seen(self, x, y=None, **options):
        learned[id(self)] = (self, set(x[:, 0]))  # held, so that no other gets its number
        return fit(self, x, y, **options)

    def predict_seen(self, x, **options):
        asked.append((id(self), set(x[:, 0])))
        return predict(self, x, **options)

    monkeypatch.setattr(Pipeline, "fit", fit_seen)
    monkeypatch.setattr(Pipeline, "predict", predict_seen)
    measured(with_split(reps) if split else reps)
    assert len(asked) > 3 * MODULE.SHUFFLES
    assert all(ids.isdisjoint(learned[probe][1]) for probe, ids in asked)


@pytest.mark.usefixtures("few_fits")
def test_every_row_is_tested_once_where_there_is_no_split():
    reps = planted(np.random.default_rng(0), ids=50, languages=2)
    for reps_ in (reps, reps.assign_coords(split=("example", np.full(100, "train", object)))):
        assert measured(reps_)["linear_probe"].n.sel(language=["l0", "l1"]).values.tolist() == [50, 50]


@pytest.mark.usefixtures("few_fits")
def test_rows_of_other_splits_are_left_out():
    reps = with_split(planted(np.random.default_rng(0), ids=120, languages=2), dev=0.2)
    hidden = reps.hidden.values.copy()
    hidden[:, reps.split.values == "dev"] = np.nan
    assert measured(reps)["linear_probe"].equals(
        measured(reps.assign(hidden=(reps.hidden.dims, hidden)))["linear_probe"]
    )


@pytest.mark.usefixtures("few_fits")
@pytest.mark.parametrize("split", [True, False])
def test_repeats_and_does_not_depend_on_the_order_of_rows(split):
    reps = planted(np.random.default_rng(0), ids=60, distance=1.5)
    reps = with_split(reps) if split else reps
    out = linear_probe(reps, pivot="l0", progress=False)
    assert out.identical(linear_probe(reps, pivot="l0", progress=False))
    shuffled = reps.isel(example=np.random.default_rng(1).permutation(120))
    again = linear_probe(shuffled, pivot="l0", progress=False).sel(language=out.language)
    for name in ("value", "low", "high", "n"):
        np.testing.assert_allclose(out[name], again[name], atol=1e-12)


@pytest.mark.usefixtures("few_fits")
def test_another_seed_draws_others():
    reps = with_split(planted(np.random.default_rng(0), ids=90, distance=1.5))
    a, b = (measured(reps, seed=seed) for seed in (0, 1))
    assert not np.array_equal(a["linear_probe"].low, b["linear_probe"].low)
    assert not np.array_equal(a["linear_probe_control"].value, b["linear_probe_control"].value)


@pytest.mark.usefixtures("few_fits")
def test_ignores_shift_and_scale_of_each_feature():
    reps = with_split(planted(np.random.default_rng(0), ids=120, distance=1.5))
    rng = np.random.default_rng(1)
    moved = reps.assign(hidden=reps.hidden * xr.DataArray(rng.uniform(0.1, 9, 16), dims="feature") + 5.0)
    a, b = measured(reps), measured(moved)
    for name in a:
        np.testing.assert_allclose(a[name].value, b[name].value, atol=0.03)  # but for where the solver stops


def test_a_shift_of_one_language_spoils_zero_shot_only():
    reps = with_split(planted(np.random.default_rng(0), ids=120))
    far = np.where(reps.language.values == "l1", 6.0, 0.0)[:, None] * np.eye(16)[0]
    a, b = measured(reps), measured(reps.assign(hidden=reps.hidden + xr.DataArray(far, dims=reps.hidden.dims[1:])))
    assert b["linear_probe"].value.sel(language="l1") < a["linear_probe"].value.sel(language="l1") - 0.3
    np.testing.assert_allclose(a["linear_probe_in_language"].value, b["linear_probe_in_language"].value, atol=0.03)


@pytest.mark.usefixtures("few_fits")
def test_pooled_is_the_mean_of_the_languages_other_than_the_pivot():
    reps = planted(np.random.default_rng(0), ids=60, languages=3, distance=1.5)
    for out in measured(reps).values():
        assert out.value.sel(language="pooled") == pytest.approx(out.value.sel(language=["l1", "l2"]).mean().item())
        assert out.n.sel(language="pooled") == 120
    alone = measured(reps.isel(example=reps.language.values == "l0"), pivot=None)["linear_probe"]
    assert alone.value.sel(language="pooled") == alone.value.sel(language="l0")


@pytest.mark.usefixtures("few_fits")
def test_intervals_hold_the_value_and_narrow_with_more_sentences():
    few, many = (measured(with_split(planted(np.random.default_rng(0), ids=n, distance=1.5))) for n in (90, 600))
    for name in few:
        for out in (few[name], many[name]):
            assert ((out.low <= out.value) & (out.value <= out.high)).all()
        if name != "linear_probe_control":  # whose interval is mostly that of the shuffles
            assert ((many[name].high - many[name].low) < (few[name].high - few[name].low)).all()


@pytest.mark.usefixtures("few_fits")
def test_draws_are_weighted_shares_of_what_is_right():
    reps = planted(np.random.default_rng(0), ids=100, distance=1.5, languages=1)
    draws = measured(reps, draws=500)["linear_probe"].draws.sel(layer=0, language="l0")
    value = measured(reps)["linear_probe"].value.item(0)
    assert draws.std().item() == pytest.approx(np.sqrt(value * (1 - value) / 100), rel=0.15)


@pytest.mark.usefixtures("few_fits")
def test_where_all_are_right_the_interval_is_the_exact_one():
    out = measured(with_split(planted(np.random.default_rng(0), ids=90, distance=20.0)))["linear_probe"]
    assert (out.value == 1).all()
    exact = binomtest(30, 30).proportion_ci(0.95)
    np.testing.assert_allclose(out.low.sel(language=["l0", "l1"]), exact.low, rtol=1e-9)
    assert (out.high == 1).all()


@pytest.mark.parametrize("n", [30, 360])
@pytest.mark.parametrize("accuracy", [0.6, 0.9])
def test_the_interval_holds_the_accuracy_as_often_as_it_says(n, accuracy):
    right = (np.random.default_rng(0).random((n, 800)) < accuracy).astype(float)
    weights = sample(probes.from_arrays(np.zeros((n, 1))), draws=200, seed=0).weights
    found = weighed(right, np.arange(n), weights, np.arange(n))
    low, high = interval(found[0], found[1:])
    inside = (low <= accuracy) & (accuracy <= high) | (right.mean(axis=0) == 1)  # then it is the exact one
    assert 0.92 < inside.mean() <= 1


@pytest.mark.usefixtures("few_fits")
def test_two_models_are_compared_on_the_same_sentences():
    reps = with_split(planted(np.random.default_rng(0), ids=180, distance=1.5))
    worse = with_split(planted(np.random.default_rng(0), ids=180, distance=0.7))
    base, other = measured(reps), measured(worse)
    same = probes.difference(base["linear_probe"], measured(reps)["linear_probe"])
    assert (same.difference == 0).all()
    gap = probes.difference(other["linear_probe"], base["linear_probe"]).sel(layer=0, language="pooled")
    assert gap.high < 0
    assert gap.p_adjusted < 0.05


@pytest.mark.usefixtures("few_fits")
def test_says_what_it_measured():
    out = linear_probe(planted(np.random.default_rng(0), ids=40), pivot="l0", progress=False)
    assert out.value.dims == ("measure", "layer", "language")
    assert out.language.values.tolist() == ["l0", "l1", "pooled"]
    assert out.attrs["pivot"] == "l0"
    assert dict(zip(out.measure.values, out.higher_is.values, strict=True)) == {
        "linear_probe": "better separated",
        "linear_probe_in_language": "better separated",
        "linear_probe_control": "more leakage",
        "linear_probe_selectivity": "better separated",
    }


@pytest.mark.usefixtures("few_fits")
def test_arrays_give_the_accuracy_in_folds():
    reps = planted(np.random.default_rng(0), ids=100, distance=1.5, languages=1)
    value = linear_probe(reps.hidden[0].values, reps.label.values)
    assert isinstance(value, float)
    assert value == measured(reps)["linear_probe"].value.item(0)


@pytest.mark.usefixtures("few_fits")
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_does_not_depend_on_the_scale(scale):
    reps = with_split(planted(np.random.default_rng(0), ids=120))
    a, b = measured(reps), measured(reps.assign(hidden=reps.hidden * scale))
    np.testing.assert_allclose(a["linear_probe"].value, b["linear_probe"].value, atol=0.03)


@pytest.mark.parametrize("constant", [0.0, 1e6 / 3])
def test_a_constant_layer_is_at_chance(constant):
    y = np.repeat(np.arange(3), [40, 20, 20])
    assert linear_probe(np.full((80, 4), constant), y) == 0.5


@pytest.mark.usefixtures("few_fits")
def test_the_bundled_model_is_read_in_english_and_less_in_hindi():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", languages=["en", "hi"])
    corpus = corpus.filter(lambda split: split != "dev", input_columns="split")
    reps = probes.capture(model, tokenizer, corpus, progress=False).isel(layer=[6])
    value = measured(reps, pivot="en")["linear_probe"].value.sel(layer=6)
    assert value.sel(language="en") > 0.97  # with the model's own head 0.989 and 0.478
    assert 0.4 < value.sel(language="hi") < 0.6


# What is refused, before anything is trained.


def refused(message, reps, **options):
    with pytest.raises(probes.InputError, match=message):
        measured(reps, **options)


@pytest.mark.usefixtures("untrained")
def test_labels_are_needed():
    reps = planted(np.random.default_rng(0), ids=40)
    refused("this probe needs labels, and the Representations have none", reps.drop_vars("label"))
    with pytest.raises(probes.InputError, match="expected labels beside the array, one a row"):
        linear_probe(reps.hidden[0].values, None)
    refused("compares classes, and there is only one: '0'", reps.isel(example=reps.label.values == "0"))


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("options", [{"draws": 1}, {"seed": -1}])
def test_draws_and_seed_are_checked(options):
    refused("expected a whole number", planted(np.random.default_rng(0), ids=40), **options)


@pytest.mark.usefixtures("few_fits")
def test_five_ids_of_each_class_are_enough():
    out = measured(planted(np.random.default_rng(0), ids=20, distance=20.0))["linear_probe"]
    assert (out.value > 0.9).all()


# What has no value, while the run goes on.


def spoiled(reps, row):
    hidden = reps.hidden.values.copy()
    hidden[1, row, 2] = np.inf
    return reps.assign(hidden=(reps.hidden.dims, hidden))


@pytest.mark.usefixtures("few_fits")
def test_a_test_row_that_is_not_finite_takes_the_value_of_its_language():
    reps = with_split(planted(np.random.default_rng(0), ids=60, layers=2, languages=3))
    with pytest.warns(
        probes.LayerscopeWarning,
        match=r"linear_probe(_in_language)? of model arrays has no value at layer 1: 1 rows are not finite \(l1, poo",
    ):
        out = measured(spoiled(reps, 60 + 59))
    whole = measured(reps)
    for name in out:
        assert np.isnan(out[name].value.sel(layer=1, language=["l1", "pooled"])).all()
        assert np.isnan(out[name].low.sel(layer=1, language=["l1", "pooled"])).all()
        np.testing.assert_array_equal(out[name].value.sel(layer=0), whole[name].value.sel(layer=0))
        np.testing.assert_array_equal(
            out[name].value.sel(layer=1, language=["l0", "l2"]), whole[name].value.sel(layer=1, language=["l0", "l2"])
        )


@pytest.mark.usefixtures("few_fits")
def test_a_training_row_that_is_not_finite_takes_the_probes_that_learn_from_it():
    reps = with_split(planted(np.random.default_rng(0), ids=60, layers=2))
    with pytest.warns(probes.LayerscopeWarning, match="1 rows are not finite"):
        of_pivot = measured(spoiled(reps, 0))
    for out in of_pivot.values():
        assert np.isnan(out.value.sel(layer=1)).all()
        assert np.isfinite(out.value.sel(layer=0)).all()
    with pytest.warns(probes.LayerscopeWarning, match="linear_probe_in_language .* 1 rows are not finite"):
        of_other = measured(spoiled(reps, 60))
    assert np.isfinite(of_other["linear_probe"].value).all()
    assert np.isnan(of_other["linear_probe_in_language"].value.sel(layer=1, language="l1"))
    assert np.isfinite(of_other["linear_probe_in_language"].value.sel(layer=1, language="l0"))


@pytest.mark.usefixtures("few_fits")
def test_a_language_without_training_rows_has_no_probe_of_its_own():
    reps = with_split(planted(np.random.default_rng(0), ids=60))
    reps = reps.isel(example=~((reps.language == "l1") & (reps.split == "train")).values)
    with pytest.warns(
        probes.LayerscopeWarning,
        match=r"linear_probe_in_language of .* at every layer: no row to train on \(l1\); every layer: a language",
    ):
        out = measured(reps)
    assert np.isnan(out["linear_probe_in_language"].value.sel(language=["l1", "pooled"])).all()
    assert np.isfinite(out["linear_probe"].value).all()
    assert np.isfinite(out["linear_probe_selectivity"].value).all()


@pytest.mark.usefixtures("few_fits")
def test_a_language_without_a_class_to_train_on_has_no_probe_of_its_own():
    reps = with_split(planted(np.random.default_rng(0), ids=60))
    lacking = (reps.language == "l1") & (reps.split == "train") & (reps.label == "3")
    with pytest.warns(probes.LayerscopeWarning, match=r"every layer: no row to train on of class '3' \(l1\)"):
        out = measured(reps.isel(example=~lacking.values))
    assert np.isnan(out["linear_probe_in_language"].value.sel(language="l1"))


def test_fits_that_do_not_converge_are_named(monkeypatch):
    monkeypatch.setattr(MODULE, "STEPS", 1)
    reps = with_split(planted(np.random.default_rng(0), ids=60, layers=2))
    with pytest.warns(probes.LayerscopeWarning, match=r"model arrays: fits did not converge in 1 steps at layer 0, 1"):
        measured(reps)
    with pytest.warns(probes.LayerscopeWarning, match="fits did not converge in 1 steps at layer 0"):
        linear_probe(reps.hidden[0].values[:60], reps.label.values[:60])
