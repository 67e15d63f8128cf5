"""Margin retrieval: is the sentence that lies closest for its neighbourhood the translation?"""

from __future__ import annotations

from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import ArrayLike as Array
from xarray import Dataset

from probes.measures.languages.neighbours import cosines, translation_accuracy
from probes.measures.languages.pairs import Pairs, checked, of_arrays, of_languages
from probes.measures.languages.retrieval import RETRIEVAL
from probes.measures.probe import Run
from probes.results.draws import sample
from probes.results.intervals import of_shares

NEIGHBOURS = 4


@overload
def margin_retrieval(
    x: Dataset, translations: None = None, *, pivot: str, draws: int = 200, seed: int = 0
) -> Dataset: ...


@overload
def margin_retrieval(
    x: Array, translations: Array, *, pivot: None = None, draws: int = 200, seed: int = 0
) -> float: ...


def margin_retrieval(
    x: Dataset | Array, translations: Array | None = None, *, pivot: str | None = None, draws: int = 200, seed: int = 0
) -> Dataset | float:
    """Measure how often the best match of a sentence by ratio margin is its translation.

    As `retrieval`, with the cosine of two sentences divided by the mean cosine of both to their 4
    nearest neighbours in the other language, so that sentences which lie close to everything do not
    win everywhere. 0 to 1, higher is better aligned.

    Args:
        x, translations, pivot, draws, seed: as for `retrieval`.

    Returns:
        As `retrieval`: 0 to 1, higher is better aligned.

    Raises:
        InputError: the pivot is unknown; a language shares fewer than 4 ids with it.

    Notes:
        Ratio margin of Artetxe and Schwenk 2019, arXiv 1811.01136, k = 4. Where the mean cosine to
        the neighbours is not positive the ratio has no meaning, and the pair counts as no match.
        Ties and intervals as in `retrieval`.

    See also:
        `retrieval`, `alignment_gap`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> margin_retrieval(x, x + 0.01)
        1.0
    """
    if not isinstance(x, Dataset):
        return of_arrays(_margin_retrieval, "margin_retrieval", NEIGHBOURS, x, translations)
    return _measured(Run(x, sample(x, draws=draws, seed=seed), pivot=pivot))


def _margin_retrieval(pairs: Pairs, weights: np.ndarray) -> np.ndarray:
    x, y = pairs.all()
    return translation_accuracy(x, y, (_mean_of_nearest(x, y), _mean_of_nearest(y, x)), weights)


def _mean_of_nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean cosine of every row of x to its nearest rows of y."""
    return np.concatenate(
        [np.partition(cosine, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1) for _, cosine in cosines(x, y)]
    )


def _measured(run: Run) -> Dataset:
    return of_shares(of_languages(_margin_retrieval, MARGIN_RETRIEVAL, run, NEIGHBOURS))


MARGIN_RETRIEVAL = replace(
    RETRIEVAL,
    name="margin_retrieval",
    title="margin retrieval",
    tolerance=None,
    estimator="accuracy of the best ratio margin (k = 4), mean of both directions, ties count as right",
    paper="Artetxe and Schwenk 2019, arXiv 1811.01136",
    measure=_measured,
    check=checked("margin_retrieval", NEIGHBOURS),
)
