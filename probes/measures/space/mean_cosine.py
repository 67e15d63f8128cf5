"""The mean cosine of pairs of sentences: how narrow the cone is in which states lie."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.space.sentences import of_geometry


def mean_cosine(sums: np.ndarray, w: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean cosine of rows of different sentences, from the summed unit vectors (sentence, feature)
    of each.
    """
    total, own = w @ sums, np.einsum("sf,sf->s", sums, sums)
    pairs = (w @ counts) ** 2 - np.square(w) @ np.square(counts.astype(np.float64))
    return (np.einsum("wf,wf->w", total, total) - np.square(w) @ own) / pairs


MEAN_COSINE = partial(
    of_geometry,
    name="mean_cosine_of_pairs",
    estimator="mean cosine of all pairs of different sentences",
    range="-1 to 1; 0 where directions are spread evenly, 1 where all are the same",
    higher_is="narrower cone",
    unchanged_by=("rotation", "common scale", "length of each vector", "order"),
    paper="Ethayarajh 2019, arXiv 1909.00512",
)
