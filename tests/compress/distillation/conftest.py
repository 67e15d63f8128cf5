"""What the tests of this folder share."""

import numpy as np
import pandas as pd
import pytest

import probes

WORDS = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        label = "xyz"[i % 3]
        text = " ".join(rng.permutation(WORDS[label].split())[: 2 + i % 4])
        rows.append({"id": i, "language": "en", "text": text, "label": label, "split": "dev" if i < 12 else "train"})
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    words = " ".join(WORDS.values()).split()
    rows = [{"id": i, "language": "en", "text": " ".join(rng.choice(words, 5))} for i in range(80)]
    return probes.load_corpus(pd.DataFrame(rows))
