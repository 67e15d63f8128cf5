"""Alignment to a pivot language: does a sentence lie where its translation lies?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.errors import InputError
from probes.results.draws import POOLED, Sample, sample
from probes.results.intervals import exact_at_the_ends
from probes.results.result import result
from probes.states.representations import BLOCK, directions, from_arrays

NEIGHBOURS = 4
_INVARIANT = "rotation, common scale, length of each vector, order (not shift)"
_ENTRIES = 2**22  # of one block of similarities
# What separates equal inputs that ran in different batches: a few roundings of their states.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
_Statistic = Callable[[xr.Dataset, int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@overload
def retrieval(
    x: xr.Dataset, translations: None = None, *, pivot: str, draws: int = 200, seed: int = 0
) -> xr.Dataset: ...


@overload
def retrieval(
    x: npt.ArrayLike, translations: npt.ArrayLike, *, pivot: None = None, draws: int = 200, seed: int = 0
) -> float: ...


def retrieval(
    x: xr.Dataset | npt.ArrayLike,
    translations: npt.ArrayLike | None = None,
    *,
    pivot: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how often the nearest neighbour of a sentence in the other language is its translation.

    Nearest by cosine, among all sentences that both languages have; the mean of both directions. 0 to 1, higher is
    better aligned; chance is 1 / n, so values of corpora of different size cannot be compared.

    Args:
        x: Representations of parallel sentences, or an array (sentence, feature).
        translations: (sentence, feature) in the same order, beside an array.
        pivot: the language that every other one is compared with.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)` for every language but the pivot, with their mean as `pooled`; `n` is the
        number of sentences that a language shares with the pivot. For arrays a float.

    Raises:
        InputError: the pivot is unknown; a language shares no id with it.

    Notes:
        A tie with the right one (within 4 float32 roundings of the states) counts as right; a layer whose states are
        all equal has no value. The draws weigh each sentence by what it does to the value, as one that is looked for
        and as one that keeps another from being found, among the same candidates. Where all sentences are right, or
        none is, the interval is the exact binomial one. It is for the mean over corpora of this size, and wider than it
        need be where nearly all are right.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> retrieval(x, x + 0.01)
        1.0
    """
    return _measure(_retrieval, RETRIEVAL, x, translations, pivot, draws, seed)


@overload
def margin_retrieval(
    x: xr.Dataset, translations: None = None, *, pivot: str, draws: int = 200, seed: int = 0
) -> xr.Dataset: ...


@overload
def margin_retrieval(
    x: npt.ArrayLike, translations: npt.ArrayLike, *, pivot: None = None, draws: int = 200, seed: int = 0
) -> float: ...


