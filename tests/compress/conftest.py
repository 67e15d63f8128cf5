"""What the tests of compression share: a tokenizer, and tiny classifiers that name their classes."""

import pytest


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture
def classifier(make_classifier):
    return make_classifier()
