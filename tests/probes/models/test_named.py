"""Names of models and of their replicates: one for each, and what is no name or no replicate is refused."""

import pytest

import probes
from probes.models.named import by_name


def test_every_model_and_every_replicate_has_a_name_of_its_own():
    models = {"base": "a", "pruned": ("b", "c"), "pruned (3)": "d"}
    assert by_name(models) == {
        "base": {"base": "a"},
        "pruned": {"pruned (1)": "b", "pruned (2)": "c"},
        "pruned (3)": {"pruned (3)": "d"},
    }


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "at least one model"),
        ({" ": "a"}, "a model is called ' ': expected a text of at least one letter"),
        ({1: "a"}, "a model is called 1"),
        ({"a": []}, "model 'a': expected at least two replicates in a list, found 0"),
        ({"a": ["x"]}, "model 'a': expected at least two replicates in a list, found 1. Give one model without a list"),
        ({"a": ["x", "y", "x/"]}, "model 'a': replicates 1 and 3 are the same.*trained with several seeds"),
        ({"a": ["x", "y"], "a (2)": "z"}, r"a model is called 'a \(2\)', as is a replicate of 'a'"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(models, message):
    with pytest.raises(probes.InputError, match=message):
        by_name(models)


def test_one_object_twice_is_no_second_replicate():
    model = object()
    with pytest.raises(probes.InputError, match="replicates 1 and 2 are the same"):
        by_name({"a": [model, model]})
