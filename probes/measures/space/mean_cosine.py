"""The mean cosine of pairs of sentences: how narrow the cone is in which states lie."""

from __future__ import annotations

import numpy as np


def mean_cosine(sums: np.ndarray, w: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean cosine of rows of different sentences, from the summed unit vectors (sentence, feature) of each."""
    total, own = w @ sums, np.einsum("sf,sf->s", sums, sums)
    pairs = (w @ counts) ** 2 - np.square(w) @ np.square(counts.astype(np.float64))
    return (np.einsum("wf,wf->w", total, total) - np.square(w) @ own) / pairs
