"""What the tests of fidelity share: an original and what became of it."""

import numpy as np
import pytest
from planted import planted


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def pair(rng):
    base = planted(rng, ids=40, layers=3).assign_attrs(model="base")
    noise = np.array([0.1, 0.5, 2.0])[:, None, None] * rng.normal(size=base.hidden.shape)
    return base, base.assign(hidden=1.2 * base.hidden + noise).assign_attrs(model="small")


@pytest.fixture
def two_arrays(rng):
    """Two models of different width that share some directions."""
    x = rng.normal(size=(60, 12)) * np.linspace(3, 0.5, 12)
    return x, np.concatenate([x[:, ::2] + 0.5 * rng.normal(size=(60, 6)), rng.normal(size=(60, 3))], axis=1)


@pytest.fixture
def two(rng):
    base = planted(rng, ids=40, layers=3)
    return base, planted(rng, ids=40, layers=2, features=10).assign(label=base.label)
