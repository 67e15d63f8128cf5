"""The mean length of states."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.space.sentences import of_geometry


def mean_norm(sums: np.ndarray, w: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean length, from the summed lengths of each sentence (sentence,), for rows of weights."""
    return w @ sums / (w @ counts)


NORM = partial(
    of_geometry,
    name="norm",
    title="length",
    estimator="mean Euclidean norm",
    higher_is="longer vectors",
    unchanged_by=("rotation", "order"),
)
