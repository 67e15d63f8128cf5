"""Accuracy: labels by name and by number, and classes that cannot be told apart."""

import numpy as np
import pytest
from planted import with_logits

import probes
from probes.measures.fidelity.accuracy import accuracy


def test_accuracy_by_name_and_by_number(rng):
    label = np.arange(60) % 3
    logits = np.eye(3)[np.where(np.arange(60) < 45, label, (label + 1) % 3)]
    named = probes.from_arrays(np.ones((60, 2)), label=np.array(["a", "b", "c"])[label])
    numbered = probes.from_arrays(np.ones((60, 2)), label=label)
    for reps, classes in ((named, "abc"), (numbered, "abc"), (numbered, ("LABEL_0", "LABEL_1", "LABEL_2"))):
        out = accuracy(with_logits(reps, logits, list(classes)))
        assert float(out.value.sel(language="pooled")) == 0.75
        assert out.value.dims == ("language",)
        assert out.low.sel(language="pooled") < 0.75 < out.high.sel(language="pooled")


def test_a_label_that_is_no_class_is_refused_with_what_to_do(rng):
    reps = probes.from_arrays(np.ones((4, 2)), label=["a", "b", "dog", "c"])
    with pytest.raises(
        probes.InputError, match=r"label 'dog' is no class of model 'arrays'; it has 'a', 'b', 'c'.*id2label"
    ):
        accuracy(with_logits(reps, np.eye(4)[:, :3]))


def test_classes_of_one_name_are_refused():
    reps = probes.from_arrays(np.ones((4, 2)), label=["a", "b", "a", "b"])
    with pytest.raises(probes.InputError, match=r"two classes of model 'arrays' have one name, among 'a', 'b', 'b'"):
        accuracy(with_logits(reps, np.eye(4)[:, :3], "abb"))
