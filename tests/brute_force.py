"""Every probe once more, from its definition: float64, loops over pairs, no shared code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache

import numpy as np


def _of_pairs(x: np.ndarray, y: np.ndarray, unit: np.ndarray | None, kernel: Callable) -> dict:
    """The mean of a kernel over the pairs of two classes, without pairs of one unit."""
    unit = np.arange(len(x)) if unit is None else unit
    found = defaultdict(list)
    for i in range(len(x)):
        for j in range(len(x)):
            if unit[i] != unit[j]:
                found[y[i], y[j]].append(kernel(x[i], x[j]))
    return {pair: np.mean(values) for pair, values in found.items()}


def snr(x: np.ndarray, y: np.ndarray, unit: np.ndarray | None = None) -> float:
    mean = _of_pairs(np.asarray(x, np.float64), y, unit, lambda a, b: np.sqrt(((a - b) ** 2).sum()))
    within = [mean[c, c] for c in sorted(set(y))]
    between = [value for (c, d), value in mean.items() if c != d]
    return float(np.mean(between) / np.mean(within))


def _cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)


def class_separability(x: np.ndarray, y: np.ndarray, unit: np.ndarray | None = None) -> float:
    mean = _of_pairs(np.asarray(x, np.float64), y, unit, _cosine_distance)
    return float(1 - np.mean([mean[c, c] for c in sorted(set(y))]) / np.mean(list(mean.values())))


def class_separability_with_self_pairs(x: np.ndarray, y: np.ndarray) -> float:
    x = np.asarray(x, np.float64)
    distance = np.array([[_cosine_distance(a, b) for b in x] for a in x])
    classes = sorted(set(y))
    within = np.mean([distance[np.ix_(y == c, y == c)].mean() for c in classes])
    total = np.mean([distance[np.ix_(y == c, y == d)].mean() for c in classes for d in classes])
    return float(1 - within / total)


def variability(x: np.ndarray, y: np.ndarray) -> float:
    x = np.asarray(x, np.float64)
    classes = sorted(set(y))
    means = np.array([x[y == c].mean(axis=0) for c in classes])
    within = np.mean([np.cov(x[y == c].T, bias=True) for c in classes], axis=0)
    centred = means - means.mean(axis=0)
    between = centred.T @ centred / len(classes)
    return float(np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True)) / len(classes))


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in y] for a in x])


def _accuracy(score: np.ndarray) -> float:
    right = [score[i, i] >= score[i].max() for i in range(len(score))]
    right += [score[i, i] >= score[:, i].max() for i in range(len(score))]
    return float(np.mean(right))


def retrieval(x: np.ndarray, y: np.ndarray) -> float:
    return _accuracy(_cosines(x, y))


def margin_retrieval(x: np.ndarray, y: np.ndarray) -> float:
    cosine = _cosines(x, y)
    of_x = np.array([np.sort(row)[-4:].mean() for row in cosine])
    of_y = np.array([np.sort(column)[-4:].mean() for column in cosine.T])
    return _accuracy(
        np.array([[cosine[i, j] / ((of_x[i] + of_y[j]) / 2) for j in range(len(y))] for i in range(len(x))])
    )


def alignment_gap(x: np.ndarray, y: np.ndarray) -> float:
    cosine = _cosines(x, y)
    same = np.eye(len(cosine), dtype=bool)
    return float(cosine[same].mean() - cosine[~same].mean())


def retrieval_all_languages(
    x: np.ndarray, ids: np.ndarray, languages: np.ndarray, language: str, pivot: str, by_margin: bool = False
) -> float:
    """Of a language and the pivot: how often the right one lies closer than every sentence of another id."""
    cosine = _cosines(x, x)

    @cache
    def near(i: int, of: str) -> float:
        return float(np.sort(cosine[i, (languages == of) & np.isin(ids, ids[languages == pivot])])[-4:].mean())

    def score(i: int, j: int) -> float:
        if not by_margin:
            return float(cosine[i, j])
        scale = (near(i, languages[j]) + near(j, languages[i])) / 2
        return float(cosine[i, j] / scale) if scale > 0 else -np.inf

    shared = set(ids[languages == language]) & set(ids[languages == pivot])
    right = []
    for looking, other in ((language, pivot), (pivot, language)):
        for i in np.flatnonzero((languages == looking) & np.isin(ids, list(shared))):
            (own,) = (score(i, j) for j in np.flatnonzero((languages == other) & (ids == ids[i])))
            rivals = [score(i, j) for j in np.flatnonzero(np.isin(ids, list(shared)) & (ids != ids[i]))]
            right.append(np.isfinite(own) and own >= max(rivals))
    return float(np.mean(right))
