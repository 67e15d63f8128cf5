"""What representers read: checked, in its own order, and refused before the search."""

import warnings

import numpy as np
import pytest
import torch
from explained import Head, data, halves, linear, of_model, refused
from planted import planted

import probes
from probes.measures.attribution.representers import representers


def test_classes_are_in_their_own_order():
    x, t, y, _ = data()
    assert representers(x, t, labels=y * 5).classes == ["0", "5", "10", "15"]
    assert representers(x, t, labels=np.array(["d", "b", "c", "a"])[y]).classes == ["a", "b", "c", "d"]


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
