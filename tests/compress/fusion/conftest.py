"""What the tests of this folder share."""

import datasets
import numpy as np
import pytest
import torch

from compress.matrices import block_matrices


@pytest.fixture
def corpus():
    words = ["red", "big", "small", "dog", "cat", "bird", "ran", "sang", "house", "tree"]
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(words, draw.integers(2, 9))) for _ in range(40)]
    return datasets.Dataset.from_dict(
        {
            "id": [str(i) for i in range(40)],
            "language": ["en", "de"] * 20,
            "text": texts,
            "label": [f"LABEL_{i % 3}" for i in range(40)],
        }
    )


@pytest.fixture
def make(tiny_models):
    """A tiny classifier whose matrices are far enough from 0 for their similarities to differ."""

    def of(layers=4, architecture="BertForSequenceClassification", **changes):
        changes.setdefault("num_hidden_layers", layers)
        model = tiny_models(architecture, **changes)
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in block_matrices(model).values():
                weight.add_(0.5 * torch.randn_like(weight))
        return model

    return of


@pytest.fixture
def planted(make):
    """Of the query matrices 0, 1 and 3 are near each other, 0 and 1 most; biases apart."""
    model = make()
    layers = model.bert.encoder.layer
    with torch.no_grad():
        base = layers[0].attention.self.query.weight
        layers[1].attention.self.query.weight.copy_(base + 1e-3)
        layers[3].attention.self.query.weight.copy_(base + 3e-3)
        for i, layer in enumerate(layers):
            layer.attention.self.query.bias.fill_(float(i))
    return model
