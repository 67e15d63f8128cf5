"""What the tests of this folder share."""

import numpy as np
import pandas as pd
import pytest
from trained import WORDS, make_corpus

import probes


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    words = " ".join(WORDS.values()).split()
    rows = [{"id": i, "language": "en", "text": " ".join(rng.choice(words, 5))} for i in range(80)]
    return probes.load_corpus(pd.DataFrame(rows))
