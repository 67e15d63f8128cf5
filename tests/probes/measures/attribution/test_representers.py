"""Representers: of labels, of linear heads, of models, always the same, and refused where nothing fits."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from explained import Head, data, gradient, halves, linear, of_model, outputs, refused, with_one
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

import probes
from probes.measures.attribution.representers import representers
from probes.measures.attribution.values import Certificate


def test_alpha_is_the_residual_over_twice_the_penalty_times_rows():
    x, t, y, _ = data()
    values = representers(x, t, labels=y, l2=0.02)
    p = softmax(with_one(x) @ values.theta.T, axis=1)
    np.testing.assert_allclose(values.alpha, (np.eye(4)[y] - p) / (2 * 0.02 * len(x)), atol=1e-10)


def test_says_where_it_does_not_come_to_a_stationary_point():
    x, t, y, _ = data()
    with pytest.warns(probes.LayerscopeWarning, match=r"stationary point \(gradient norm .* Use a larger l2"):
        representers(1e8 * x, t, labels=y, l2=1e-6)


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


def test_representations_are_trained_on_their_labels_from_the_last_layer():
    train, test = halves()
    x, t = (reps["hidden"].values[1] for reps in (train, test))
    expected = representers(x, t, labels=train["label"].values)
    for values in (representers(train, test), representers(train, test, layer=1)):
        np.testing.assert_array_equal(values.logits, expected.logits)
        assert values.test["language"].tolist() == test["language"].values.tolist()
    first = representers(train, test, layer=0)
    assert not np.allclose(first.logits, expected.logits)


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
