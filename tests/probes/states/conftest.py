"""A small corpus, and a tiny model with its tokenizer to run it through."""

import pytest
from capturing import TEXTS, make_corpus


@pytest.fixture
def corpus():
    return make_corpus(TEXTS)


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture
def bert(tiny_models):
    return tiny_models("BertForSequenceClassification")
