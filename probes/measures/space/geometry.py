"""Geometry: how the states of a layer fill the space, told without labels or translations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import xarray as xr
from threadpoolctl import threadpool_limits

from probes.errors import InputError, LayerscopeWarning
from probes.measures.probe import LARGE, THIS_SIZE, Probe, Run
from probes.results.draws import POOLED, Sample, sample
from probes.results.intervals import linearised
from probes.results.result import result, stack_measures
from probes.states.representations import check_enough, from_arrays, states

FEWEST_IDS = 4  # an unbiased square of a covariance takes four sentences
KEPT = 0.9  # of the ratios of distances; the larger ones count as at least that large
_ENTRIES = 2**22  # of one block of distances
# What separates equal inputs that ran in different batches: a few roundings of their states.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
_STEP = 0.25
_RIDGES = np.exp(np.arange(np.log(1e-9), np.log(1e8), _STEP))  # in units of the trace of the covariance
_ATOMS = 64
_GUESSED = np.log(2)  # the most of an effective rank that may be extrapolated
_NONE_VARY = "undefined here (0/0), as for states that are all equal"


@overload
def geometry(x: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset: ...


@overload
def geometry(x: npt.ArrayLike, *, draws: int = 200, seed: int = 0) -> dict[str, float]: ...


def geometry(x: xr.Dataset | npt.ArrayLike, *, draws: int = 200, seed: int = 0) -> xr.Dataset | dict[str, float]:
    """Measure how the states of each layer fill the space: direction, isotropy, dimension and length.

    Six measures, none of which is better when high or low; they say what a compression changed. For S the covariance:

    - `mean_cosine_of_pairs`, -1 to 1: of all pairs of different sentences; high where states lie in a narrow cone.
    - `iso_score`, 0 to 1: how evenly the variance is spread over the features; 1 where it is equal in all directions.
    - `effective_rank`, 1 to features: exp of the entropy of the eigenvalues of S.
    - `participation_ratio`, 1 to features: trace(S)^2 / trace(S^2), which small eigenvalues hardly change.
    - `intrinsic_dimension`, above 0: of the surface on which the states lie, curved or not (TwoNN).
    - `norm`, above 0: mean Euclidean norm.

    Args:
        x: Representations, or an array (example, feature).
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, layer, language)`, with all languages together as `pooled`, and beside each measure
        its estimator, range, direction, invariances and paper; for an array a float a measure, by name.

    Raises:
        InputError: a language has fewer than 4 sentences.

    Notes:
        Corrected for the number of sentences, so that values of corpora of different size can be compared, with one
        exception, the intrinsic dimension. A naive effective rank of 100 states is never above 99; in simulations
        with 384 features whose variance falls as 1 / k^decay, decay 0 to 1, it is 0.23 to 0.45 of the true one.
        Translations are not counted as further sentences.

        IsoScore (Rudman, Gillman, Rayne and Eickhoff 2022, arXiv 2108.07344) is, rearranged, (participation ratio - 1)
        / (features - 1). Both come from unbiased estimates of trace(S)^2 and trace(S^2), those of Himeno and Yamada
        2014 with sentences in place of rows; in simulations of 50 to 1,000 sentences they are on average within 8 % of
        the truth, high where one direction dominates and sentences are few. Estimates may leave their range; there is
        none where that of trace(S^2) is not positive.

        The effective rank of Roy and Vetterli 2007 is of singular values, ours of the eigenvalues of S. Its entropy is
        an integral of the degrees of freedom of a ridge, and those of the sample at one ridge are those of the
        population at a larger, known one (Silverstein 1995, J. Multivariate Analysis 55; also for rows of different
        length and translations). With fewer sentences than features, the part at small ridges is extrapolated; where
        that could halve or double the value there is none. In simulations it is within 5 % of the truth from 50
        sentences for normal states, up to 13 % low at 50 and 7 % at 100 where their lengths vary widely, and 23 % high
        at 50 where a part of the features carries no variance; `pooled`, where translations all but agree, 34 % low at
        50 and 15 % at 100 sentences. On states of a real sentence encoder, 100 of 701 sentences give on average 0.96 to
        1 times the effective rank of all (naively: 0.35 to 0.5), `pooled` 0.87 to 0.95 times.

        TwoNN is that of Facco, d'Errico, Rodriguez and Laio 2017, arXiv 1803.06992; where they discard the largest
        tenth of the ratios of distances and fit a line, we count that tenth as censored in a maximum likelihood, which
        is unbiased for it and as safe from outliers. Neighbours are sought in the same language, for `pooled` too:
        across languages, the nearest neighbours are translations. Of rows that are copies of another (up to rounding)
        the first counts, and a warning says how many were left out. Above about 10 dimensions it is too low, the more
        so the fewer the sentences: 26 in place of 128 for 100 sentences whose variance falls as 1 / k.

        The interval is for the value of a large corpus, for the intrinsic dimension for the mean over corpora of this
        size. In simulations it holds that in 89 to 98 % of cases, and in up to 100 % where all directions have nearly
        equal variance. Mean cosine and norm are computed anew in every draw, without pairs of a sentence with itself;
        the others are linearised. Memory is that of a few copies of the states of one layer, and of one matrix of
        features or sentences, whichever are fewer.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 64)) + 0.5
        >>> for name, value in geometry(x).items():
        ...     print(name, round(value, 1))
        mean_cosine_of_pairs 0.2
        iso_score 1.0
        effective_rank 63.0
        participation_ratio 62.3
        intrinsic_dimension 26.6
        norm 8.9
    """
    if not isinstance(x, xr.Dataset):
        reps = from_arrays(x)
        drawn = sample(reps, draws=2, seed=0)
        found = _found(reps, replace(drawn, weights=drawn.weights[:1]))
        return {name: float(found.statistics[name][reps["language"].values[0]][0, 0]) for name in GEOMETRY}
    return _measured(x, sample(x, draws=draws, seed=seed))


def _measured(x: xr.Dataset, drawn: Sample) -> xr.Dataset:
    found = _found(x, drawn)
    results = []
    for name, probe in GEOMETRY.items():
        reasons = {k[1:]: v for k, v in found.reasons.items() if k[0] == name}
        results.append(
            result(
                x,
                drawn,
                found.statistics[name],
                probe.about(),
                missing=lambda at, language, reasons=reasons: reasons[at[0], language],  # type: ignore[misc]
            )
        )
    return stack_measures(results)


@dataclass
class _Found:
    """What was measured: measure -> language -> (1 + draws, layer), and why a value is missing."""

    statistics: dict[str, dict[str, np.ndarray]]
    reasons: dict[tuple[str, int, str], str]


@dataclass(frozen=True)
class _Sentences:
    """Rows sorted by sentence: where each one starts, and how many rows (translations) it has."""

    ids: np.ndarray  # (row,) codes, columns of the weights
    starts: np.ndarray  # (sentence,)
    counts: np.ndarray  # (sentence,)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Add up the rows (row, ...) of every sentence: (sentence, ...)."""
        return values if len(self.starts) == len(self.ids) else np.add.reduceat(values, self.starts, axis=0)

    def by_size(self) -> Iterator[np.ndarray]:
        """Yield the rows (sentence, row) of all sentences with one number of rows."""
        for size in np.unique(self.counts):
            yield self.starts[self.counts == size][:, None] + np.arange(size)


def _found(reps: xr.Dataset, drawn: Sample) -> _Found:
    groups = {language: drawn.group(language) for language in drawn.languages}
    for language, rows in groups.items():
        if len(rows) < FEWEST_IDS:
            raise InputError(
                f"geometry: language {language!r} has {len(rows)} sentence{'' if len(rows) == 1 else 's'}, and needs "
                f"at least {FEWEST_IDS} (a few hundred to say much). Add sentences, or leave the language out"
            )
    if len(groups) > 1:
        groups[POOLED] = drawn.group(POOLED)
    shape = (len(drawn.weights), reps.sizes["layer"])
    out = _Found({name: {group: np.full(shape, np.nan) for group in groups} for name in GEOMETRY}, {})
    copies = []
    for layer in range(reps.sizes["layer"]):
        ratios = []
        place = f"layer {reps['layer'].values[layer]}"
        for group, rows in groups.items():
            order = np.argsort(drawn.ids[rows], kind="stable")
            x = states(reps, layer, rows)[order]
            ids = drawn.ids[rows][order]
            values, reasons = _measure(x, ids, drawn.weights)
            if group != POOLED:
                ratios.append((*_ratios(x), ids))
                logs, rest, _ = ratios[-1]
                if len(logs) and len(rest) < len(x):
                    copies.append(f"{len(x) - len(rest)} of {group} at {place}")
            kept = ratios if group == POOLED else ratios[-1:]
            values["intrinsic_dimension"], why = _dimension(kept, drawn.weights)
            reasons["intrinsic_dimension"] = reasons.get("norm", why)
            for name, value in values.items():
                out.statistics[name][group][:, layer] = value
                out.reasons[name, layer, group] = f"{place}: {reasons.get(name, _NONE_VARY)}"
    if copies:
        warnings.warn(
            f"intrinsic_dimension of model {reps.attrs.get('model', '?')} leaves out rows that are copies of another: "
            f"{'; '.join(copies[:5])}{f'; and at {len(copies) - 5} more places' if len(copies) > 5 else ''}",
            LayerscopeWarning,
            stacklevel=4,
        )
    if len(drawn.languages) == 1:
        only = drawn.languages[0]
        for statistics in out.statistics.values():
            statistics[POOLED] = statistics[only]
        out.reasons |= {(name, layer, POOLED): why for (name, layer, _), why in out.reasons.items()}
    return out


def _measure(x: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return all measures but the intrinsic dimension of states sorted by id, a value a row of weights, and reasons."""
    nan = np.full(len(weights), np.nan)
    names = [name for name in GEOMETRY if name != "intrinsic_dimension"]
    if bad := int((~np.isfinite(x).all(axis=1)).sum()):
        return dict.fromkeys(names, nan), dict.fromkeys(names, f"{bad} rows are not finite")
    there, starts, counts = np.unique(ids, return_index=True, return_counts=True)
    sentences = _Sentences(ids, starts, counts)
    w = weights[:, there].astype(np.float64)
    norm = np.linalg.norm(x, axis=1)
    values = dict.fromkeys(names, nan)
    reasons = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        values["norm"] = w @ sentences.sum(norm) / (w @ counts)
        values["mean_cosine_of_pairs"] = _mean_cosine(sentences.sum(x / norm[:, None]), w, counts)
    if not norm.all():
        reasons["mean_cosine_of_pairs"] = f"{int((norm == 0).sum())} rows are all zero and have no direction"
    centred = x - x.mean(axis=0)
    if np.abs(centred).max() <= _ROUNDING * np.abs(x).max():
        return values, reasons
    scores, spectrum = _principal(centred)
    within = _within(scores, sentences)
    ratio, influence = _participation(scores, spectrum, within, sentences)
    features = x.shape[1]
    if ratio > 0:
        drawn = linearised(np.array(ratio), ratio * influence, ids, weights, (0.0, np.inf))
        values["participation_ratio"] = drawn
        values["iso_score"] = (drawn - 1) / (features - 1) if features > 1 else nan
    reasons["participation_ratio"] = "too few sentences: the unbiased estimate of trace(S^2) is not positive"
    reasons["iso_score"] = reasons["participation_ratio"] if features > 1 else "there is only one feature"
    entropy, influence, guessed = _entropy(scores, spectrum, within, sentences, features)
    if guessed <= _GUESSED:
        drawn = linearised(np.array(entropy), influence, ids, weights, (0.0, np.inf))
        values["effective_rank"] = np.exp(drawn)
    reasons["effective_rank"] = (
        f"{len(there)} sentences are too few for so many dimensions: more than half of the value would be a guess"
    )
    return values, reasons


def _mean_cosine(sums: np.ndarray, w: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean cosine of rows of different sentences, from the summed unit vectors (sentence, feature) of each."""
    total, own = w @ sums, np.einsum("sf,sf->s", sums, sums)
    pairs = (w @ counts) ** 2 - np.square(w) @ np.square(counts.astype(np.float64))
    return (np.einsum("wf,wf->w", total, total) - np.square(w) @ own) / pairs


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # One thread: on matrices of this size several wait for each other longer than they compute.
    with threadpool_limits(1, user_api="blas"):
        values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (row, component) of centred states along their principal axes, and the mean square of each."""
    n, features = x.shape
    scale = np.abs(x).max()  # so that nothing overflows
    x = x / scale
    if n < features:
        squares, axes = _eigen(x @ x.T)
    else:
        squares, axes = _eigen(x.T @ x)
    real = squares > 4 * max(n, features) * np.finfo(np.float64).eps * squares[-1]
    squares, axes = squares[real], axes[:, real]
    scores = axes * np.sqrt(squares) if n < features else x @ axes
    return scores, squares / n


@dataclass(frozen=True)
class _Within:
    """Products of the rows of one sentence with each other."""

    squares: np.ndarray  # (row,) summed squares of its products with the rows of its sentence, itself included
    sums: np.ndarray  # (row,) its product with the sum of its sentence
    spread: np.ndarray  # (row,) eigenvalues of these products, sentence by sentence


def _within(scores: np.ndarray, sentences: _Sentences) -> _Within:
    squares, sums, spread = np.empty((3, len(scores)))
    for rows in sentences.by_size():
        if rows.shape[1] == 1:
            norm = np.square(scores[rows[:, 0]]).sum(axis=1)
            squares[rows[:, 0]], sums[rows[:, 0]], spread[rows[:, 0]] = norm**2, norm, norm
            continue
        block = scores[rows]
        products = block @ block.transpose(0, 2, 1)
        squares[rows], sums[rows] = np.square(products).sum(axis=2), products.sum(axis=2)
        spread[rows] = np.linalg.eigvalsh(products)
    return _Within(squares, sums, np.maximum(spread, 0))


def _participation(
    scores: np.ndarray, spectrum: np.ndarray, within: _Within, sentences: _Sentences
) -> tuple[float, np.ndarray]:
    """Return trace(S)^2 / trace(S^2) from unbiased estimates of both, and what each row does to its logarithm.

    Both are polynomials in the products of up to four rows of different sentences, which are summed over all such
    rows at once. The rows are centred, so that most of these sums are 0. NaN or below 0 where trace(S^2) is.
    """
    n = len(scores)
    counts = sentences.counts.astype(np.float64)
    c2, c3, c4 = ((counts**k).sum() for k in (2, 3, 4))
    pairs = n**2 - c2
    triples = n**3 - 3 * n * c2 + 2 * c3
    fours = n**4 - 6 * n**2 * c2 + 3 * c2**2 + 8 * n * c3 - 6 * c4
    second = n * spectrum  # the eigenvalues of the sum of x x'
    length = np.square(scores).sum(axis=1)
    a = sentences.sum(length)
    m = sentences.sum(scores)
    mm = np.square(m).sum(axis=1)
    products = m.T @ m if len(m) > m.shape[1] else m @ m.T
    four = (mm.sum() ** 2 + 2 * np.square(products).sum() - 6 * np.square(mm).sum()) / fours
    three = (2 * np.square(within.sums).sum() - np.square(m).sum(axis=0) @ second) / triples
    of_square = (np.square(second).sum() - within.squares.sum()) / pairs - 2 * three + four
    three = (2 * (a * mm).sum() - a.sum() * mm.sum()) / triples
    square_of = (a.sum() ** 2 - np.square(a).sum()) / pairs - 2 * three + four
    if of_square <= 0:
        return np.nan, np.zeros(n)
    own = np.repeat(counts, sentences.counts)
    across = (np.square(scores) @ second - within.squares) / (n - own)
    across_length = length * (a.sum() - np.repeat(a, sentences.counts)) / (n - own)
    return square_of / of_square, 2 * (across_length / square_of - across / of_square)


def _entropy(
    scores: np.ndarray, spectrum: np.ndarray, within: _Within, sentences: _Sentences, features: int
) -> tuple[float, np.ndarray, float]:
    """Return the entropy of the eigenvalues of the covariance, what each row does to it, and the part that is guessed.

    What is guessed is how much more it is than it would be, were there no more dimensions than sentences can tell.
    With eigenvalues p that sum to 1, the entropy is the integral over t from 0 to infinity of f(t) - 1 / (1 + t), where
    f(t) = sum of p / (p + t) are the degrees of freedom of a ridge t. The degrees of freedom of the sample at a ridge w
    are those of the population at the larger ridge t = w / b, whatever its eigenvalues, in the limit of many rows and
    features (Silverstein 1995): for n independent rows b = 1 - f / n. For rows with a covariance of their own
    (translations) and of different length, whose eigenvalues c have the mean 1, b solves mean(c / (b + c f / n)) = 1.
    Ridges below t(0), which n rows cannot tell apart, are extrapolated from the value and slope there.
    """
    p = spectrum / spectrum.sum()
    size = len(scores) / len(sentences.counts)
    n = (len(sentences.counts) - 1) * size
    p = p[::-1][: int(n)]
    kept = scores[:, ::-1][:, : len(p)]
    c, of = _row_spread(within.spread, spectrum, size)
    w = _RIDGES[:, None]
    share = 1 / (p + w)
    f = share @ p
    slope = -np.square(share) @ p
    y = np.minimum(f / n, 1.0)
    b = _balance(c, of, y) if len(c) > 1 else (n - len(p) + (w * share).sum(axis=1)) / n  # 1 - y, without cancellation
    base = np.square(1 / (b[:, None] + np.outer(y, c)))
    pull = (base @ (of * np.square(c))) / (base @ (of * c))
    w = w[:, 0]
    t = w / b
    rise = 1 / b + w * pull * slope / (n * b**2)  # of t with w
    area = _STEP * ((f - 1 / (1 + t)) * rise * w).sum()
    low = _extrapolated(t[0], f[0], slope[0] / rise[0], max(features, f[0]))
    weight = _STEP * (w * t) @ np.square(share)
    influence = (np.square(kept) @ weight - np.square(scores).sum(axis=1) * (weight @ p)) / spectrum.sum()
    return float(area + low - np.log1p(t[0])), influence, float(low - t[0] * f[0])


def _row_spread(spread: np.ndarray, spectrum: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of the covariance of the rows, of mean 1, and the share of each.

    From those of the products within sentences, which are spread by chance too, the more so the fewer dimensions there
    are: they are raised to the power that leaves as much spread as is not expected by chance. Without those that are 0.
    """
    chance = np.square(spectrum).sum() / spectrum.sum() ** 2
    seen = np.square(spread).mean() / spread.mean() ** 2
    true = (seen - size * chance) / (1 + chance)
    if true <= 1:
        return np.ones(1), np.ones(1)
    there = np.sort(spread[spread > 1e-10 * spread.max()]) / spread.max()
    low, high = 0.0, 1.0
    for _ in range(30):
        power = (low + high) / 2
        c = there**power
        over = np.square(c).sum() * len(spread) > true * c.sum() ** 2
        low, high = (low, power) if over else (power, high)
    parts = np.array_split(c * len(spread) / c.sum(), min(_ATOMS, len(c)))
    return np.array([part.mean() for part in parts]), np.array([len(part) for part in parts]) / len(spread)


def _balance(c: np.ndarray, of: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Solve mean(c / (b + c y)) = 1 for b in (0, 1], for every y, by bisection of its logarithm."""
    low, high = np.full(len(y), -60.0), np.zeros(len(y))
    for _ in range(56):
        middle = (low + high) / 2
        above = (c / (np.exp(middle)[:, None] + np.outer(y, c))) @ of > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.exp((low + high) / 2)


def _extrapolated(t: float, f: float, slope: float, most: float) -> float:
    """Integrate degrees of freedom from 0 to t, which rise to `most` at 0, from their value and slope at t.

    As most / (1 + (t / s)^a), which is exact where all eigenvalues are equal (a = 1).
    """
    if most - f < 1e-6 * most or t * most < 1e-6:
        return t * f
    a = min(1.0, -slope * t / f / (1 - f / most))
    x = (np.arange(1000) + 0.5) / 1000
    return float(t * np.mean(most / (1 + (most / f - 1) * x**a)))


def _ratios(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log ratio of the distances of each row to its second and its first neighbour, and which rows count.

    Of rows that are copies of each other (up to rounding) the first counts. Empty where too few are left, or some row
    is not finite.
    """
    kept = np.arange(len(x))
    none = np.zeros(0)
    if not np.isfinite(x).all():
        return none, kept
    scale = np.abs(x).max() or 1.0
    x = x / scale
    rounding = _ROUNDING * np.linalg.norm(x, axis=1)
    x = x - x.mean(axis=0)
    while len(kept) >= FEWEST_IDS:
        y = x[kept]
        length = np.square(y).sum(axis=1)
        near = np.maximum(np.square(rounding[kept]), 1e-14 * length.max())
        nearest, copy = np.empty((len(y), 2)), np.zeros(len(y), bool)
        step = max(1, _ENTRIES // len(y))
        for start in range(0, len(y), step):
            rows = np.arange(start, min(start + step, len(y)))
            squares = y[rows] @ y.T
            squares *= -2
            squares += length
            squares += length[rows, None]
            squares[np.arange(len(rows)), rows] = np.inf
            nearest[rows] = np.partition(squares, 1, axis=1)[:, :2]
            close = np.flatnonzero(nearest[rows, 0] <= near[rows])
            copy[rows[close]] = [(squares[i] <= near[rows[i]])[: rows[i]].any() for i in close]
        if not copy.any():
            return np.log(nearest[:, 1] / np.maximum(nearest[:, 0], np.finfo(float).tiny)) / 2, kept
        kept = kept[~copy]
    return none, kept


def _dimension(
    languages: list[tuple[np.ndarray, np.ndarray, np.ndarray]], weights: np.ndarray
) -> tuple[np.ndarray, str]:
    """Return TwoNN for every row of weights, from the log ratios of some languages, and the reason where there is none.

    The ratios of a space of dimension d are distributed as exponentials of rate d: their number over their sum, where
    those above the largest kept one count as that one and not as a ratio of their own.
    """
    nan = np.full(len(weights), np.nan)
    if not all(len(ratios) for ratios, _, _ in languages):
        return nan, f"fewer than {FEWEST_IDS} rows differ"
    ratios = np.concatenate([r for r, _, _ in languages])
    ids = np.concatenate([ids[kept] for _, kept, ids in languages])
    k = int(np.ceil(KEPT * len(ratios)))
    most = np.partition(ratios, k - 1)[k - 1]
    seen, capped = ratios <= most, np.minimum(ratios, most)
    if not most > 0:
        return nan, "all rows lie equally far from their first and second neighbour"
    value = (seen.sum() - 1) / capped.sum()
    influence = seen / seen.mean() - capped / capped.mean()
    return np.exp(linearised(np.array(np.log(value)), influence, ids, weights, (-np.inf, np.inf))), ""


def _declared(name: str, **about: Any) -> Probe:
    return Probe(
        name=name,
        family="geometry",
        measure=_of_run,
        check=_check,
        **{"unchanged_by": ("rotation", "shift", "common scale", "order"), "interval": LARGE} | about,
    )


def _of_run(run: Run) -> xr.Dataset:
    return _measured(run.reps, run.sample)


def _check(run: Run) -> None:
    check_enough(run.reps, FEWEST_IDS, "geometry")


GEOMETRY = {
    probe.name: probe
    for probe in (
        _declared(
            "mean_cosine_of_pairs",
            title="mean cosine of pairs",
            estimator="mean cosine of all pairs of different sentences",
            range="-1 to 1; 0 where directions are spread evenly, 1 where all are the same",
            higher_is="narrower cone",
            unchanged_by=("rotation", "common scale", "length of each vector", "order"),
            paper="Ethayarajh 2019, arXiv 1909.00512",
        ),
        _declared(
            "iso_score",
            title="IsoScore",
            estimator="IsoScore = (participation ratio - 1) / (features - 1), from unbiased sums over sentences",
            range="0 to 1; 1 where the variance is equal in all directions; an estimate may lie a little outside",
            higher_is="more isotropic",
            paper="Rudman, Gillman, Rayne, Eickhoff 2022, arXiv 2108.07344",
        ),
        _declared(
            "effective_rank",
            title="effective rank",
            estimator="exp of the entropy of the eigenvalues of the covariance, corrected for the number of sentences",
            range="1 to the number of features",
            higher_is="more dimensions",
            paper="Roy, Vetterli 2007, EUSIPCO (of singular values there); the correction is our own, after "
            "Silverstein 1995",
        ),
        _declared(
            "participation_ratio",
            title="participation ratio",
            estimator="trace(S)^2 / trace(S^2) of the covariance S, from unbiased sums over sentences",
            range="1 to the number of features; an estimate may lie a little outside",
            higher_is="more dimensions",
            paper="Himeno, Yamada 2014, J. Multivariate Analysis 130 (the unbiased sums)",
        ),
        _declared(
            "intrinsic_dimension",
            title="intrinsic dimension (TwoNN)",
            estimator="TwoNN by maximum likelihood, the largest tenth of the ratios censored, within each language",
            range="0 to infinity",
            higher_is="more dimensions",
            paper="Facco, d'Errico, Rodriguez, Laio 2017, arXiv 1803.06992",
            interval=THIS_SIZE,
        ),
        _declared(
            "norm",
            title="length",
            estimator="mean Euclidean norm",
            range="0 to infinity",
            higher_is="longer vectors",
            unchanged_by=("rotation", "order"),
            paper="no single source",
        ),
    )
}
