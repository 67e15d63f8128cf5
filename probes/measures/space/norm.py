"""The mean length of states."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.space.sentences import Sentences, of_geometry
from probes.results.counts import Weights, sums_over


def mean_norm(sums: np.ndarray, weights: Weights, sentences: Sentences) -> np.ndarray:
    """Mean length, from the summed lengths of each sentence (sentence,), for every row of weights."""
    there = sentences.there
    return sums_over(weights, there, sums) / sums_over(weights, there, sentences.counts)


NORM = partial(
    of_geometry,
    name="norm",
    title="length",
    estimator="mean Euclidean norm",
    higher_is="longer vectors",
    unchanged_by=("rotation", "order"),
)
