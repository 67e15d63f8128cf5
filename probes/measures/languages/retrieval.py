"""Retrieval: is the nearest sentence of the other language the translation?"""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike as Array
from xarray import Dataset

from probes.measures.languages.neighbours import translation_accuracy
from probes.measures.languages.pairs import Pairs, checked, of_alignment, of_arrays, of_languages
from probes.measures.probe import Run
from probes.results.draws import sample
from probes.results.intervals import of_shares


@overload
def retrieval(x: Dataset, translations: None = None, *, pivot: str, draws: int = 200, seed: int = 0) -> Dataset: ...


@overload
def retrieval(x: Array, translations: Array, *, pivot: None = None, draws: int = 200, seed: int = 0) -> float: ...


def retrieval(
    x: Dataset | Array, translations: Array | None = None, *, pivot: str | None = None, draws: int = 200, seed: int = 0
) -> Dataset | float:
    """Measure how often the nearest sentence in the other language is the translation.

    Nearest by cosine, among all sentences that both languages have; the mean of both directions. 0
    to 1, higher is better aligned; chance is 1 / n, so values of corpora of different size cannot
    be compared.

    Args:
        x: Representations of parallel sentences, or an array (sentence, feature).
        translations: (sentence, feature) in the same order, beside an array.
        pivot: the language that every other one is compared with.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)` for every language but the pivot, with their mean as
        `pooled`; `n` is the number of sentences that a language shares with the pivot. For arrays a
        float.

    Raises:
        InputError: the pivot is unknown; a language shares no id with it.

    Notes:
        A tie with the right one (within 4 float32 roundings of the states) counts as right; a layer
        whose states are all equal has no value. The draws weigh each sentence by what it does to
        the value, among the same candidates. The interval is the exact binomial one for as many
        independent sentences as the spread of the draws speaks of, for the mean over corpora of
        this size. That of a difference knows that no draw shows what no sentence has shown.

    See also:
        `margin_retrieval`, `alignment_gap`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> retrieval(x, x + 0.01)
        1.0
    """
    if not isinstance(x, Dataset):
        return of_arrays(_retrieval, "retrieval", 1, x, translations)
    return _measured(Run(x, sample(x, draws=draws, seed=seed), pivot=pivot))


def _retrieval(pairs: Pairs, weights: np.ndarray) -> np.ndarray:
    return translation_accuracy(*pairs.all(), None, weights)


def _measured(run: Run) -> Dataset:
    return of_shares(of_languages(_retrieval, RETRIEVAL, run, 1))


RETRIEVAL = of_alignment(
    name="retrieval",
    estimator="accuracy of the cosine nearest neighbour, mean of both directions, ties count as right",
    range="0 to 1; chance is 1 / n",
    bounds=(0, 1),
    tolerance=0.01,
    paper="the usual measure, as on Tatoeba by Artetxe and Schwenk 2019, arXiv 1812.10464",
    measure=_measured,
    check=checked("retrieval", 1),
)
