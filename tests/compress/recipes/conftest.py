"""What the tests of this folder share."""

import pandas as pd
import pytest

import probes


@pytest.fixture
def corpus():
    words = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}
    rows = [{"id": i, "language": "en", "text": words[k], "label": k} for i, k in enumerate("xyz" * 8)]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def classifier(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    return model
