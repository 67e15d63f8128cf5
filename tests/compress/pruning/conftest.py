"""What the tests of this folder share."""

import datasets
import numpy as np
import pytest


@pytest.fixture(scope="module")
def texts(make_tokenizer):
    words = ["a", "the", "red", "big", "small", "dog", "cat", "bird", "sat", "ran"]
    draw = np.random.default_rng(0)
    rows = [" ".join(draw.choice(words, 3 + i % 5)) for i in range(24)]
    corpus = datasets.Dataset.from_dict(
        {
            "id": [str(i) for i in range(24)],
            "language": ["en"] * 24,
            "text": rows,
            "label": [str(i % 3) for i in range(24)],
        }
    )
    return {"corpus": corpus, "tokenizer": make_tokenizer()}
