"""Retrieval among the sentences of all languages: is the translation closer than any other one?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.measures.languages.neighbours import (
    blocks,
    cosines,
    margins,
    of_nearest,
    own_scores,
    share_found,
    undefined,
)
from probes.measures.languages.pairs import pivot_of
from probes.measures.probe import Probe, Run
from probes.results.draws import POOLED, Sample
from probes.results.result import result
from probes.states.representations import directions

Candidates = Literal["language", "all"]  # among which sentences a translation is looked for


class _Pool(NamedTuple):
    """The sentences whose id the pivot has, those of one id beside each other."""

    rows: np.ndarray  # (sentence,) in the corpus
    first: np.ndarray  # (id,) where those of each id begin
    code: np.ndarray  # (id,) columns of the weights
    id: np.ndarray  # (sentence,) number of each one's id
    language: np.ndarray  # (sentence,) and of its language
    place: np.ndarray  # (language, id) where the sentence is; -1 where there is none
    pivot: int
    shared: dict[int, np.ndarray]  # ids that each other language has


class _Found(NamedTuple):
    """Of every id that two languages have, what one of them finds of the other."""

    better: np.ndarray  # how many other ids have a sentence that lies closer
    best: np.ndarray  # which of them has the closest
    there: np.ndarray  # whether the right one can be found at all


def check_pool(pool: str, x: object) -> None:
    """Raise `InputError` where a pool is none, or there are no languages that it could hold."""
    if pool not in get_args(Candidates):
        raise InputError(f"pool={pool!r}: expected one of {', '.join(map(repr, get_args(Candidates)))}")
    if pool == "all" and not isinstance(x, xr.Dataset):
        raise InputError(
            'pool="all" looks among the sentences of all languages, and two arrays are of two: expected '
            f"Representations, found {type(x).__name__}. Make them with probes.from_arrays(..., id=, language=)"
        )


def of_all_languages(probe: Probe, run: Run, fewest: int, *, by_margin: bool) -> xr.Dataset:
    """Return the share of translations that are found among the sentences of all languages.

    A sentence is found where no sentence of any other id, in any language, lies closer. So the best
    of each other id stands for it, and all else is as among the sentences of one language.
    """
    reps, drawn, pivot = run.reps, run.sample, pivot_of(run, probe.name, fewest)
    pool = _pool(drawn, drawn.languages.index(pivot))
    values: dict[int, list[np.ndarray]] = {i: [] for i in pool.shared}
    broken: dict[int, int] = {}
    in_order = np.argsort(pool.rows)  # so that a store is read from front to back
    for layer in range(reps.sizes["layer"]):
        units = np.empty((len(pool.rows), reps.sizes["feature"]))
        units[in_order] = directions(reps, layer, pool.rows[in_order])
        bad = int((~np.isfinite(units).all(axis=1)).sum())
        if bad:
            broken[layer] = bad
        found = {} if bad else _found(pool, units, by_margin)
        for i, ids in pool.shared.items():
            weights = drawn.weights.take(pool.code[ids], axis=1)
            alike = undefined(*(units[pool.place[k, ids]] for k in (i, pool.pivot)))
            if bad or alike:
                values[i].append(np.full(len(weights), np.nan))
            else:
                better, best, there = map(np.stack, zip(*found[i], strict=True))
                values[i].append(share_found(better, best, there, weights))
    out = {drawn.languages[i]: np.stack(of_one, axis=-1) for i, of_one in values.items()}
    used = {drawn.languages[i]: np.sort(pool.rows[pool.place[i, ids]]) for i, ids in pool.shared.items()}
    # Every language counts equally, however many sentences it has.
    out[POOLED], used[POOLED] = np.mean(list(out.values()), axis=0), np.concatenate(list(used.values()))

    def missing(at: tuple[int, ...], language: str) -> str:
        if at[0] not in broken:
            return ""
        return f"layer {reps['layer'].values[at[0]]}: {broken[at[0]]} rows of all languages are not finite"

    about = probe.about() | {"pivot": pivot}
    return result(reps, drawn, out, about, rows=used, bounds=probe.bounds, missing=missing)


def _pool(drawn: Sample, pivot: int) -> _Pool:
    rows = np.flatnonzero(np.isin(drawn.ids, drawn.ids[drawn.language == pivot]))
    rows = rows[np.lexsort((drawn.language[rows], drawn.ids[rows]))]
    code, first, own = np.unique(drawn.ids[rows], return_index=True, return_inverse=True)
    language = drawn.language[rows]
    place = np.full((len(drawn.languages), len(code)), -1)
    place[language, own] = np.arange(len(rows))
    shared = {i: np.flatnonzero(places >= 0) for i, places in enumerate(place) if i != pivot}
    return _Pool(rows, first, code, own, language, place, pivot, shared)


def _found(pool: _Pool, units: np.ndarray, by_margin: bool) -> dict[int, tuple[_Found, _Found]]:
    """What each language finds of the pivot, and the pivot of it."""
    near = _near(pool, units) if by_margin else None
    parts: dict[tuple[int, int], list[_Found]] = {}
    for looking, at, rivals in _rivals(pool, units, near):
        for other in pool.shared if looking == pool.pivot else [pool.pivot]:
            known = pool.shared[other if looking == pool.pivot else looking]
            both = np.isin(pool.id[at], known)
            right = pool.place[other, pool.id[at[both]]]
            nearest = None if near is None else (near[at[both], other], near[right, looking])
            own, least = own_scores(units[at[both]], units[right], nearest)
            others = rivals[np.ix_(both, known)]
            found = _Found((others > least[:, None]).sum(axis=1), others.argmax(axis=1), np.isfinite(own))
            parts.setdefault((looking, other), []).append(found)
    whole = {pair: _Found(*map(np.concatenate, zip(*some, strict=True))) for pair, some in parts.items()}
    return {i: (whole[i, pool.pivot], whole[pool.pivot, i]) for i in pool.shared}


def _rivals(pool: _Pool, units: np.ndarray, near: np.ndarray | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield some sentences of a language at a time, and their best score with every id (sentence,
    id); none with their own.
    """
    for looking, places in enumerate(pool.place):
        of_one = places[places >= 0]
        for rows in blocks(len(of_one), len(units)):
            at = of_one[rows]
            score = units[at] @ units.T
            if near is not None:
                score = margins(score, (near[at][:, pool.language] + near[:, looking]) / 2)
            best = np.maximum.reduceat(score, pool.first, axis=1)
            best[np.arange(len(at)), pool.id[at]] = -np.inf
            yield looking, at, best


def _near(pool: _Pool, units: np.ndarray) -> np.ndarray:
    """Mean cosine of every sentence to its nearest of every language (sentence, language); in its own
    language it is its own translation.
    """
    out = np.empty((len(units), len(pool.place)))
    for rows, score in cosines(units, units):
        for language, places in enumerate(pool.place):
            out[rows, language] = of_nearest(score[:, places[places >= 0]])
    return out
