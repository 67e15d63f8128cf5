"""Word movers: is the sentence whose words have least far to go the translation?"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from probes.errors import LayerscopeWarning
from probes.measures.languages.neighbours import share_found
from probes.measures.languages.pairs import checked, of_alignment, pivot_of
from probes.measures.languages.retrieval import RETRIEVAL
from probes.measures.probe import Run
from probes.results.difference import difference
from probes.results.draws import POOLED, sample
from probes.results.intervals import of_shares
from probes.results.result import result, stack_measures
from probes.states.movers import Bags, bags_of, costs, movers_distance, relaxed, transport
from probes.states.ragged import broken_tokens, check_tokens, states_of_tokens, tokens_at

_TIED = 4 * float(np.finfo(np.float32).eps)  # what separates equal inputs that ran in different batches


def word_movers(
    reps: xr.Dataset, *, pivot: str, idf: bool = True, draws: int = 200, seed: int = 0, progress: bool = True
) -> xr.Dataset:
    """Measure how often the sentence whose words match best, word by word, is the translation.

    Nearest by word mover's distance: the least mean distance over which the words of one sentence
    are carried to those of the other, whatever their order. 0 to 1, higher is better aligned.

    Args:
        reps: Representations of parallel sentences, captured with `words=True` or `tokens=True`.
        pivot: the language that every other one is compared with.
        idf: weigh a word by how few sentences of its language have it; else all alike.
        draws, seed: of the bootstrap by sentence id.
        progress: show a progress bar.

    Returns:
        Along `measure`, each `value, low, high (layer, language)` with the mean of the languages as
        `pooled`; `n` is the number of sentences that a language shares with the pivot:

        - `word_movers`: the share of translations that are found, mean of both directions.
        - `word_movers_gain`: that minus `retrieval` of the pooled states, draw by draw; -1 to 1,
          above 0 where words find what the mean of them does not.
        - `word_movers_hubness`: how unevenly sentences are the nearest of others, 0 to 1: the share
          of answers that would have to go to another sentence for each to be given once.

    Raises:
        InputError: there are no states of tokens; the pivot is unknown; a language shares no id
            with it; the package POT is not installed (layerscope[transport]).

    Notes:
        Kusner et al. 2015, with the words at unit length and Euclidean costs of Wu et al. 2018,
        arXiv 1811.01713; solved exactly by network simplex, but only where the relaxed distance, a
        lower bound, could beat the best one found. Ties count as right and intervals are as in
        `retrieval`. Hubness is the Robin Hood index of Feldbauer and Flexer 2019. Time grows with
        the square of the words of a language; those of a layer are in memory.

    See also:
        `retrieval`, `WordMoversEmbedding`, `capture`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en", "fr"])
        >>> few = corpus.filter(lambda row: row["id"] < "s0090")
        >>> reps = probes.capture(model, tokenizer, few, words=True, progress=False)
        >>> found = word_movers(reps, pivot="en", progress=False).sel(measure="word_movers")
        >>> bool((found.value.sel(language="fr") >= 0).all())
        True
    """
    run = Run(reps, sample(reps, draws=draws, seed=seed), pivot=pivot, progress=progress)
    _ready(run)
    return _of_run(run, idf)


def _ready(run: Run) -> None:
    check_tokens(run.reps, "word_movers")
    transport()


def _check(run: Run) -> None:
    transport()
    checked("word_movers", 1)(run)


def _measured(run: Run) -> xr.Dataset:
    _ready(run)
    return _of_run(run, True)


class _Found(NamedTuple):
    """What each sentence finds on the other side, x of y and y of x."""

    better: np.ndarray  # (2, n) how many others are nearer than the right one; 2 for more
    best: np.ndarray  # (2, n) the nearest, the right one where none is nearer
    solved: int  # pairs whose exact distance was asked for


def _of_run(run: Run, idf: bool) -> xr.Dataset:
    reps, drawn, pivot = run.reps, run.sample, pivot_of(run, "word_movers", 1)
    weights = _inverse_frequencies(reps) if idf else None
    others = [language for language in drawn.languages if language != pivot]
    there = drawn.group(pivot)
    shared = {}
    for language in others:
        rows = drawn.group(language)
        ids, here, at = np.intersect1d(drawn.ids[rows], drawn.ids[there], assume_unique=True, return_indices=True)
        shared[language] = ids, rows[here], there[at]
    shares: dict[str, list[np.ndarray]] = {language: [] for language in others}
    hubs: dict[str, list[float]] = {language: [] for language in others}
    solved = pairs = 0
    bar = tqdm(
        reps["layer"].values, desc=f"word_movers {reps.attrs.get('model', '?')}", unit="layer", disable=not run.progress
    )
    for layer, _ in enumerate(bar):
        for language, (ids, here, at) in shared.items():
            x, y = (_bags(reps, layer, rows, weights) for rows in (here, at))
            w = drawn.weights.take(ids, axis=1)
            if _undefined(x, y):
                shares[language].append(np.full(len(w), np.nan))
                hubs[language].append(np.nan)
                continue
            found = nearest_of(x, y)
            solved, pairs = solved + found.solved, pairs + len(ids) ** 2
            shares[language].append(share_found(found.better, found.best, np.ones(len(ids), bool), w))
            hubs[language].append(float(np.mean([_uneven(best) for best in found.best])))
    used = {language: here for language, (_, here, _) in shared.items()}
    out = {language: np.stack(of_one, axis=-1) for language, of_one in shares.items()}
    uneven = {k: np.broadcast_to(np.array(v), (len(drawn.weights), len(v))) for k, v in hubs.items()}
    # Every language counts equally, however many sentences it has.
    out[POOLED], uneven[POOLED] = (np.mean([each[k] for k in others], axis=0) for each in (out, uneven))
    used[POOLED] = np.concatenate(list(used.values()))

    def missing(position: tuple[int, ...], language: str) -> str:
        bad = broken_tokens(reps, position[0], np.union1d(used[language], there))
        return f"layer {reps['layer'].values[position[0]]}: {bad} words are not finite" if bad else ""

    def of(about: int, statistics: dict[str, np.ndarray]) -> xr.Dataset:
        said = WORD_MOVERS[about].about() | {"pivot": pivot}
        with warnings.catch_warnings():
            if about:
                warnings.simplefilter("ignore", LayerscopeWarning)  # missing where word_movers is, which has said so
            return result(reps, drawn, statistics, said, rows=used, bounds=WORD_MOVERS[about].bounds, missing=missing)

    movers = of_shares(of(0, out))
    hubness = of(2, uneven)
    hubness = hubness.assign(low=hubness.low * np.nan, high=hubness.high * np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)
        mean = RETRIEVAL.measure(replace(run, pivot=pivot)).assign_attrs(probe=movers.attrs["probe"])
    share = solved / max(pairs, 1)
    return stack_measures([movers, _gain(of(1, out), movers, mean), hubness]).assign_attrs(
        weights="idf" if idf else "equal", solved=f"{share:.3f} of all pairs exactly, the others by their lower bound"
    )


def _gain(like: xr.Dataset, movers: xr.Dataset, mean: xr.Dataset) -> xr.Dataset:
    """What words find beyond the mean of them, paired."""
    mean = mean.sel(language=movers["language"].values)
    gap = difference(movers, mean)
    return like.assign(
        value=gap["difference"],
        low=gap["low"],
        high=gap["high"],
        draws=movers["draws"] - mean["draws"],
        unseen=movers["unseen"] + mean["unseen"],
    )


def nearest_of(x: Bags, y: Bags) -> _Found:
    """Return what each text of x finds among those of y, and each of y among those of x; the right
    one has the same number. Exact: what is not solved for cannot be nearer by its lower bound.

    Example:
        >>> x = bags_of(np.eye(4), np.array([2, 1, 1]))
        >>> found = nearest_of(x, x)
        >>> found.better.tolist(), found.best[0].tolist()
        ([[0, 0, 0], [0, 0, 0]], [0, 1, 2])
    """
    bound, n = relaxed(x, y), len(x.counts)
    known = np.full((n, n), np.nan)
    ends, others = x.ends, y.ends

    def exact(i: int, j: int) -> float:
        if np.isnan(known[i, j]):
            own, at = slice(ends[i], ends[i + 1]), slice(others[j], others[j + 1])
            cost = costs(x.states[own], y.states[at])
            known[i, j] = movers_distance(cost, x.weights[own], y.weights[at])
        return float(known[i, j])

    better, best = np.zeros((2, n), int), np.tile(np.arange(n), (2, 1))
    for side, lower in enumerate((bound, bound.T)):
        for i in range(n):
            right = exact(i, i)
            least = right - _TIED
            near = least  # of the nearest so far
            candidates = np.flatnonzero(lower[i] < least)
            for j in candidates[np.argsort(lower[i][candidates], kind="stable")]:
                # What is asked of further ones: whether there is a second that is nearer than the right one, or a
                # nearest.
                if j == i or lower[i, j] >= (least if better[side, i] == 1 else near):
                    continue
                distance = exact(i, j) if side == 0 else exact(j, i)
                if distance < least:
                    better[side, i] = min(2, better[side, i] + 1)
                if distance < near:
                    near, best[side, i] = distance, j
    return _Found(better, best, int(np.isfinite(known).sum()))


def _uneven(best: np.ndarray) -> float:
    """The share of answers that would have to change for each sentence to be given once."""
    given = np.bincount(best, minlength=len(best))
    return float(np.maximum(given - 1, 0).sum() / len(best))


def _bags(reps: xr.Dataset, layer: int, rows: np.ndarray, weights: np.ndarray | None) -> Bags:
    states, counts = states_of_tokens(reps, layer, rows)
    return bags_of(states, counts, None if weights is None else weights[tokens_at(reps, rows)[0]])


def _undefined(x: Bags, y: Bags) -> bool:
    """Whether there is nothing to be found: words are not finite, or all are equal."""
    if not all(np.isfinite(side.states).all() for side in (x, y)):
        return True
    return bool(max(np.abs(side.states - x.states[0]).max() for side in (x, y)) < _TIED)


def _inverse_frequencies(reps: xr.Dataset) -> np.ndarray:
    """The weight of every token, by how few sentences of its language have it: (token,)."""
    out = np.ones(reps.sizes["token"])
    codes = reps["token_code"].values
    languages = reps["language"].values
    for language in dict.fromkeys(languages):
        rows = np.flatnonzero(languages == language)
        at, counts = tokens_at(reps, rows)
        pairs = pd.DataFrame({"text": np.repeat(rows, counts), "code": codes[at]}).drop_duplicates()
        having = pairs["code"].value_counts()
        # As scikit-learn smooths it: above 0 for a word that every sentence has.
        out[at] = np.log((1 + len(rows)) / (1 + having.reindex(codes[at]).to_numpy())) + 1
    return out


_FOUND = of_alignment(
    name="word_movers",
    title="retrieval word by word",
    estimator="accuracy of the nearest sentence by exact word mover's distance of words at unit length, weighted by "
    "idf, mean of both directions, ties count as right",
    range="0 to 1; chance is 1 / n",
    bounds=(0, 1),
    family="words",
    needs=("pivot", "states of tokens"),
    default=False,
    paper="Kusner et al. 2015 (ICML); costs of Wu et al. 2018, arXiv 1811.01713",
    measure=_measured,
    check=_check,
)
WORD_MOVERS = (
    _FOUND,
    replace(
        _FOUND,
        name="word_movers_gain",
        title="retrieval word by word, beyond the mean",
        estimator="word_movers minus retrieval of the pooled states",
        range="-1 to 1; above 0 where words find translations that their mean does not",
        bounds=(-1, 1),
        better="",
        higher_is="more found by words than by their mean",
        paper="no single source",
    ),
    replace(
        _FOUND,
        name="word_movers_hubness",
        title="hubness word by word",
        estimator="share of nearest sentences that are given more than once, mean of both directions",
        range="0 to 1; 0 where each sentence is the nearest of one",
        better="lower",
        higher_is="worse: few sentences are the nearest of many",
        paper="the Robin Hood index of Feldbauer and Flexer 2019",
        interval="none: draws with repetition make it larger",
    ),
)
