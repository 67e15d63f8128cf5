"""The participation ratio of the covariance, from unbiased sums over sentences."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.space.principal import Within
from probes.measures.space.sentences import Sentences, of_geometry


def participation_ratio(
    scores: np.ndarray, spectrum: np.ndarray, within: Within, sentences: Sentences
) -> tuple[float, np.ndarray]:
    """Return trace(S)^2 / trace(S^2) from unbiased estimates of both, and what each row does to its
    logarithm.

    Both are polynomials in the products of up to four rows of different sentences, which are summed
    over all such rows at once. The rows are centred, so that most of these sums are 0. NaN or below
    0 where trace(S^2) is.
    """
    n = len(scores)
    counts = sentences.counts.astype(np.float64)
    c2, c3, c4 = ((counts**k).sum() for k in (2, 3, 4))
    pairs = n**2 - c2
    triples = n**3 - 3 * n * c2 + 2 * c3
    fours = n**4 - 6 * n**2 * c2 + 3 * c2**2 + 8 * n * c3 - 6 * c4
    second = n * spectrum  # the eigenvalues of the sum of x x'
    length = np.square(scores).sum(axis=1)
    a = sentences.sum(length)
    m = sentences.sum(scores)
    mm = np.square(m).sum(axis=1)
    products = m.T @ m if len(m) > m.shape[1] else m @ m.T
    four = (mm.sum() ** 2 + 2 * np.square(products).sum() - 6 * np.square(mm).sum()) / fours
    three = (2 * np.square(within.sums).sum() - np.square(m).sum(axis=0) @ second) / triples
    of_square = (np.square(second).sum() - within.squares.sum()) / pairs - 2 * three + four
    three = (2 * (a * mm).sum() - a.sum() * mm.sum()) / triples
    square_of = (a.sum() ** 2 - np.square(a).sum()) / pairs - 2 * three + four
    if of_square <= 0:
        return np.nan, np.zeros(n)
    own = np.repeat(counts, sentences.counts)
    across = (np.square(scores) @ second - within.squares) / (n - own)
    across_length = length * (a.sum() - np.repeat(a, sentences.counts)) / (n - own)
    return square_of / of_square, 2 * (across_length / square_of - across / of_square)


PARTICIPATION_RATIO = partial(
    of_geometry,
    name="participation_ratio",
    estimator="trace(S)^2 / trace(S^2) of the covariance S, from unbiased sums over sentences",
    range="1 to the number of features; an estimate may lie a little outside",
    paper="Himeno, Yamada 2014, J. Multivariate Analysis 130 (the unbiased sums)",
)
ISO_SCORE = partial(
    PARTICIPATION_RATIO,
    name="iso_score",
    title="IsoScore",
    estimator="IsoScore = (participation ratio - 1) / (features - 1), from unbiased sums over sentences",
    range="0 to 1; 1 where the variance is equal in all directions; an estimate may lie a little outside",
    higher_is="more isotropic",
    paper="Rudman, Gillman, Rayne, Eickhoff 2022, arXiv 2108.07344",
)
