"""Which objective a head is for."""

import pytest

from compress.objectives.kinds import supervised


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("BertForSequenceClassification", "cross_entropy"),
        ("GPT2LMHeadModel", "language_model"),
        ("BertModel", "cross_entropy"),
    ],
)
def test_the_objective_is_that_of_the_head(tiny_models, architecture, name):
    found = supervised(tiny_models(architecture), weight=0.5)
    assert (found.name, found.weight) == (name, 0.5)