def margin_retrieval(
    x: xr.Dataset | npt.ArrayLike,
    translations: npt.ArrayLike | None = None,
    *,
    pivot: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how often the best match of a sentence by ratio margin is its translation.

    As `retrieval`, with the cosine of two sentences divided by the mean cosine of both to their 4 nearest neighbours
    in the other language, so that sentences which lie close to everything do not win everywhere.

    Args:
        x: Representations of parallel sentences, or an array (sentence, feature).
        translations: (sentence, feature) in the same order, beside an array.
        pivot: the language that every other one is compared with.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        As `retrieval`: 0 to 1, higher is better aligned.

    Raises:
        InputError: the pivot is unknown; a language shares fewer than 4 ids with it.

    Notes:
        Ratio margin of Artetxe and Schwenk 2019, arXiv 1811.01136, k = 4. Where the mean cosine to the neighbours is
        not positive the ratio has no meaning, and the pair counts as no match. Ties and intervals as in `retrieval`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> margin_retrieval(x, x + 0.01)
        1.0
    """
    return _measure(_margin_retrieval, _MARGIN, x, translations, pivot, draws, seed)


@overload
def alignment_gap(
    x: xr.Dataset, translations: None = None, *, pivot: str, draws: int = 200, seed: int = 0
) -> xr.Dataset: ...


@overload
def alignment_gap(
    x: npt.ArrayLike, translations: npt.ArrayLike, *, pivot: None = None, draws: int = 200, seed: int = 0
) -> float: ...


def alignment_gap(
    x: xr.Dataset | npt.ArrayLike,
    translations: npt.ArrayLike | None = None,
    *,
    pivot: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how much closer translations lie than other sentences: mean cosine of the ones minus that of the others.

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
        All pairs of different sentences are averaged, by products of sums; in the draws too, pairs of one sentence
        with itself are left out of the second mean. Memory does not grow with the corpus.

    Example:
        >>> x = np.eye(4)
        >>> alignment_gap(x, x)
        1.0
    """
    return _measure(_gap, _GAP, x, translations, pivot, draws, seed)


RETRIEVAL = {
    "probe": "retrieval",
    "estimator": "accuracy of the cosine nearest neighbour, mean of both directions, ties count as right",
    "range": "0 to 1; chance is 1 / n",
    "higher_is": "better aligned",
    "unchanged_by": _INVARIANT,
    "paper": "the usual measure, as on Tatoeba by Artetxe and Schwenk 2019, arXiv 1812.10464",
}
_MARGIN = RETRIEVAL | {
    "probe": "margin_retrieval",
    "estimator": "accuracy of the best ratio margin (k = 4), mean of both directions, ties count as right",
    "paper": "Artetxe and Schwenk 2019, arXiv 1811.01136",
}
_GAP = {
    "probe": "alignment_gap",
    "estimator": "mean cosine of translations minus mean cosine of non-translations",
    "range": "-2 to 2; 0 where translations lie no closer than others",
    "higher_is": "better aligned",
    "unchanged_by": _INVARIANT,
    "paper": "no single source",
}
_FEWEST_IDS = {"retrieval": 1, "margin_retrieval": NEIGHBOURS, "alignment_gap": 2}


def check_pivot(ids: np.ndarray, languages: np.ndarray, pivot: str, probe: str) -> None:
    """Raise `InputError` where a pivot is unknown, or a language shares too few ids with it for the probe."""
    there = list(dict.fromkeys(languages.tolist()))
    if pivot not in there:
        raise InputError(f"pivot {pivot!r}: no such language in the corpus; there are {', '.join(map(repr, there))}")
    if len(there) < 2:
        raise InputError(f"{probe} compares languages with the pivot {pivot!r}, and there is no other language")
    known = set(ids[languages == pivot].tolist())
    for language in there:
        shared = len(known.intersection(ids[languages == language].tolist()))
        if shared < _FEWEST_IDS[probe]:
            raise InputError(
                f"{probe}: language {language!r} shares {shared or 'no'} id{'' if shared == 1 else 's'} with the pivot "
                f"{pivot!r}, and needs at least {_FEWEST_IDS[probe]}. The same id must stand for the same sentence in "
                "every language"
            )


def _measure(
    statistic: _Statistic,
    attributes: dict[str, str],
    x: xr.Dataset | npt.ArrayLike,
    translations: npt.ArrayLike | None,
    pivot: str | None,
    draws: int,
    seed: int,
) -> xr.Dataset | float:
    if not isinstance(x, xr.Dataset):
        return _on_arrays(statistic, attributes, x, translations)
    if pivot is None:
        raise InputError("expected pivot=..., the language that every other one is compared with")
    drawn = sample(x, draws=draws, seed=seed, labels=False)
    statistics, n = _statistics(statistic, attributes, x, drawn, pivot)
    out = result(
        x, drawn, statistics, attributes | {"pivot": pivot}, n=n, bounds=(-2, 2) if statistic is _gap else (0, 1)
    )
    return out if statistic is _gap else exact_at_the_ends(out)


def _on_arrays(
    statistic: _Statistic, attributes: dict[str, str], x: npt.ArrayLike, translations: npt.ArrayLike | None
) -> float:
    if translations is None or np.shape(x) != np.shape(translations) or np.ndim(x) != 2:
        found = None if translations is None else np.shape(translations)
        raise InputError(
            "expected two arrays (sentence, feature) of one shape, translations in the same order; "
            f"found {np.shape(x)} and {found}"
        )
    n = len(np.asarray(x))
    reps = from_arrays(
        np.concatenate([x, translations]), id=np.tile(np.arange(n), 2), language=np.repeat(["a", "b"], n)
    )
    drawn = sample(reps, draws=2, seed=0, labels=False)
    statistics, _ = _statistics(statistic, attributes, reps, replace(drawn, weights=drawn.weights[:1]), "b")
    return float(statistics["a"][0, 0])


def _statistics(
    statistic: _Statistic, attributes: dict[str, str], reps: xr.Dataset, drawn: Sample, pivot: str
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    check_pivot(reps["id"].values, reps["language"].values, pivot, attributes["probe"])
    at_pivot = drawn.group(pivot)
    out: dict[str, np.ndarray] = {}
    n: dict[str, int] = {}
    for language in drawn.languages:
        if language == pivot:
            continue
        rows = drawn.group(language)
        ids, here, there = np.intersect1d(drawn.ids[rows], drawn.ids[at_pivot], assume_unique=True, return_indices=True)
        # In the order of the corpus, so that a store is read from front to back.
        order = np.argsort(rows[here])
        ids, here, there = ids[order], rows[here][order], at_pivot[there][order]
        n[language] = len(ids)
        weights = drawn.weights[:, ids]
        out[language] = np.stack(
            [statistic(reps, layer, here, there, weights) for layer in range(reps.sizes["layer"])], axis=-1
        )
    # Every language counts equally, however many sentences it has.
    out[POOLED] = np.mean(list(out.values()), axis=0)
    n[POOLED] = sum(n.values())
    return out, n


def _gap(reps: xr.Dataset, layer: int, here: np.ndarray, there: np.ndarray, weights: np.ndarray) -> np.ndarray:
    right, own, n, squares = np.zeros((4, len(weights)))
    sums = np.zeros((2, len(weights), reps.sizes["feature"]))
    for i in range(0, len(here), BLOCK):
        w = weights[:, i : i + BLOCK].astype(np.float64)
        pair = [directions(reps, layer, rows[i : i + BLOCK]) for rows in (here, there)]
        cosine = np.einsum("ij,ij->i", *pair)
        right += w @ cosine
        own += np.square(w) @ cosine
        n += w.sum(axis=1)
        squares += np.square(w).sum(axis=1)
        for total in sums:
            total += w @ pair.pop(0)  # popped, so that one piece is not kept while the next is read
    with np.errstate(invalid="ignore", divide="ignore"):
        return right / n - (np.einsum("wd,wd->w", *sums) - own) / (n**2 - squares)


def _retrieval(reps: xr.Dataset, layer: int, here: np.ndarray, there: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return translation_accuracy(directions(reps, layer, here), directions(reps, layer, there), None, weights)


def _margin_retrieval(
    reps: xr.Dataset, layer: int, here: np.ndarray, there: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    x, y = directions(reps, layer, here), directions(reps, layer, there)
    return translation_accuracy(x, y, (_mean_of_nearest(x, y), _mean_of_nearest(y, x)), weights)


def _mean_of_nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean cosine of every row of x to its nearest rows of y."""
    return np.concatenate(
        [np.partition(cosine, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:].mean(axis=1) for _, cosine in _cosines(x, y)]
    )


def _cosines(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    step = max(1, _ENTRIES // len(y))
    for i in range(0, len(x), step):
        rows = slice(i, min(i + step, len(x)))
        yield rows, x[rows] @ y.T


def _margins(cosine: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Cosines over the mean of both sides' cosines to their neighbours; no match where that is not positive."""
    return np.divide(cosine, scale, out=np.full_like(cosine, -np.inf), where=scale > 0)


def translation_accuracy(
    x: np.ndarray, y: np.ndarray, nearest: tuple[np.ndarray, np.ndarray] | None, weights: np.ndarray
) -> np.ndarray:
    """Return the share of rows whose best match is the same row, for every row of weights; by margin, or by cosine.

    A draw weighs what each sentence does to the share: it is right or wrong itself, and it may be the only one that
    keeps others from being right (what leaving it out would change, as in the jackknife). To draw the candidates
    themselves would make the task easier, since a draw has fewer different ones.
    """
    together = np.concatenate([x, y])
    if not np.isfinite(together).all() or np.abs(together - together[0]).max() < _ROUNDING:
        return np.full(len(weights), np.nan)
    n = len(x)
    # Rounding a state moves a cosine by that times the sine of the angle, which is small where all states lie close.
    angle = np.linalg.norm(x - y, axis=1)
    if nearest is not None:  # and the means over neighbours by that times the sine of the angle to them
        angle = (angle + np.sqrt(2 * max(1 - np.mean(nearest), 0))) / np.abs(np.mean(nearest, axis=0))
    tie = _ROUNDING * angle + 1e-14
    # Every score serves both directions: of x_i among all y, along the rows, and of y_j among all x, down the columns.
    own = np.einsum("id,id->i", x, y)
    if nearest is not None:
        own = _margins(own, np.mean(nearest, axis=0))
    least = own + tie
    better, best = np.zeros((2, n), int), np.zeros((2, n), int)
    for rows, score in _cosines(x, y):
        if nearest is not None:
            score = _margins(score, (nearest[0][rows, None] + nearest[1]) / 2)
        better[0, rows] = (score > least[rows, None]).sum(axis=1)
        best[0, rows] = score.argmax(axis=1)
        above = (score > least).sum(axis=0)
        best[1] = np.where(above > 0, score.argmax(axis=0) + rows.start, best[1])
        better[1] += above
    there = np.isfinite(own)
    right = ((better == 0) & there).sum(axis=0)
    spoiled = sum(np.bincount(best[side, (better[side] == 1) & there], minlength=n) for side in (0, 1))
    effect = (right - spoiled) / 2
    share = right.sum() / (2 * n)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = share + weights @ (effect - effect.mean()) / weights.sum(axis=1)
    out[0] = share
    return out
