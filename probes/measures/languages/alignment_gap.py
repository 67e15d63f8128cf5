"""Alignment gap: how much closer do translations lie than other sentences?"""

from __future__ import annotations

from functools import partial
from typing import overload

import numpy as np
from numpy.typing import ArrayLike as Array
from xarray import Dataset

from probes.measures.languages.pairs import Pairs, checked, of_alignment, of_arrays, of_languages
from probes.measures.probe import Run
from probes.results.counts import Weights
from probes.results.draws import sample
from probes.states.representations import BLOCK


@overload
def alignment_gap(x: Dataset, translations: None = None, *, pivot: str, draws: int = 200, seed: int = 0) -> Dataset: ...


@overload
def alignment_gap(x: Array, translations: Array, *, pivot: None = None, draws: int = 200, seed: int = 0) -> float: ...


def alignment_gap(
    x: Dataset | Array, translations: Array | None = None, *, pivot: str | None = None, draws: int = 200, seed: int = 0
) -> Dataset | float:
    """Measure how much closer translations lie than other sentences, by their mean cosines.

    -2 to 2, in practice 0 (no alignment) to 1; higher is better aligned.

    Args:
        x: Representations of parallel sentences, or an array (sentence, feature).
        translations: (sentence, feature) in the same order, beside an array.
        pivot: the language that every other one is compared with.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        As `retrieval`, but a difference of cosines.

    Raises:
        InputError: the pivot is unknown; a language shares fewer than 2 ids with it.

    Notes:
        All pairs of different sentences (of different groups, where there are any) are averaged, by
        products of sums; in the draws too, pairs of one sentence with itself are left out of the
        second mean. Memory does not grow with the corpus.

    See also:
        `retrieval`, `margin_retrieval`.

    Example:
        >>> x = np.eye(4)
        >>> alignment_gap(x, x)
        1.0
    """
    if not isinstance(x, Dataset):
        return of_arrays(_gap, "alignment_gap", 2, x, translations)
    return _measured(Run(x, sample(x, draws=draws, seed=seed), pivot=pivot))


class _Pivot:
    """Weighted sums of states, kept for the next language: the pivot's are the same for all that have
    the same sentences.
    """

    def __init__(self) -> None:
        self.kept: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def sums(self, w: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return w @ x: (1 + draws, feature)."""
        if self.kept is not None and np.array_equal(self.kept[0], w) and np.array_equal(self.kept[1], x):
            return self.kept[2]
        self.kept = w, x, w @ x
        return self.kept[2]


def _gap(pairs: Pairs, weights: Weights, pivot: _Pivot | None = None) -> np.ndarray:
    pivot = pivot or _Pivot()
    right, own, n, squares = np.zeros((4, len(weights)))
    sums = np.zeros((2, len(weights), pairs.features))
    for part in pairs.pieces(BLOCK):
        w = weights[:, part].astype(np.float64)
        pair = list(pairs.read(part))
        cosine = np.einsum("ij,ij->i", *pair)
        right += w @ cosine
        n += w.sum(axis=1)
        starts = pairs.starts_of_groups(part)
        size = np.diff(np.r_[starts, len(cosine)])
        if len(starts) < len(cosine):  # pairs of one group are left out as those of one sentence are
            cosine = np.einsum("ij,ij->i", *(np.add.reduceat(side, starts, axis=0) for side in pair))
        own += np.square(w[:, starts]) @ cosine
        squares += np.square(w[:, starts] * size).sum(axis=1)
        sums[0] += w @ pair.pop(0)  # popped, so that one piece is not kept while the next is read
        sums[1] += pivot.sums(w, pair.pop())
    with np.errstate(invalid="ignore", divide="ignore"):
        return right / n - (np.einsum("wd,wd->w", *sums) - own) / (n**2 - squares)


def _measured(run: Run) -> Dataset:
    return of_languages(partial(_gap, pivot=_Pivot()), ALIGNMENT_GAP, run, 2)


ALIGNMENT_GAP = of_alignment(
    name="alignment_gap",
    estimator="mean cosine of translations minus mean cosine of non-translations",
    range="-2 to 2; 0 where translations lie no closer than others",
    bounds=(-2, 2),
    measure=_measured,
    check=checked("alignment_gap", 2),
)
