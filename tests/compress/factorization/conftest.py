"""What the tests of this folder share."""

import pytest
from trained import texts_of_classes

import probes


@pytest.fixture
def batch(make_tokenizer):
    return dict(make_tokenizer()(["the cat sat on mat", "a dog", "but then he"], return_tensors="pt", padding=True))


@pytest.fixture
def corpus():
    return probes.load_corpus(texts_of_classes(40, lambda i: 1 + i % 5))
