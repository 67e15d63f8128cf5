"""What probes that train a classifier share: one of the pivot, one of each language, some of shuffled labels.

A probe says how a classifier is chosen and fitted; here it is trained and tested in folds, and what
is right becomes accuracies with their draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from probes.measures.classes.folds import Fold, by_id
from probes.results.counts import Weights
from probes.results.draws import POOLED, Sample
from probes.results.intervals import linearised
from probes.states.representations import states

# Says the class of every row, (labelling, row), for each labelling of the rows that it has learned from.
Predict = Callable[[np.ndarray], np.ndarray]
# Learns from rows, and several labellings of them.
Fit = Callable[[np.ndarray, Sequence[np.ndarray]], Predict]
# Chooses how strongly to fit from the pivot's training rows, their labels, and the folds of them.
Choose = Callable[[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]], Fit]


class Accuracies(NamedTuple):
    """Accuracies of every language and `POOLED`, (1 + draws, layer), and the rows that they are of."""

    zero_shot: dict[str, np.ndarray]
    in_language: dict[str, np.ndarray]
    control: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]


def answers(
    read: Callable[[np.ndarray], np.ndarray],
    drawn: Sample,
    pivot: str,
    folds: Sequence[Fold],
    shuffles: int,
    seed: int,
    choose: Choose,
) -> dict[str, np.ndarray]:
    """Return which test rows are right, for every language (row, classifier).

    Classifiers: trained on the pivot, on the language itself, then on each shuffle of the pivot's
    labels; NaN where one has no answer.

    Args:
        read: from rows to their states (row, feature).
        drawn: the sample, with labels.
        pivot: the language that is trained on, and whose training rows choose the strength.
        folds: what is trained and tested on.
        shuffles: how many.
        seed: of the shuffles.
        choose: how a classifier is chosen and fitted.
    """
    everything = np.ones(len(drawn.ids), bool)
    at = by_id(drawn, pivot, everything)
    x, label = read(at), drawn.label[at]
    fits = []
    out = {}
    for k, fold in enumerate(folds):
        train = fold.train[at]
        if np.isfinite(x[train]).all():
            fit = choose(x[train], label[train], fold.inner)
            shuffled = [np.random.default_rng([seed, k, s]).permutation(label[train]) for s in range(shuffles)]
            fits.append((fold, fit, fit(x[train], [label[train], *shuffled])))
    for language in drawn.languages:
        rows = by_id(drawn, language, everything)
        own, label = x if language == pivot else read(rows), drawn.label[rows]
        right = np.full((len(rows), 2 + shuffles), np.nan)
        for fold, fit, of_pivot in fits:
            train, test = fold.train[rows], fold.test[rows]
            if not test.any() or not np.isfinite(own[test]).all():
                continue
            right[np.ix_(test, [0, *range(2, 2 + shuffles)])] = (of_pivot(own[test]) == label[test]).T
            if language == pivot:
                right[test, 1] = right[test, 0]
            elif not untaught(label[train], label[test]) and np.isfinite(own[train]).all():
                right[test, 1] = fit(own[train], [label[train]])(own[test])[0] == label[test]
        out[language] = right[rows_of_tests(folds)[rows]]
    return out


def untaught(train: np.ndarray, test: np.ndarray) -> list[int]:
    """Classes that are tested and not trained on; all where there are no two to tell apart."""
    known = np.unique(train)
    return np.setdiff1d(test, known if len(known) > 1 else []).tolist()


def rows_of_tests(folds: Sequence[Fold]) -> np.ndarray:
    """Which examples any fold tests."""
    return np.any([fold.test for fold in folds], axis=0)


def accuracies(
    drawn: Sample, pivot: str, folds: Sequence[Fold], right: Mapping[str, np.ndarray], seed: int
) -> Accuracies:
    """Put what is right (row, layer, classifier) of every language into accuracies with their draws.

    `POOLED` is the mean of the languages other than the pivot. The draws of the control are of
    sentences and of shuffles.
    """
    shuffles = next(iter(right.values())).shape[2] - 2
    each = np.arange(shuffles)
    again = np.random.default_rng(seed).multinomial(shuffles, np.full(shuffles, 1 / shuffles), len(drawn.weights))
    rows = {language: by_id(drawn, language, rows_of_tests(folds)) for language in drawn.languages}
    zero_shot, in_language, control = {}, {}, {}
    for language in drawn.languages:
        ids, found = drawn.ids[rows[language]], right[language]
        zero_shot[language] = weighed(found[..., 0], ids, drawn.weights, drawn.units)
        in_language[language] = weighed(found[..., 1], ids, drawn.weights, drawn.units)
        of_ids = weighed(found[..., 2:].mean(axis=2), ids, drawn.weights, drawn.units)
        by_shuffle = weighed(found[..., 2:].mean(axis=0).T, each, again, each)
        control[language] = np.clip(of_ids + by_shuffle - of_ids[0], 0, 1)
    rows[POOLED] = np.concatenate([rows[language] for language in others(drawn, pivot)])
    of_all = [pooled(drawn, pivot, found) for found in (zero_shot, in_language, control)]
    return Accuracies(of_all[0], of_all[1], of_all[2], rows)


def others(drawn: Sample, pivot: str) -> list[str]:
    """Return the languages other than the pivot; the pivot where it is alone."""
    return [language for language in drawn.languages if language != pivot] or [pivot]


def pooled(drawn: Sample, pivot: str, of_languages: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a statistic of languages with its mean over those other than the pivot as `POOLED`."""
    return of_languages | {POOLED: np.mean([of_languages[language] for language in others(drawn, pivot)], axis=0)}


def weighed(
    right: np.ndarray,
    ids: np.ndarray,
    weights: Weights,
    units: np.ndarray,
    bounds: tuple[float, float] = (0, 1),
) -> np.ndarray:
    """Return the mean over rows (row, layer) for every row of weights: (1 + draws, layer)."""
    return linearised(right.mean(axis=0), right, ids, weights, units, bounds)


def missing_of(
    reps: xr.Dataset, drawn: Sample, pivot: str, folds: Sequence[Fold]
) -> Callable[[tuple[int, ...], str], str]:
    """Return what says where a classifier has no accuracy and why, as `result` takes it."""

    def missing(at: tuple[int, ...], language: str) -> str:
        used = np.any([fold.train | fold.test for fold in folds], axis=0)
        seen = np.union1d(drawn.group(language), drawn.group(pivot))
        bad = int((~np.isfinite(states(reps, at[0], seen[used[seen]])).all(axis=1)).sum())
        if bad:
            return f"layer {reps['layer'].values[at[0]]}: {bad} rows are not finite"
        for fold in folds if language != POOLED else ():
            own = drawn.group(language)
            train, test = (drawn.label[own[part[own]]] for part in (fold.train, fold.test))
            if not len(train):
                return "every layer: no row to train on"
            if lacking := untaught(train, test):
                return f"every layer: no row to train on of class {drawn.classes[lacking[0]]!r}"
        return "every layer: a language has none"

    return missing
