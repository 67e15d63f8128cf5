"""What the tests of compression share: a tokenizer, and tiny classifiers that name their classes."""

import pytest


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="session")
def make_classifier(tiny_models):
    """Return a function from changes of its configuration to a tiny classifier of x, y and z (dropout 0.1)."""

    def make(**changes):
        model = tiny_models("BertForSequenceClassification", **changes)
        model.config.id2label = {0: "x", 1: "y", 2: "z"}
        return model

    return make


@pytest.fixture
def classifier(make_classifier):
    return make_classifier()
