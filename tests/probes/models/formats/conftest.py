"""What the tests of this folder share."""

import pytest


@pytest.fixture
def batch(make_tokenizer):
    return dict(make_tokenizer()(["the cat sat on mat", "a dog"], return_tensors="pt", padding=True))
