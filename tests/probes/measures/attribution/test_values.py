"""Representer values: they sum to the logits, and what they find is what was planted."""

import numpy as np
import pandas as pd
import pytest
from explained import Head, data, halves, linear, of_model, with_one

import probes
from probes.measures.attribution import values as module
from probes.measures.attribution.representers import representers
from probes.measures.attribution.values import RepresenterValues


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
    monkeypatch.setattr(module, "_ENTRIES", entries)
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
    monkeypatch.setattr(module, "_ENTRIES", entries)
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


def test_says_in_one_line_what_it_is():
    values = representers(*halves())
    assert isinstance(values, RepresenterValues)
    assert repr(values).startswith(
        "<RepresenterValues of labels from layer 1 of model arrays: 180 training x 90 test rows, 4 classes, l2=0.0003; "
    )


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
