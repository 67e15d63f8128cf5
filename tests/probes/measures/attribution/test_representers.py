"""Representer values: the sums are the logits, at the minimum, and what they find is what was planted."""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from planted import planted
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

import probes
from probes.measures.attribution.representers import representers
from probes.measures.attribution.values import Certificate, RepresenterValues
from probes.models.fingerprint import weights_fingerprint

MODULE = sys.modules[representers.__module__]  # its name in the package is that of the function


def data(seed=0, n=240, m=60, d=12, classes=4, distance=2.0):
    """Features and labels of n training and m test rows."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n + m) % classes)
    x = rng.normal(size=(n + m, d)) + distance * np.eye(d)[y] + 1.0
    return x[:n], x[n:], y[:n], y[n:]


def with_one(x):
    return np.column_stack([x, np.ones(len(x))])


def gradient(values, target):
    """Of the objective at theta, written out."""
    f = values.train_features
    p = softmax(f @ values.theta.T, axis=1)
    return (p - target).T @ f / len(f) + 2 * values.l2 * values.theta


def halves(ids=90, seed=0, **settings):
    """Representations in three languages, train and test without a common id."""
    reps = planted(np.random.default_rng(seed), ids=ids, languages=3, layers=2, **settings)
    test = reps["id"].values.astype(int) % 3 == 0
    return reps.isel(example=~test), reps.isel(example=test)


class Head(torch.nn.Module):
    """What stands for a model: representers asks for its fingerprint alone."""

    def __init__(self, width, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(width, classes)


def of_model(head, **settings):
    """Representations as `capture` gives them for a model whose head sits on the last layer."""
    out = []
    for reps in halves(**settings):
        states = torch.tensor(reps["hidden"].values[-1], dtype=torch.float32)
        with torch.no_grad():
            logits = head.linear(states)
        reps = reps.assign(logits=(("example", "class"), logits), head_input=(("example", "head_feature"), states))
        reps = reps.assign_coords({"class": [f"c{i}" for i in range(logits.shape[1])]})
        out.append(reps.assign_attrs(weights=weights_fingerprint(head)))
    return out


# The minimum


@pytest.mark.parametrize("classes", [2, 4, 7])
@pytest.mark.parametrize("l2", [1e-5, 3e-4, 3e-2])
def test_reaches_a_stationary_point_where_the_values_sum_to_the_logits(classes, l2):
    x, t, y, _ = data(classes=classes)
    values = representers(x, t, labels=y, l2=l2)
    assert np.abs(gradient(values, np.eye(classes)[y])).max() < 1e-9 * l2 * np.abs(values.theta).max() + 1e-12
    summed = with_one(t) @ (values.alpha.T @ with_one(x)).T
    assert np.abs(summed - with_one(t) @ values.theta.T).max() < 1e-8 * np.abs(summed).max()
    assert values.certificate.relative_error < 1e-8
    assert values.certificate.gradient_norm < 1e-9


def test_equals_the_coefficients_of_logistic_regression():
    x, t, y, _ = data()
    model = LogisticRegression(C=1 / (2 * 0.01 * len(x)), fit_intercept=False, tol=1e-10, max_iter=5000)
    model.fit(with_one(x), y)
    values = representers(x, t, labels=y, l2=0.01)
    np.testing.assert_allclose(values.theta, model.coef_, atol=1e-6)
    np.testing.assert_allclose(values.logits, model.decision_function(with_one(t)), atol=1e-5)


def test_two_classes_are_one_logistic_regression_of_half_the_strength():
    """softmax over (-z/2, z/2) is the logistic function of z, and ||(-w/2, w/2)||^2 is ||w||^2 / 2."""
    x, t, y, _ = data(classes=2)
    model = LogisticRegression(C=1 / (0.01 * len(x)), fit_intercept=False, tol=1e-10, max_iter=5000)
    model.fit(with_one(x), y)
    values = representers(x, t, labels=y, l2=0.01)
    np.testing.assert_allclose(values.theta, np.concatenate([-model.coef_ / 2, model.coef_ / 2]), atol=1e-6)


def test_alpha_is_the_residual_over_twice_the_penalty_times_rows():
    x, t, y, _ = data()
    values = representers(x, t, labels=y, l2=0.02)
    p = softmax(with_one(x) @ values.theta.T, axis=1)
    np.testing.assert_allclose(values.alpha, (np.eye(4)[y] - p) / (2 * 0.02 * len(x)), atol=1e-10)


def test_under_a_large_penalty_alpha_and_theta_are_those_of_no_head_at_all():
    x, t, y, _ = data()
    values = representers(x, t, labels=y, l2=1e5)
    alpha = (np.eye(4)[y] - 1 / 4) / (2 * 1e5 * len(x))
    np.testing.assert_allclose(values.alpha, alpha, rtol=1e-4)
    np.testing.assert_allclose(values.theta, alpha.T @ with_one(x), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("layout", ["mean", "decaying", "wide", "scaled", "separable"])
def test_reaches_it_on_features_that_are_hard_to_search_along(layout):
    x, t, y, _ = data(d=24)
    if layout == "mean":
        x, t = (np.float32(z + 100) for z in (x, t))
    elif layout == "decaying":
        x, t = (z * np.arange(1, 25) ** -2.0 + 10 for z in (x, t))
    elif layout == "wide":
        rng = np.random.default_rng(1)
        x, t = (np.column_stack([z, rng.normal(size=(len(z), 400))]) for z in (x, t))
    elif layout == "scaled":
        x, t = x * 300, t * 300
    else:
        x, t = x + 20 * np.eye(24)[y], t
    values = representers(x, t, labels=y)
    assert values.certificate.relative_error < 1e-6


def test_labels_in_balance_without_features_have_logits_of_zero():
    values = representers(np.zeros((6, 2)), np.zeros((2, 2)), labels=[0, 1, 2] * 2)
    assert np.abs(values.logits).max() < 1e-12
    assert values.certificate.error < 1e-12


def test_says_where_it_does_not_come_to_a_stationary_point():
    x, t, y, _ = data()
    with pytest.warns(probes.LayerscopeWarning, match=r"stationary point \(gradient norm .* Use a larger l2"):
        representers(1e8 * x, t, labels=y, l2=1e-6)


def test_large_sets_are_searched_in_float32_to_the_same_end(monkeypatch):
    x, t, y, _ = data()
    there = representers(x, t, labels=y)
    monkeypatch.setattr(MODULE, "_LARGE", 0)
    np.testing.assert_allclose(representers(x, t, labels=y).theta, there.theta, atol=1e-7)


def test_a_search_that_float32_cannot_end_goes_on_in_float64(monkeypatch):
    monkeypatch.setattr(MODULE, "_LARGE", 0)
    x, t, y, _ = data(d=24)
    values = representers(1000 * x, 1000 * t, labels=y)
    assert values.certificate.relative_error < 1e-6


# Sums


@pytest.mark.parametrize("rows", [[0], [3, 1, 4, 1], np.arange(0, 60, 7), np.arange(60) < 9])
def test_values_sum_to_the_logits_of_whatever_test_rows_are_asked_for(rows):
    x, t, y, _ = data()
    values = representers(x, t, labels=y)
    for target in ("0", "3"):
        expected = (with_one(t) @ values.theta.T)[rows, int(target)]
        np.testing.assert_allclose(values.matrix(rows, target=target).sum(axis=1), expected, atol=1e-7)
    expected = values.logits[rows].max(axis=1)
    np.testing.assert_allclose(values.matrix(rows).sum(axis=1), expected, atol=1e-7)


def test_a_test_row_has_the_same_values_among_few_and_among_many():
    x, t, y, _ = data()
    many, few = representers(x, t, labels=y), representers(x, t[[5, 2]], labels=y)
    np.testing.assert_allclose(few.matrix(), many.matrix([5, 2]), rtol=1e-12)


def test_values_are_alpha_times_inner_products():
    x, t, y, _ = data()
    values = representers(x, t, labels=y)
    expected = (with_one(t) @ with_one(x).T) * values.alpha[:, 2]
    np.testing.assert_allclose(values.matrix(target="2"), expected, rtol=1e-12)


@pytest.mark.parametrize("entries", [2**22, 1000, 1])
def test_top_in_blocks_equals_brute_force_on_the_matrix(entries, monkeypatch):
    monkeypatch.setattr(MODULE, "_ENTRIES", entries)
    x, t, y, _ = data()
    values = representers(x, t, labels=y)
    matrix = values.matrix()
    top = values.top(k=3)
    assert len(top) == len(t) * 6
    for row in (0, 17, 59):
        found = top[top["test_id"] == str(row)]
        order = np.argsort(-matrix[row])
        assert found[found["side"] == "excitatory"]["id"].tolist() == [str(i) for i in order[:3]]
        assert found[found["side"] == "inhibitory"]["id"].tolist() == [str(i) for i in order[::-1][:3]]
        np.testing.assert_allclose(found["value"], matrix[row][found["id"].astype(int)])
        pd.testing.assert_frame_equal(values.top(row, k=3), found.reset_index(drop=True))


def test_top_gives_every_language_of_a_sentence_unless_one_is_named():
    train, test = halves()
    values = representers(train, test)
    top = values.top("6", k=2)
    assert top["test_language"].unique().tolist() == ["l0", "l1", "l2"]
    assert len(top) == 3 * 2 * 2
    assert list(top) == [
        "test_id",
        "test_language",
        "target",
        "side",
        "rank",
        "value",
        "id",
        "language",
        "label",
        "text",
    ]
    one = values.top("6", k=2, language="l1", target="3")
    assert set(one["test_language"]) == {"l1"}
    assert set(one["target"]) == {"3"}
    assert (one["value"] > 0).tolist() == [True, True, False, False]


def test_top_leaves_out_rows_whose_value_has_the_other_sign():
    x = np.abs(data(d=4)[0][:4])
    values = representers(x, x[:1], labels=[0, 0, 0, 1])
    top = values.top(0, k=4, target="0")
    assert top["side"].value_counts().to_dict() == {"excitatory": 3, "inhibitory": 1}


def test_net_support_sums_to_the_mean_logit_of_the_predicted_class():
    train, test = halves()
    values = representers(train, test)
    logit = pd.Series(values.logits.max(axis=1))
    languages = values.by_language()
    assert len(languages) == 9
    by_test = languages.groupby("test_language", sort=False)["net"].sum()
    np.testing.assert_allclose(by_test, logit.groupby(values.test["language"], sort=False).mean(), rtol=1e-7)
    classes = values.by_class()
    by_predicted = classes.groupby("predicted", sort=False)["net"].sum()
    np.testing.assert_allclose(by_predicted, logit.groupby(values.predicted, sort=False).mean(), rtol=1e-7)


@pytest.mark.parametrize("entries", [2**22, 500])
def test_support_by_language_and_class_equals_brute_force(entries, monkeypatch):
    monkeypatch.setattr(MODULE, "_ENTRIES", entries)
    values = representers(*halves())
    matrix = values.matrix()
    for table, of_test, of_train in (
        (values.by_language(), values.test["language"], values.train["language"]),
        (values.by_class(), values.predicted, values.train["label"]),
    ):
        for a, b, excitatory, inhibitory, net, n in table.itertuples(index=False):
            part = matrix[np.asarray(of_test == a)][:, np.asarray(of_train == b)]
            assert n == len(part)
            assert excitatory == pytest.approx(part.clip(min=0).sum(axis=1).mean(), abs=1e-9)
            assert inhibitory == pytest.approx(part.clip(max=0).sum(axis=1).mean(), abs=1e-9)
            assert net == pytest.approx(part.sum(axis=1).mean(), abs=1e-9)


def test_support_of_every_row_is_what_by_language_averages():
    values = representers(*halves())
    contributions, logit = values.support()
    assert list(contributions) == ["l0", "l1", "l2"]
    np.testing.assert_allclose(contributions.sum(axis=1), logit, atol=1e-7)
    means = contributions.groupby(values.test["language"]).mean()
    table = values.by_language().pivot(index="test_language", columns="train_language", values="net")
    np.testing.assert_allclose(means, table, atol=1e-9)


def test_a_language_that_lies_apart_supports_itself():
    rng = np.random.default_rng(0)
    label, language = np.tile(np.arange(3), 120), np.repeat([0, 1], 180)
    # Classes differ along other directions in each language.
    x = rng.normal(size=(360, 12)) + 3 * np.eye(12)[label + 3 * language]
    ids = np.concatenate([np.arange(180), np.arange(180)])
    reps = probes.from_arrays(x, id=ids, language=np.array(["a", "b"])[language], label=label)
    test = ids >= 120
    table = representers(reps.isel(example=~test), reps.isel(example=test), l2=0.1).by_language()
    net = table.pivot(index="test_language", columns="train_language", values="net").to_numpy()
    assert net[0, 0] > 3 * abs(net[0, 1])
    assert net[1, 1] > 3 * abs(net[1, 0])


# What labels say


def flipped(seed=0):
    x, t, y, _ = data(seed, n=400, d=16, distance=3.0)
    rng = np.random.default_rng(seed + 100)
    wrong = rng.permutation(400)[:40]
    y = y.copy()
    y[wrong] = (y[wrong] + rng.integers(1, 4, 40)) % 4
    return x, t, y, wrong


@pytest.mark.parametrize("seed", range(3))
def test_planted_wrong_labels_are_among_the_first_fifth(seed):
    x, t, y, wrong = flipped(seed)
    found = representers(x, t, labels=y, l2=1e-2).mislabelled()
    assert found["rank"].tolist() == list(range(1, 401))
    assert (found["alpha"].abs().diff().iloc[1:] <= 0).all()
    assert np.isin(wrong, found.index[:80]).mean() > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_right_labels_are_no_more_often_among_them_than_by_chance(seed):
    """The same rows as above, but with their own labels: the negative control."""
    x, t, y, _ = data(seed, n=400, d=16, distance=3.0)
    rows = np.random.default_rng(seed + 100).permutation(400)[:40]
    found = representers(x, t, labels=y, l2=1e-2).mislabelled()
    assert np.isin(rows, found.index[:80]).mean() < 0.4


def test_shuffled_labels_say_nothing_about_unseen_rows():
    x, t, y, expected = data(n=400, m=200)
    shuffled = np.random.default_rng(1).permutation(y)
    right = representers(x, t, labels=y).predicted.astype(int) == expected
    chance = representers(x, t, labels=shuffled).predicted.astype(int) == expected
    assert right.mean() > 0.7
    assert chance.mean() < 0.4


def test_of_labels_the_certificate_compares_the_head_with_itself():
    x, t, y, _ = data()
    certificate = representers(x, t, labels=y).certificate
    assert isinstance(certificate, Certificate)
    assert certificate.correlation_train == pytest.approx(1)
    assert certificate.correlation_test == pytest.approx(1)
    assert certificate.agreement == 1


def test_classes_are_in_their_own_order():
    x, t, y, _ = data()
    assert representers(x, t, labels=y * 5).classes == ["0", "5", "10", "15"]
    assert representers(x, t, labels=np.array(["d", "b", "c", "a"])[y]).classes == ["a", "b", "c", "d"]


def test_representations_are_trained_on_their_labels_from_the_last_layer():
    train, test = halves()
    x, t = (reps["hidden"].values[1] for reps in (train, test))
    expected = representers(x, t, labels=train["label"].values)
    for values in (representers(train, test), representers(train, test, layer=1)):
        np.testing.assert_array_equal(values.logits, expected.logits)
        assert values.test["language"].tolist() == test["language"].values.tolist()
    first = representers(train, test, layer=0)
    assert not np.allclose(first.logits, expected.logits)


# What explains a head


def linear(width, classes, scale=1.0, seed=0):
    torch.manual_seed(seed)
    head = torch.nn.Linear(width, classes)
    with torch.no_grad():
        head.weight.mul_(scale * np.sqrt(width))
    return head


def outputs(head, x):
    with torch.no_grad():
        return torch.nn.functional.linear(
            torch.tensor(x, dtype=torch.float64), head.weight.double(), head.bias.double()
        ).numpy()


def test_explains_a_linear_head_by_its_own_outputs():
    x, t, _, _ = data(classes=4)
    head = linear(12, 4)
    values = representers(x, t, head=head)
    assert values.classes == ["0", "1", "2", "3"]
    assert values.certificate.correlation_test > 0.9999
    assert np.abs(gradient(values, softmax(outputs(head, x), axis=1))).max() < 1e-11
    assert values.predicted.astype(int).tolist() == outputs(head, t).argmax(axis=1).tolist()


def test_a_smaller_penalty_follows_the_head_more_closely():
    x, t, _, _ = data()
    found = [representers(x, t, head=linear(12, 4), l2=l2).certificate.correlation_test for l2 in (1e-1, 1e-3, 1e-5)]
    assert found == sorted(found)
    assert found[0] < 0.999 < 0.999999 < found[-1]


def test_a_head_with_one_output_is_two_classes_of_half_of_it():
    x, t, _, _ = data()
    one, two = linear(12, 1), torch.nn.Linear(12, 2)
    with torch.no_grad():
        two.weight.copy_(torch.cat([-one.weight, one.weight]) / 2)
        two.bias.copy_(torch.cat([-one.bias, one.bias]) / 2)
    a, b = representers(x, t, head=one), representers(x, t, head=two)
    assert a.classes == ["0", "1"]
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-6)
    np.testing.assert_allclose(a.logits[:, 1] - a.logits[:, 0], outputs(one, t)[:, 0], rtol=0.05, atol=0.05)


def test_a_head_without_bias_is_explained():
    x, t, _, _ = data()
    head = torch.nn.Linear(12, 3, bias=False)
    assert representers(x, t, head=head).certificate.correlation_test > 0.9999


def test_explains_fifteen_classes_on_unseen_rows():
    """The head is trained on half of the rows whose outputs it is explained by, the test rows unseen by both."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 15, 4000)
    x = rng.normal(size=(4000, 128)) + 0.6 * rng.normal(size=(15, 128))[y]
    trained = LogisticRegression(max_iter=300).fit(x[:1500], y[:1500])
    head = torch.nn.Linear(128, 15)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(trained.coef_))
        head.bias.copy_(torch.tensor(trained.intercept_))
    certificate = representers(x[:3000], x[3000:], head=head).certificate
    assert certificate.relative_error < 1e-6
    assert certificate.correlation_test > 0.9999
    assert certificate.agreement > 0.99


