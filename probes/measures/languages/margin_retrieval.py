"""Margin retrieval: is the sentence that lies closest for its neighbourhood the translation?"""

from __future__ import annotations

from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import ArrayLike as Array
from xarray import Dataset

from probes.measures.languages.all_languages import Candidates, check_pool, of_all_languages
from probes.measures.languages.neighbours import NEIGHBOURS, translation_accuracy
from probes.measures.languages.pairs import Pairs, checked, of_arrays, of_languages
from probes.measures.languages.retrieval import RETRIEVAL
from probes.measures.probe import Run
from probes.results.counts import Weights
from probes.results.draws import sample
from probes.results.intervals import of_shares


@overload
def margin_retrieval(
    x: Dataset, translations: None = None, *, pivot: str, pool: Candidates = "language", draws: int = 200, seed: int = 0
) -> Dataset: ...


@overload
def margin_retrieval(
    x: Array,
    translations: Array,
    *,
    pivot: None = None,
    pool: Candidates = "language",
    draws: int = 200,
    seed: int = 0,
) -> float: ...


def margin_retrieval(
    x: Dataset | Array,
    translations: Array | None = None,
    *,
    pivot: str | None = None,
    pool: Candidates = "language",
    draws: int = 200,
    seed: int = 0,
) -> Dataset | float:
    """Measure how often the best match of a sentence by ratio margin is its translation.

    As `retrieval`, with the cosine of two sentences divided by the mean cosine of both to their 4
    nearest neighbours in the other language, so that sentences which lie close to everything do not
    win everywhere. 0 to 1, higher is better aligned.

    Args:
        x, translations, pivot, draws, seed: as for `retrieval`.
        pool: as for `retrieval`; "all" is named `margin_retrieval_all_languages`. Each margin is that
            of the two languages that its sentences are in; in its own, a sentence is its own translation.

    Returns:
        As `retrieval`: 0 to 1, higher is better aligned.

    Raises:
        InputError: the pivot is unknown; a language shares fewer than 4 ids with it; there is
            no such pool, or all languages are asked for of arrays.

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
    check_pool(pool, x)
    if not isinstance(x, Dataset):
        return of_arrays(_margin_retrieval, "margin_retrieval", NEIGHBOURS, x, translations)
    measured = _measured if pool == "language" else _among_all
    return measured(Run(x, sample(x, draws=draws, seed=seed), pivot=pivot))


def _margin_retrieval(pairs: Pairs, weights: Weights) -> np.ndarray:
    return translation_accuracy(pairs, weights, by_margin=True)


def _measured(run: Run) -> Dataset:
    return of_shares(of_languages(_margin_retrieval, MARGIN_RETRIEVAL, run, NEIGHBOURS))


def _among_all(run: Run) -> Dataset:
    return of_shares(of_all_languages(MARGIN_RETRIEVAL_ALL_LANGUAGES, run, NEIGHBOURS, by_margin=True))


MARGIN_RETRIEVAL = replace(
    RETRIEVAL,
    name="margin_retrieval",
    title="margin retrieval",
    tolerance=None,
    estimator="accuracy of the best ratio margin (k = 4), mean of both directions, ties count as right",
    paper="Artetxe and Schwenk 2019, arXiv 1811.01136",
    harder="margin_retrieval_all_languages",
    measure=_measured,
    check=checked("margin_retrieval", NEIGHBOURS),
)
MARGIN_RETRIEVAL_ALL_LANGUAGES = replace(
    MARGIN_RETRIEVAL,
    name="margin_retrieval_all_languages",
    title="margin retrieval among all languages",
    estimator="accuracy of the best ratio margin (k = 4) among the sentences of all languages, translations of the "
    "same id left out, mean of both directions, ties count as right",
    range="0 to 1; chance is about 1 / (n times languages)",
    family="",
    harder="",
    default=False,
    measure=_among_all,
    check=checked("margin_retrieval_all_languages", NEIGHBOURS),
)
