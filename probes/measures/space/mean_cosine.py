"""The mean cosine of pairs of sentences: how narrow the cone is in which states lie."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.space.sentences import Sentences, of_geometry
from probes.results.counts import Weights, sums_over


def mean_cosine(sums: np.ndarray, weights: Weights, sentences: Sentences) -> np.ndarray:
    """Mean cosine of rows of different sentences, from the summed unit vectors (sentence, feature)
    of each, for every row of weights.
    """
    there, counts = sentences.there, sentences.counts.astype(np.float64)
    total, own = sums_over(weights, there, sums), np.einsum("sf,sf->s", sums, sums)
    pairs = sums_over(weights, there, counts) ** 2 - sums_over(weights, there, np.square(counts), power=2)
    return (np.einsum("wf,wf->w", total, total) - sums_over(weights, there, own, power=2)) / pairs


MEAN_COSINE = partial(
    of_geometry,
    name="mean_cosine_of_pairs",
    estimator="mean cosine of all pairs of different sentences",
    range="-1 to 1; 0 where directions are spread evenly, 1 where all are the same",
    higher_is="narrower cone",
    unchanged_by=("rotation", "common scale", "length of each vector", "order"),
    paper="Ethayarajh 2019, arXiv 1909.00512",
)