def test_explains_a_model_from_the_input_of_its_head_or_from_a_layer():
    head = Head(16)
    train, test = of_model(head)
    values = representers(train, test, head=head)
    assert values.classes == ["c0", "c1", "c2", "c3"]
    assert values.predicted.tolist() == test["class"].values[test["logits"].values.argmax(axis=1)].tolist()
    assert values.certificate.correlation_test > 0.9999
    last = representers(train, test, head=head, layer=1)
    np.testing.assert_allclose(last.logits, values.logits, atol=1e-4)  # its states, in float32
    first = representers(train, test, head=head, layer=0).certificate
    assert first.correlation_test < values.certificate.correlation_test


@pytest.fixture(scope="module")
def bundled():
    model, tokenizer = probes.load_checkpoint("bundled")
    found = []
    for split, ids in (("train", 200), ("test", 60)):
        corpus = probes.load_corpus("bundled", split=split)
        keep = set(sorted(set(corpus["id"]))[:: len(set(corpus["id"])) // ids])
        rows = [i for i, name in enumerate(corpus["id"]) if name in keep]
        found.append(probes.capture(model, tokenizer, corpus.select(rows), progress=False))
    return model, *found


def test_explains_the_bundled_model_on_unseen_sentences_in_all_languages(bundled):
    model, train, test = bundled
    values = representers(train, test, head=model)
    assert values.certificate.relative_error < 1e-6
    assert values.certificate.correlation_test > 0.9999
    assert values.certificate.correlation_train > 0.9999
    assert values.certificate.agreement > 0.99
    contributions, logit = values.support()
    np.testing.assert_allclose(contributions.sum(axis=1), logit, atol=1e-6)
    assert set(contributions) == set(test["language"].values)


def test_each_class_of_the_bundled_model_is_supported_most_by_rows_that_carry_its_label(bundled):
    model, train, test = bundled
    table = representers(train, test, head=model).by_class()
    most = table.loc[table.groupby("predicted")["net"].idxmax()]
    assert most["predicted"].tolist() == most["train_label"].tolist()
    assert len(most) == 6


# Sameness


def test_repeated_runs_are_identical():
    x, t, y, _ = data()
    a, b = (representers(x, t, labels=y) for _ in range(2))
    np.testing.assert_array_equal(a.alpha, b.alpha)
    pd.testing.assert_frame_equal(a.top(), b.top())


def test_does_not_depend_on_the_order_of_rows():
    train, test = halves()
    order = np.random.default_rng(0).permutation(train.sizes["example"])
    a, b = representers(train, test), representers(train.isel(example=order), test)
    np.testing.assert_allclose(a.alpha[order], b.alpha, atol=1e-9)
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-7)
    pd.testing.assert_frame_equal(a.top("3", k=3), b.top("3", k=3), rtol=1e-6)


def test_leaves_the_input_as_it_was():
    x, t, y, _ = data()
    before = x.copy()
    representers(x, t, labels=y)
    np.testing.assert_array_equal(x, before)


def test_reads_a_store_as_it_reads_memory(tmp_path):
    head = Head(16)
    train, test = of_model(head)
    train["class"] = train["class"].astype(object)
    train.to_zarr(tmp_path / "train.zarr", consolidated=False)
    opened = probes.open_representations(tmp_path / "train.zarr")
    a, b = representers(train, test, head=head), representers(opened, test, head=head)
    np.testing.assert_array_equal(a.alpha, b.alpha)


def test_says_in_one_line_what_it_is():
    values = representers(*halves())
    assert isinstance(values, RepresenterValues)
    assert repr(values).startswith(
        "<RepresenterValues of labels from layer 1 of model arrays: 180 training x 90 test rows, 4 classes, l2=0.0003; "
    )


# Bad input


def refused(match, *args, **settings):
    """Nothing but InputError, and before the search."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MODULE, "_minimum", None)
        with pytest.raises(probes.InputError, match=match):
            representers(*args, **settings)


@pytest.mark.parametrize("l2", [0, -1.0, float("nan"), float("inf"), "1", None, True])
def test_refuses_a_penalty_that_is_none(l2):
    x, t, y, _ = data()
    refused("expected a number above 0; 3e-4 is the default", x, t, labels=y, l2=l2)


def test_refuses_labels_and_head_together_and_neither():
    x, t, y, _ = data()
    refused("labels and head exclude each other", x, t, labels=y, head=linear(12, 4))
    refused("expected labels, one a training row, or head", x, t)
    train, test = halves()
    refused("expected head=model, to explain its outputs, or a coordinate 'label'", train.drop_vars("label"), test)
    refused("labels go beside arrays; Representations carry their own", train, test, labels=train["label"].values)


def test_refuses_an_array_beside_representations():
    train, test = halves()
    refused("found train: Representations, test: an array", train, test["hidden"].values[0])
    refused("found train: an array, test: Representations", train["hidden"].values[0], test)
    refused("expected Representations", xr.Dataset(), test)


def test_refuses_arrays_of_another_form():
    x, t, y, _ = data()
    refused("train: expected real numbers", x[0], t, labels=y)
    refused("test: expected real numbers", x, t.astype(str), labels=y)
    refused("train: expected real numbers .* found \\(0, 12\\)", x[:0], t, labels=y[:0])
    refused("test: expected real numbers .* found \\(0, 12\\)", x, t[:0], labels=y)
    refused("train has 12 features and test 11", x, t[:, :11], labels=y)
    refused("layer=3 is for Representations", x, t, labels=y, layer=3)


def test_refuses_empty_representations():
    train, test = halves()
    refused("train is empty", train.isel(example=slice(0)), test)
    refused("test is empty", train, test.isel(example=slice(0)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_names_the_row_that_is_not_finite(bad):
    x, t, y, _ = data()
    x[7, 3] = bad
    refused(r"train row 7 \(id '7', language 'und'\): not finite", x, t, labels=y)
    train, test = halves()
    test["hidden"][1, 40, 2] = bad
    where = f"id '{test['id'].values[40]}', language '{test['language'].values[40]}', layer 1"
    refused(rf"test row 40 \({where}\): not finite", train, test)
    assert len(representers(train, test, layer=0).test) == 90


def test_names_the_row_whose_logits_are_not_finite():
    head = Head(16)
    train, test = of_model(head)
    train["logits"][5, 0] = np.nan
    refused(r"train row 5 .*, logits\): not finite", train, test, head=head)


def test_refuses_labels_that_do_not_fit():
    x, t, y, _ = data()
    refused(r"labels: expected 240, one a training row; found \(239,\)", x, t, labels=y[1:])
    refused("labels: null in row 2", x, t, labels=np.where(np.arange(240) == 2, np.nan, y))
    refused("at least 2 classes among the training labels, found only '0'", x, t, labels=0 * y)


def test_refuses_a_class_that_train_lacks():
    train, test = halves()
    train = train.isel(example=train["label"].values != "2")
    row = np.flatnonzero(test["label"].values == "2")[0]
    refused(f"test row {row} has the label '2', which no training row has; those are '0', '1', '3'", train, test)


def test_refuses_a_layer_that_is_not_there():
    refused("layer=9: no such layer in train; there are 0, 1", *halves(), layer=9)


def test_refuses_a_head_that_does_not_fit():
    x, t, _, _ = data()
    refused("head takes 5 features, and the arrays have 12", x, t, head=linear(5, 3))
    refused("expected the torch.nn.Linear that the arrays feed, found Sequential", x, t, head=torch.nn.Sequential())


def test_refuses_states_of_another_model():
    head = Head(16)
    train, test = of_model(head)
    other = Head(16)
    with torch.no_grad():
        other.linear.bias.add_(1)
    refused("train: expected states of the model that head is .* Capture train again", train, test, head=other)
    unnamed = test.drop_attrs()
    refused("test: expected states of the model that head is .* found none named", train, unnamed, head=head)
    refused("train and test differ in weights", train, test.assign_attrs(weights="x"))
    mixed = train.assign_attrs(pooling="mean"), test.assign_attrs(pooling="first")
    refused("train and test differ in pooling: 'mean' and 'first'", *mixed)


def test_refuses_a_model_without_a_classification_head():
    head = Head(16)
    train, test = of_model(head)
    refused(
        "test: no logits, .* Capture a model with a classification head", train, test.drop_vars("logits"), head=head
    )
    refused("train: no head_input, .* layer=1", train.drop_vars("head_input"), test, head=head)
    one = Head(16, classes=1)
    refused("expected logits of at least 2 classes, found one", *of_model(one), head=one)
    head.config = type("Config", (), {"problem_type": "multi_label_classification", "to_dict": lambda self: {}})()
    refused("only single_label_classification", train, test, head=head)


def test_warns_of_ids_that_are_in_train_and_in_test():
    reps = planted(np.random.default_rng(0), ids=30, languages=2)
    train, test = (reps.isel(example=reps["language"].values == k) for k in ("l0", "l1"))
    with pytest.warns(probes.LayerscopeWarning, match="30 of 30 test ids are also in train .* Split by id"):
        representers(train, test)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        representers(*halves())


def test_says_what_there_is_where_an_id_language_or_class_is_unknown():
    values = representers(*halves())
    for match, ask in (
        ("no test row has the id 'x'; there are '0', '3', '6', '9', '12', ...", lambda: values.top("x")),
        (
            "no test row of id '3' has the language 'l9'; there are 'l0', 'l1', 'l2'",
            lambda: values.top("3", language="l9"),
        ),
        ("no class 'x'; there are '0', '1', '2', '3'", lambda: values.top("3", target="x")),
        ("no class 'x'", lambda: values.matrix(target="x")),
        ("k=0: expected a whole number of at least 1", lambda: values.top("3", k=0)),
    ):
        with pytest.raises(probes.InputError, match=match):
            ask()


def test_asks_for_labels_where_they_are_needed():
    x, t, _, _ = data()
    values = representers(x, t, head=linear(12, 4))
    for ask in (values.by_class, values.mislabelled):
        with pytest.raises(probes.InputError, match="needs the labels of the training rows, and there are none"):
            ask()
    head = Head(16)
    with pytest.raises(probes.InputError, match="label '0' of the training rows is not among the classes 'c0', 'c1'"):
        representers(*of_model(head), head=head).mislabelled()


# --- what each language carries, as a probe --------------------------------------------------------------------------


def with_splits(logits=True, **settings):
    """Both halves in one data set, told apart by `split`, with outputs that a model may have given."""
    train, test = halves(**settings)
    reps = xr.concat([train, test], "example")
    split = np.repeat(["train", "test"], [train.sizes["example"], test.sizes["example"]])
    reps = reps.assign_coords(split=("example", split.astype(object)))
    if not logits:
        return reps
    given = 2 * reps.hidden.values[-1][:, :4] + np.random.default_rng(1).normal(size=(len(split), 4))
    return reps.assign(logits=(("example", "class"), given)).assign_coords({"class": [*"0123"]})


@pytest.mark.parametrize("logits", [True, False])
def test_support_is_the_share_of_each_training_language_in_the_logits(logits):
    reps = with_splits(logits)
    out = MODULE.representer_support(reps, progress=False)
    assert out.value.dims == ("layer", "other_language", "language")
    np.testing.assert_allclose(out.value.sum("other_language"), 1, atol=1e-8)
    np.testing.assert_allclose(out.draws.sum("other_language"), 1, atol=1e-8)
    train, test = (reps.isel(example=reps.split.values == s) for s in ("train", "test"))
    if logits:
        targets = softmax(train.logits.values, axis=1)
        picked = test.logits.values.argmax(axis=1)
    for layer in (0, 1):
        values = representers(train, test, layer=layer)
        if logits:  # the same solution, from its definition
            head = LogisticRegression(C=1 / (2 * 3e-4 * len(targets)), fit_intercept=False, max_iter=10_000, tol=1e-12)
            f = with_one(train.hidden.values[layer])
            weight = targets.T.ravel()
            head.fit(np.tile(f, (4, 1)), np.repeat(np.arange(4), len(f)), sample_weight=weight)
            p = head.predict_proba(f)
            alpha = (targets - p) / (2 * 3e-4 * len(f))
            matrix = alpha.T[picked] * (with_one(test.hidden.values[layer]) @ f.T)
        else:
            matrix = values.matrix()
        for language in ("l0", "l2", "pooled"):
            rows = np.isin(test.language.values, [language]) | (language == "pooled")
            mine = train.language.values == "l1"
            share = matrix[rows][:, mine].sum() / matrix[rows].sum()
            at = out.sel(layer=layer, other_language="l1", language=language)
            assert float(at.value) == pytest.approx(share, abs=1e-3 if logits else 1e-8)
            assert at.low <= at.value <= at.high
            assert at.n == rows.sum()


def test_a_language_that_training_lacks_has_no_share():
    reps = with_splits()
    reps = reps.isel(example=~((reps.split.values == "train") & (reps.language.values == "l2")))
    out = probes.compare({"a": reps}, probes=["representer_support"], draws=20, progress=False).table
    assert set(out["other_language"]) == {"l0", "l1"}
    assert set(out["language"]) == {"l0", "l1", "l2", "pooled"}
    shares = out.groupby(["layer", "language"])["value"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-8)


def test_support_needs_splits_that_share_no_id_and_says_so():
    support = MODULE.representer_support
    reps = with_splits()
    with pytest.raises(
        probes.InputError, match=r"no row has the split 'train'; expected a coordinate 'split'.*Capture a"
    ):
        support(reps.drop_vars("split"))
    with pytest.raises(probes.InputError, match="no row has the split 'test'"):
        support(reps.isel(example=reps.split.values == "train"))
    mixed = reps.assign_coords(split=("example", np.where(reps.language.values == "l0", "train", "test")))
    with pytest.raises(probes.InputError, match=r"id '\d+' is in split 'train' and in split 'test'.*own translations"):
        support(mixed)


def test_a_layer_that_is_not_finite_has_no_support_and_is_named():
    reps = with_splits().copy(deep=True)
    reps.hidden.values[0, 3, 1] = np.inf
    with pytest.warns(probes.LayerscopeWarning, match="layer 0: 1 rows are not finite"):
        out = MODULE.representer_support(reps, progress=False)
    assert np.isnan(out.value.sel(layer=0)).all()
    assert np.isfinite(out.value.sel(layer=1)).all()


def test_logits_that_are_not_finite_leave_no_support_and_are_named():
    reps = with_splits().copy(deep=True)
    reps.logits.values[5] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match="every layer: the logits of 1 rows are not finite"):
        out = MODULE.representer_support(reps, progress=False)
    assert np.isnan(out.value).all()
