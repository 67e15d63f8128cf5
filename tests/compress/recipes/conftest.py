"""What the tests of this folder share."""

import pandas as pd
import pytest
from trained import WORDS

import probes


@pytest.fixture
def corpus():
    rows = [{"id": i, "language": "en", "text": WORDS[k], "label": k} for i, k in enumerate("xyz" * 8)]
    return probes.load_corpus(pd.DataFrame(rows))
