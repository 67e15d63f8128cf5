"""Retrieval: is the nearest sentence of the other language the translation?"""

from __future__ import annotations

from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import ArrayLike as Array
from xarray import Dataset

from probes.measures.languages.all_languages import Candidates, check_pool, of_all_languages
from probes.measures.languages.neighbours import translation_accuracy
from probes.measures.languages.pairs import Pairs, checked, of_alignment, of_arrays, of_languages
from probes.measures.probe import Run
from probes.results.counts import Weights
from probes.results.draws import sample
from probes.results.intervals import of_shares


@overload
def retrieval(
    x: Dataset, translations: None = None, *, pivot: str, pool: Candidates = "language", draws: int = 200, seed: int = 0
) -> Dataset: ...


@overload
def retrieval(
    x: Array,
    translations: Array,
    *,
    pivot: None = None,
    pool: Candidates = "language",
    draws: int = 200,
    seed: int = 0,
) -> float: ...


def retrieval(
    x: Dataset | Array,
    translations: Array | None = None,
    *,
    pivot: str | None = None,
    pool: Candidates = "language",
    draws: int = 200,
    seed: int = 0,
) -> Dataset | float:
    """Measure how often the nearest sentence in the other language is the translation.

    Nearest by cosine, among all sentences that both languages have; the mean of both directions. 0
    to 1, higher is better aligned; chance is 1 / n, so values of corpora of different size cannot
    be compared.

    Args:
        x: Representations of parallel sentences, or an array (sentence, feature).
        translations: (sentence, feature) in the same order, beside an array.
        pivot: the language that every other one is compared with.
        pool: "language": among the sentences of the other language; "all": among those of all
            languages, that of the sentence itself too. That is harder, and named
            `retrieval_all_languages`: a comparison measures it where `probes=` names it.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)` for every language but the pivot, with their mean as
        `pooled`; `n` is the number of sentences that a language shares with the pivot. For arrays a
        float.

    Raises:
        InputError: the pivot is unknown; a language shares no id with it; there is no such pool, or
            all languages are asked for of arrays.

    Notes:
        A tie with the right one (within 4 float32 roundings of the states) counts as right; a layer
        whose states are all equal has no value. The draws weigh each sentence by what it does to
        the value, among the same candidates. The interval is the exact binomial one for as many
        independent sentences as the spread of the draws speaks of. Of a pool of all languages the
        translations of the same id are left out, which are not wrong: what is asked is the strong
        alignment of Roy et al. 2020, arXiv 2004.05484.

    See also:
        `margin_retrieval`, `alignment_gap`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> retrieval(x, x + 0.01)
        1.0
    """
    check_pool(pool, x)
    if not isinstance(x, Dataset):
        return of_arrays(_retrieval, "retrieval", 1, x, translations)
    measured = _measured if pool == "language" else _among_all
    return measured(Run(x, sample(x, draws=draws, seed=seed), pivot=pivot))


def _retrieval(pairs: Pairs, weights: Weights) -> np.ndarray:
    return translation_accuracy(pairs, weights, by_margin=False)


def _measured(run: Run) -> Dataset:
    return of_shares(of_languages(_retrieval, RETRIEVAL, run, 1))


def _among_all(run: Run) -> Dataset:
    return of_shares(of_all_languages(RETRIEVAL_ALL_LANGUAGES, run, 1, by_margin=False))


RETRIEVAL = of_alignment(
    name="retrieval",
    estimator="accuracy of the cosine nearest neighbour, mean of both directions, ties count as right",
    range="0 to 1; chance is 1 / n",
    bounds=(0, 1),
    tolerance=0.01,
    paper="the usual measure, as on Tatoeba by Artetxe and Schwenk 2019, arXiv 1812.10464",
    harder="retrieval_all_languages",
    measure=_measured,
    check=checked("retrieval", 1),
)
RETRIEVAL_ALL_LANGUAGES = replace(
    RETRIEVAL,
    name="retrieval_all_languages",
    title="retrieval among all languages",
    estimator="accuracy of the cosine nearest neighbour among the sentences of all languages, translations of the same "
    "id left out, mean of both directions, ties count as right",
    range="0 to 1; chance is about 1 / (n times languages)",
    paper="strong alignment of Roy et al. 2020, arXiv 2004.05484",
    family="",
    harder="",
    default=False,
    measure=_among_all,
    check=checked("retrieval_all_languages", 1),
)
