"""What the tests of objectives share."""

import pandas as pd
import pytest
import torch
from passes import BATCH, ENCODER, TOKENS

import probes


@pytest.fixture
def batch():
    mask = torch.ones(BATCH, TOKENS, dtype=torch.long)
    mask[0, 3:], mask[1, 2:], mask[2, 4:] = 0, 0, 0
    return {"attention_mask": mask, "labels": torch.tensor([0, 1, 2, 2, 1, 0])}


@pytest.fixture
def model(tiny_models):
    return tiny_models(ENCODER)


@pytest.fixture(scope="module")
def student(tiny_models):
    return tiny_models("BertForSequenceClassification", num_hidden_layers=2, hidden_size=8)


@pytest.fixture(scope="module")
def teacher(tiny_models):
    return tiny_models("BertForSequenceClassification")


@pytest.fixture(scope="module")
def corpus():
    texts = ["red dog ran", "small bird sang", "big cat sat", "dog ran on mat", "bird under tree", "cat over house"]
    rows = [
        {"id": i, "language": language, "text": f"{t} {word}", "label": "abc"[i % 3]}
        for i, t in enumerate(texts)
        for language, word in (("de", "and then"), ("en", "he"), ("zh", ""))
    ]
    return probes.load_corpus(pd.DataFrame(rows)).add_column("topic", ["p", "q", "q"] * 6)
