"""Predictions: labels by the names or the numbers of classes; what names no class is refused."""

import numpy as np
import pytest
import xarray as xr

import probes
from probes.states.predictions import (
    are_numbers,
    class_names,
    classes_in_words,
    decisions,
    label_codes,
    numbers_of,
    predicted_numbers,
    predicts,
    right_classes,
    several_codes,
)


@pytest.mark.parametrize("labels", [["yes", "no", "yes"], ["1", "0", "1"]])
def test_labels_are_numbers_of_classes_by_name_or_by_number(labels):
    assert label_codes(np.array(labels), ["no", "yes"], "m").tolist() == [1, 0, 1]


def test_names_go_before_numbers():
    assert label_codes(np.array(["0", "1"]), ["1", "0"], "m").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (["no", "maybe"], ["no", "yes"], "label 'maybe' is no class of model 'm'; it has 'no', 'yes'"),
        (["0", "2"], ["no", "yes"], "label '0' is no class of model 'm'"),
        (["no"], ["no", "no"], "two classes of model 'm' have one name, among 'no', 'no'"),
    ],
)
def test_labels_that_name_no_class_are_refused(labels, classes, message):
    with pytest.raises(probes.InputError, match=message):
        label_codes(np.array(labels), classes, "m")


def test_classes_without_names_are_called_by_their_numbers():
    logits = xr.Dataset({"logits": (("example", "class"), np.eye(3))})
    assert class_names(logits) == ["0", "1", "2"]
    named = logits.assign_coords({"class": ["a", "b", "c"]})
    assert class_names(named) == ["a", "b", "c"]
    assert classes_in_words(named) == "'a', 'b', 'c'"
    np.testing.assert_array_equal(decisions(named, "loyalty").scores, np.eye(3))


def test_representations_without_predictions_are_refused_by_name():
    with pytest.raises(probes.InputError, match="loyalty needs predictions, and the Representations of model 'm'"):
        decisions(xr.Dataset(attrs={"model": "m"}), "loyalty")
    numbers = xr.Dataset({"numbers": (("example", "number"), np.ones((2, 1)))}, attrs={"model": "m"})
    with pytest.raises(probes.InputError, match="hold numbers, which number_quality and number_loyalty are for"):
        decisions(numbers, "accuracy")
    with pytest.raises(probes.InputError, match="number_quality needs predicted numbers, and the Representations of"):
        predicted_numbers(numbers.drop_vars("numbers"), "number_quality")
    assert (predicts(numbers), predicts(xr.Dataset())) == ("numbers", None)


def test_several_classes_are_decisions_above_zero_each_and_their_labels_ones_among_zeros():
    given = np.array([[2.0, -1.0, 0.0], [-3.0, 4.0, 0.1]])
    reps = xr.Dataset({"several": (("example", "choice"), given)}, attrs={"model": "m"})
    reps = reps.assign_coords(choice=["a", "b", "c"], labels=("example", ["a c", ""]))
    made = decisions(reps, "accuracy")
    assert made.scores.argmax(axis=1).tolist() == [1, 0, 0, 0, 1, 1]  # 0 is not above 0
    assert made.example.tolist() == [0, 0, 0, 1, 1, 1]
    assert right_classes(reps, made, "accuracy").tolist() == [1, 0, 1, 0, 0, 0]
    assert several_codes(["", ""], ["a"], "m").tolist() == [[0.0], [0.0]]
    with pytest.raises(probes.InputError, match=r"accuracy needs the labels of its head.*Capture .* a column 'labels'"):
        right_classes(reps.drop_vars("labels"), made, "accuracy")
    with pytest.raises(probes.InputError, match="label 'dog' is no class of model 'm'"):
        several_codes(["a dog"], ["a"], "m")


def test_words_that_are_not_there_are_no_decisions_and_broken_ones_are():
    values = np.zeros((3, 2, 2))  # word, example, tag
    values[0] = [[1, 0], [0, 1]]
    values[1] = [[0, 2], [-np.inf, -np.inf]]  # cut off in the second text
    values[2] = [[np.nan, np.nan], [-np.inf, -np.inf]]
    reps = xr.Dataset({"words": (("word", "example", "tag"), values)}, attrs={"model": "m"})
    reps = reps.assign_coords(tag=["x", "y"], tags=("example", ["y y x", "x y"]))
    made = decisions(reps, "accuracy")
    assert made.example.tolist() == [0, 0, 0, 1]
    assert np.isnan(made.scores).any(axis=1).tolist() == [False, False, True, False]
    assert right_classes(reps, made, "accuracy").tolist() == [1, 1, 0, 0]


def test_numbers_are_told_from_names():
    assert numbers_of(["1", "-2.5e3"], "m") == [1.0, -2500.0]
    assert not are_numbers(["1", "inf"])
    with pytest.raises(probes.InputError, match="row 1: label 'x' is no number, and the head of m gives one number"):
        numbers_of(["1", "x"], "m")
