"""Predictions: labels by the names or the numbers of classes; what names no class is refused."""

import numpy as np
import pytest
import xarray as xr

import probes
from probes.states.predictions import check_logits, class_names, classes_in_words, label_codes


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
    np.testing.assert_array_equal(check_logits(named, "loyalty"), np.eye(3))


def test_representations_without_logits_are_refused_by_name():
    with pytest.raises(probes.InputError, match="loyalty needs predictions, and the Representations of model 'm'"):
        check_logits(xr.Dataset(attrs={"model": "m"}), "loyalty")
