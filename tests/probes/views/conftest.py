"""What the tests of the explorer share: models of the same sentences, and an explorer of them."""

import pytest
from shown import make

import probes
from probes.widgets import Explorer


@pytest.fixture(scope="session")
def siblings():
    return {"base": make(0), "near": make(1, noise=0.5), "short": make(2, layers=2), "wide": make(3, features=9)}


@pytest.fixture(scope="session")
def compared(siblings):
    return probes.compare(siblings, pivot="en", probes=["snr", "retrieval", "accuracy", "cka"], draws=20)


@pytest.fixture
def widget(compared):
    return Explorer(compared)
