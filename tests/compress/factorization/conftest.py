"""What the tests of this folder share."""

import numpy as np
import pandas as pd
import pytest

import probes


@pytest.fixture
def batch(make_tokenizer):
    return dict(make_tokenizer()(["the cat sat on mat", "a dog", "but then he"], return_tensors="pt", padding=True))


@pytest.fixture
def corpus():
    rng = np.random.default_rng(0)
    words = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}
    rows = [
        {
            "id": i,
            "language": "en",
            "text": " ".join(rng.permutation(words["xyz"[i % 3]].split())[: 1 + i % 5]),
            "label": "xyz"[i % 3],
        }
        for i in range(40)
    ]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def classifier(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    return model
