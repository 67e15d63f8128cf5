"""What the tests of this folder share."""

import numpy as np
import pandas as pd
import pytest
import torch
from trained import WORDS, texts_of_classes

import probes
from compress.matrices import block_matrices
from compress.quantization.bit_damage import bit_damage

QUIET = {"progress": False}


@pytest.fixture
def corpus():
    return probes.load_corpus(texts_of_classes(40, lambda i: 1 + i % 5))


@pytest.fixture
def make(make_classifier):
    def make(dropout=0.1):
        return make_classifier(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)

    return make


@pytest.fixture
def classifier(make):
    return make()


@pytest.fixture
def batch(make_tokenizer):
    return dict(make_tokenizer()(["the cat sat on mat", "a dog"], return_tensors="pt", padding=True))


@pytest.fixture
def sentences():
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": i,
            "language": language,
            "text": " ".join(rng.permutation(WORDS["xyz"[i % 3]].split())[: 2 + i % 4]),
            "label": "xyz"[i % 3],
        }
        for language in ("en", "fr", "zh")
        for i in range(12 if language != "zh" else 9)
    ]
    return probes.load_corpus(pd.DataFrame(rows).sample(frac=1, random_state=0))


@pytest.fixture
def model(make_classifier):
    return make_classifier()


@pytest.fixture
def table(model):
    """The squared change of weights of a model whose matrices are of different size of weights."""
    with torch.no_grad():
        for i, weight in enumerate(block_matrices(model).values()):
            weight.mul_(1.2**i)
    return bit_damage(model, damage="weights", **QUIET)
