"""What the tests of training share."""

import pytest
from trained import make_corpus


@pytest.fixture
def corpus():
    return make_corpus()


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture
def make(tiny_models):
    def make(dropout=0.0, **changes):
        model = tiny_models(
            "BertForSequenceClassification",
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            **changes,
        )
        model.config.id2label = {0: "x", 1: "y", 2: "z"}
        return model

    return make
