"""What the tests of training share."""

import pytest
from trained import make_corpus


@pytest.fixture
def corpus():
    return make_corpus()


@pytest.fixture
def make(make_classifier):
    def make(dropout=0.0, **changes):
        return make_classifier(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **changes)

    return make
