"""The examples of a comparison: the same for all models, or refused by name."""

import numpy as np
import pytest

import probes
from probes.states.examples import examples_of


def test_the_examples_are_those_of_the_corpus_or_of_what_was_captured(bundled):
    of_corpus = examples_of(bundled, {}, ["a"])
    assert of_corpus.sizes["feature"] == 1
    assert of_corpus.id.values.tolist() == list(bundled["id"])
    assert of_corpus.split.values.tolist() == list(bundled["split"])
    reps = probes.from_arrays(np.eye(4), label=list("xyxy"), group=[1, 1, 2, 2])
    found = examples_of(None, {"a": reps}, ["a"])
    assert found.drop_vars("hidden").drop_attrs().equals(reps.drop_vars("hidden").drop_attrs())


def test_a_model_to_be_run_needs_a_corpus():
    with pytest.raises(probes.InputError, match="model 'b' is still to be run: expected a corpus"):
        examples_of(None, {"a": probes.from_arrays(np.eye(4))}, ["a", "b"])


def test_groups_of_one_model_alone_are_refused():
    x = np.eye(8)
    none, some = probes.from_arrays(x), probes.from_arrays(x, group=np.arange(8) // 2)
    with pytest.raises(
        probes.InputError, match="model 'b': its Representations have groups, and those of 'a' have none"
    ):
        probes.compare({"a": none, "b": some}, probes=["norm"])
    other = probes.from_arrays(x, group=np.arange(8) % 4)
    with pytest.raises(probes.InputError, match=r"model 'b': .* other examples \(id, language, label, group\)"):
        probes.compare({"a": some, "b": other}, probes=["norm"])
