"""The mean length of states."""

import numpy as np
import pytest
from filled import falling, gaussian

from probes.measures.space.geometry import geometry


def test_norm_is_the_mean_length():
    x = gaussian(falling(8, 1), n=30)
    assert geometry(x)["norm"] == pytest.approx(np.mean([np.sqrt((row**2).sum()) for row in x]), rel=1e-12)
