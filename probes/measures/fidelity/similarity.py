"""Similarity of every layer of one model to every layer of another (or its own), over the same sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from probes.errors import InputError
from probes.measures.probe import Probe, Run
from probes.results.draws import POOLED, sample
from probes.results.intervals import linearised
from probes.results.result import result
from probes.states.representations import aligned, check_enough, states

NEIGHBOURS = 10
_VARIANCE = 0.99  # what the directions kept for SVCCA and PWCCA explain
_ENTRIES = 2**25  # numbers that are kept at a time
_ROWS = 128  # of them that are summed at a time
_MANY = 5 * 10**9  # multiplications, from which on products of float32 states are taken in float32
_Values = tuple[np.ndarray, np.ndarray]  # (layer, other layer), and what each example does to it, (example, ..., ...)


class _Layers(NamedTuple):
    """The layers of one side that can be compared, read when they are needed."""

    load: Callable[[int], _Layer]
    at: list[int]
    dtype: np.dtype  # that the states are stored in

    def __call__(self, i: int) -> np.ndarray:
        return self.load(self.at[i]).x

    def norms(self) -> np.ndarray:
        """Squared lengths of the centred states (example, layer)."""
        return np.stack([self.load(i).norms for i in self.at], axis=1)

    def single(self) -> bool:
        """Whether float32 is enough for products: of float32 states, well within its range, none of them dominated."""
        norms = self.norms()
        if self.dtype != np.float32 or norms.max(axis=0).min() < 1e-20 or norms.max() > 1e30:
            return False
        largest = [np.einsum("ad,ad->d", self(i), self(i)).max() for i in range(len(self.at))]
        return bool((largest < 0.1 * norms.sum(axis=0)).all())


@dataclass(frozen=True)
class _Layer:
    """The centred states of a layer, or their directions, with their squared lengths and the rounding they carry."""

    x: np.ndarray
    norms: np.ndarray
    rounding: float


@dataclass(frozen=True, kw_only=True)
class Measure(Probe):
    """What a measure of similarity is, as data; the values that stand here are those of most.

    Args:
        between: from the layers of both sides, or of one alone, to the value of every pair.
        symmetric: whether it is the same from both sides.
        fewest: examples a language.
        most: examples that it can take; of more some are drawn.
        of_directions: whether it sees the directions of states alone, and not their lengths.
    """

    between: Callable[[_Layers, _Layers | None], _Values]
    symmetric: bool = True
    fewest: int = 2
    most: int | None = None
    of_directions: bool = False
    family: str = "similarity"
    compares: bool = True
    better: Literal["higher", "lower", ""] = "higher"
    higher_is: str = "more alike"
    range: str = "0 to 1; above 0 by chance where examples are few"
    bounds: tuple[float, float] = (0, 1)
    unchanged_by: tuple[str, ...] = ("rotation of either", "shift of either", "common scale of either", "order")

    @property
    def kind(self) -> str:
        """Whether it is a similarity or a distance."""
        return "similarity" if self.better == "higher" else "distance"


def similarity_of(measure: str) -> Measure:
    """Return what a measure is; raise `InputError` where there is none of that name."""
    if measure not in MEASURES:
        raise InputError(f"measure={measure!r} is not known; choose one of {', '.join(map(repr, MEASURES))}")
    return MEASURES[measure]


@overload
def similarity(
    x: xr.Dataset, y: xr.Dataset | None = None, *, measure: str = "cka", draws: int = 200, seed: int = 0
) -> xr.Dataset: ...


@overload
def similarity(
    x: npt.ArrayLike, y: npt.ArrayLike, *, measure: str = "cka", draws: int = 200, seed: int = 0
) -> float: ...


def similarity(
    x: xr.Dataset | npt.ArrayLike,
    y: xr.Dataset | npt.ArrayLike | None = None,
    *,
    measure: str = "cka",
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how alike every layer of one model and every layer of another are, over the same sentences.

    The attributes of the result say of the measure whether it is a similarity or a distance (`kind`), its `range`,
    whether it is `symmetric`, and what it is `unchanged_by`. Models may differ in width and depth.

    Args:
        x: Representations, or an array (example, feature).
        y: of another model on the same sentences, aligned by id and language; by default the layers of one model are
            compared with each other.
        measure: "cka" (biased), "cka_debiased", "procrustes" (a distance), "svcca", "pwcca", "rsa", or
            "neighbour_overlap".
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, other_layer, language)`, with all languages together as `pooled`; `n` is the number of
        examples. `layer` counts the layers of x, `other_layer` those of y. For arrays a float.

    Raises:
        InputError: the measure is not known; the two hold different sentences; a language has too few.

    Notes:
        Means are subtracted, and sums kept, in float64. The products for CKA of more than some thousand million
        multiplications are taken in float32 where the states are stored so and no feature dwarfs the others; that moves
        a value by about 1e-9. "cka" (Kornblith et al. 2019, arXiv 1905.00414) and the
        measures of canonical correlation and Procrustes are above 0 (below pi / 2) even for unrelated states where
        examples are few against features; "cka_debiased" (Song et al. 2012) is not, and where it comes out below 0 it
        stays so. SVCCA and PWCCA have no value where the directions to match (99 % of the variance of both) are as many
        as the examples: everything would match. PWCCA differs from Morcos et al. 2018 in that it too keeps these
        directions only. RSA ranks the pairs of at most 1,000 examples, drawn by the seed.

        The draws are of first order: what each sentence does to the value, summed. To resample the states themselves
        would make copies of sentences, which are alike in every model. Intervals are for samples of this size.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(similarity(x, 2 * x[:, ::-1] + 1), 6)
        1.0
    """
    about = similarity_of(measure)
    if not isinstance(x, xr.Dataset):
        return _of_arrays(about, x, y)
    if y is not None and not isinstance(y, xr.Dataset):
        raise InputError(f"expected Representations beside Representations; found {type(y).__name__}")
    return _measured(about, Run(x, sample(x, draws=draws, seed=seed), base=y, seed=seed))


def _measured(about: Measure, run: Run) -> xr.Dataset:
    x, y, drawn = run.reps, run.base, run.sample
    other = x if y is None else aligned(x, y)
    check_enough(x, about.fewest, about.name)
    statistics: dict[str, np.ndarray] = {}
    n: dict[str, int] = {}
    reasons: dict[tuple[str, int, str], str] = {}
    for group in [*drawn.languages, POOLED]:
        if group == POOLED and len(drawn.languages) == 1:  # the same examples
            (language,) = drawn.languages
            statistics[POOLED], n[POOLED] = statistics[language], n[language]
            reasons |= {(which, layer, POOLED): reason for (which, layer, _), reason in reasons.items()}
            break
        rows = drawn.group(group)
        if about.most is not None and len(rows) > about.most:
            rows = _some(rows, drawn.ids, x["language"].values, about.most, run.seed)
        n[group] = len(rows)
        value, influence, why = layers_between(about, side_of(x, rows), None if y is None else side_of(other, rows))
        reasons |= {(which, layer, group): reason for (which, layer), reason in why.items()}
        statistics[group] = linearised(value, influence, drawn.ids[rows], drawn.weights, about.bounds)
    attributes = about.about() | {
        "kind": about.kind,
        "symmetric": about.symmetric,
        "other_model": other.attrs.get("model", "?"),
    }
    over = {"layer": x["layer"].values, "other_layer": other["layer"].values}

    def missing(at: tuple[int, ...], language: str) -> str:
        for which, layer, reps in zip(("layer", "other"), at, (x, other), strict=True):
            if (which, layer, language) in reasons:
                of = "" if y is None else f" of model {reps.attrs.get('model', '?')}"
                return f"layer {reps['layer'].values[layer]}{of}: {reasons[which, layer, language]}"
        return (
            "some pairs of layers: more directions to match than examples, so that everything would. "
            "Take more sentences"
        )

    return result(x, drawn, statistics, attributes, n=n, bounds=about.bounds, over=over, missing=missing)


def _of_arrays(about: Measure, x: npt.ArrayLike, y: npt.ArrayLike | xr.Dataset | None) -> float:
    if y is None or isinstance(y, xr.Dataset) or np.ndim(x) != 2 or np.ndim(y) != 2 or len(x) != len(y):  # type: ignore[arg-type]
        found = type(y).__name__ if y is None or isinstance(y, xr.Dataset) else np.shape(y)
        raise InputError(
            "expected two arrays (example, feature) with the same examples in the same order; "
            f"found {np.shape(x)} and {found}"
        )
    sides = [np.asarray(z) for z in (x, y)]
    if any(z.dtype.kind not in "fiub" or not z.size for z in sides):
        raise InputError(f"expected arrays of numbers; found {' and '.join(f'{z.dtype} {z.shape}' for z in sides)}")
    n = len(sides[0])
    if n < about.fewest:
        raise InputError(f"{about.name}: expected at least {about.fewest} examples; found {n}")
    if about.most is not None and n > about.most:
        # The same ones as of Representations, where every row is a sentence that is called by its number.
        ids = np.unique(np.arange(n).astype(str), return_inverse=True)[1]
        rows = _some(np.arange(n), ids, np.full(n, ""), about.most, 0)
        sides = [z[rows] for z in sides]
    return float(layers_between(about, *map(side_of_array, sides))[0][0, 0])


def _some(rows: np.ndarray, ids: np.ndarray, languages: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Draw so many rows, the same ones in whichever order they come."""
    ordered = rows[np.lexsort((languages[rows].astype(str), ids[rows]))]
    return np.sort(np.random.default_rng(seed).choice(ordered, most, replace=False))


@dataclass(frozen=True)
class Side:
    """The layers of one model over the examples that are compared.

    Args:
        read: the states (example, feature) of a layer, by position, in float64; the reader may change them.
        layers, examples, features: how many there are.
        dtype: that the states are stored in.
    """

    read: Callable[[int], np.ndarray]
    layers: int
    examples: int
    features: int
    dtype: np.dtype


def side_of(reps: xr.Dataset, rows: np.ndarray) -> Side:
    """Return all layers of Representations over some of their rows."""
    at = slice(None) if len(rows) == reps.sizes["example"] else rows
    hidden = reps["hidden"]
    return Side(lambda layer: states(reps, layer, at), len(hidden), len(rows), hidden.shape[-1], hidden.dtype)


def side_of_array(x: np.ndarray) -> Side:
    """Return an array (example, feature) as a single layer."""
    return Side(lambda layer: x.astype(np.float64), 1, len(x), x.shape[1], x.dtype)


def layers_between(
    measure: Measure, x: Side, y: Side | None
) -> tuple[np.ndarray, np.ndarray, dict[tuple[str, int], str]]:
    """Compare all layers of two sides, or of one with each other.

    Returns:
        The values (layer, other layer), what each example does to them (example, layer, other layer), and why a
        "layer" or an "other" one, by position, has none.
    """
    loads = [_loader(side, measure.of_directions) for side in ((x,) if y is None else (x, y))]
    usable: list[list[int]] = []
    reasons: dict[tuple[str, int], str] = {}
    for which, side, load in zip(("layer", "other"), (x, y), loads, strict=False):
        assert side is not None
        usable.append([])
        for layer in range(side.layers):
            if reason := _unusable(load(layer)):
                reasons |= {(w, layer): reason for w in (("layer", "other") if y is None else (which,))}
            else:
                usable[-1].append(layer)
    value = np.full((x.layers, (x if y is None else y).layers), np.nan)
    influence = np.zeros((x.examples, *value.shape))
    if usable[0] and usable[-1]:
        at_x, at_y = usable[0], usable[-1]
        right = None if y is None else _Layers(loads[1], at_y, y.dtype)
        found, moved = measure.between(_Layers(loads[0], at_x, x.dtype), right)
        value[np.ix_(at_x, at_y)] = found
        # What has no value moves nothing.
        influence[:, np.array(at_x)[:, None], at_y] = np.where(np.isnan(found), 0.0, moved)
    return value, influence, reasons


def _loader(side: Side, of_directions: bool) -> Callable[[int], _Layer]:
    """Return what reads a layer; the last ones that were read are kept, as far as memory allows."""
    precision = max(4 * np.finfo(np.result_type(side.dtype, np.float32)).eps, 1e-12)

    @lru_cache(maxsize=max(1, _ENTRIES // (side.examples * side.features)))
    def load(layer: int) -> _Layer:
        x = side.read(layer)
        mean = x.mean(axis=0)
        largest = np.abs(mean).max() if np.isfinite(mean).all() else np.nan
        if of_directions and np.isfinite(largest):
            with np.errstate(invalid="ignore", divide="ignore"):
                x /= np.linalg.norm(x, axis=1, keepdims=True)
            mean, largest = x.mean(axis=0), 1.0
            return _Layer(x, np.square(x - mean).sum(axis=1), precision)
        if np.isfinite(largest):
            x -= mean
        return _Layer(x, np.einsum("ad,ad->a", x, x), precision * largest)

    return load


def _unusable(layer: _Layer) -> str:
    """Why a layer cannot be compared; empty where it can."""
    if np.isnan(layer.rounding):
        return f"{int((~np.isfinite(layer.x).all(axis=1)).sum())} rows are not finite"
    if not np.isfinite(layer.norms).all():
        return "a state is all zero, so it has no direction"
    if layer.norms.max() <= layer.x.shape[1] * layer.rounding**2:
        return "all states are equal, so there is nothing to compare"
    return ""


def _cka(x: _Layers, y: _Layers | None, debiased: bool = False) -> _Values:
    """CKA of all pairs from three products of every example with all others: with both, with each alone.

    With K = XX' and L = YY' centred, HSIC is the sum over a of r_a = sum_b K_ab L_ab, so r (example, layer, other)
    gives the value and what each example does to it.
    """
    both, of_x, of_y = _products(x, y)
    n = len(both)
    if debiased:
        norms_x = x.norms()
        norms_y = norms_x if y is None else y.norms()
        both = _debias(both, norms_x[:, :, None], norms_y[:, None, :])
        of_x, of_y = _debias(of_x, norms_x, norms_x), _debias(of_y, norms_y, norms_y)
    else:
        both, of_x, of_y = both / n, of_x / n, of_y / n
    top, left, right = both.mean(axis=0), of_x.mean(axis=0)[:, None], of_y.mean(axis=0)[None, :]
    scale = np.sqrt(left * right)
    value = top / scale
    # Each term is a mean over pairs, so an example acts on it twice.
    influence = 2 * (both / scale - value * (of_x[:, :, None] / (2 * left) + of_y[:, None, :] / (2 * right)))
    return np.clip(value, -1, 1), influence


def _debias(r: np.ndarray, norms_x: np.ndarray, norms_y: np.ndarray) -> np.ndarray:
    """Per example, so that the mean is the unbiased HSIC of Song et al. 2012; the Gram matrices are centred already."""
    n = len(r)
    traces = norms_x * norms_y.sum(axis=0) + norms_y * norms_x.sum(axis=0)
    return (r - norms_x * norms_y * n / (n - 2) + traces / (2 * (n - 1) * (n - 2))) / (n - 3)


def _products(x: _Layers, y: _Layers | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """r of all pairs (example, layer, other layer), and of each layer with itself (example, layer) for both sides."""
    n, features = x(0).shape
    other_features = features if y is None else y(0).shape[1]
    n_x = len(x.at)
    n_y = n_x if y is None else len(y.at)
    layers = n_x + (0 if y is None else n_y)
    # By products of features, or by Gram matrices: what takes fewer operations.
    if layers * n * (features + other_features) / 2 > 4 * n_x * n_y * features * other_features:
        both = np.empty((n, n_x, n_y))
        for i, j in product(range(n_x), range(n_y)):
            if y is None and j < i:
                both[:, i, j] = both[:, j, i]
            else:
                both[:, i, j] = _along(x(i), (x if y is None else y)(j))
        if y is None:
            own = np.einsum("aii->ai", both)
            return both, own, own
        own, other = (np.stack([_along(z(i), z(i)) for i in range(len(z.at))], axis=1) for z in (x, y))
        return both, own, other
    # Of many float32 states float32 products do: their roundings average out over the pairs. Lengths, whose do not, and
    # sums stay in float64.
    many = layers * n * n * (features + other_features) / 2 >= _MANY
    single = many and all(z.single() for z in (x, x if y is None else y))
    rows = max(1, min(n, _ENTRIES // (layers * n)))
    grams = np.empty((layers, rows, n), np.float32 if single else np.float64)
    by_row = np.empty((min(rows, _ROWS), layers, n))
    both, squares = np.empty((n, n_x, n_y)), np.empty((n, layers))
    for lo in range(0, n, rows):
        hi = min(lo + rows, n)
        for i in range(layers):
            z = x(i) if y is None or i < n_x else y(i - n_x)
            z = z.astype(grams.dtype, copy=False)
            np.matmul(z[lo:hi], z.T, out=grams[i, : hi - lo])
            grams[i, np.arange(hi - lo), np.arange(lo, hi)] = 0
        for start in range(lo, hi, len(by_row)):
            part = slice(start, min(start + len(by_row), hi))
            k = by_row[: part.stop - part.start]
            np.copyto(k, grams[:, part.start - lo : part.stop - lo].transpose(1, 0, 2))
            np.matmul(k[:, :n_x], k[:, layers - n_y :].transpose(0, 2, 1), out=both[part])
            if y is not None:
                np.einsum("alb,alb->al", k, k, out=squares[part])
    norms = [z.norms() for z in ((x,) if y is None else (x, y))]
    both += norms[0][:, :, None] * norms[-1][:, None, :]
    if y is None:
        own = np.einsum("aii->ai", both)
        return both, own, own
    squares += np.square(np.concatenate(norms, axis=1))
    return both, squares[:, :n_x], squares[:, n_x:]


def _along(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum over b of (x_a . x_b) (y_a . y_b), without the Gram matrices."""
    return np.einsum("ad,ad->a", x @ (x.T @ y), y)


def _by_pair(
    prepare: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    compare: Callable[..., tuple[float, np.ndarray]],
    symmetric: bool,
    x: _Layers,
    y: _Layers | None,
) -> _Values:
    """Compare all pairs of layers, prepared once each; within one model by a symmetric measure each pair once."""
    left = [prepare(x(i)) for i in range(len(x.at))]
    right = left if y is None else [prepare(y(j)) for j in range(len(y.at))]
    n_x, n_y = len(left), len(right)
    value = np.empty((n_x, n_y))
    influence: np.ndarray | None = None
    pairs = [(i, j) for i, j in product(range(n_x), range(n_y)) if not (symmetric and y is None and j < i)]
    # One thread: on matrices of this size several wait for each other longer than they compute.
    with threadpool_limits(1, user_api="blas"):
        for i, j in tqdm(pairs, desc="pairs of layers", delay=3, leave=False):
            value[i, j], moved = compare(left[i], right[j])
            influence = np.empty((len(moved), n_x, n_y)) if influence is None else influence
            influence[:, i, j] = moved
            if symmetric and y is None:
                value[j, i], influence[:, j, i] = value[i, j], moved
    assert influence is not None  # there is at least one pair
    return value, influence


def _scores(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (example, direction) of unit length, the length of each, and the directions; exact zeros left out."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    keep = s > s[0] * len(s) * np.finfo(float).eps
    return u[:, keep], s[keep], vt[keep]


def _procrustes(x: tuple[np.ndarray, ...], y: tuple[np.ndarray, ...]) -> tuple[float, np.ndarray]:
    (a, s, _), (b, t, _) = x, y
    u, cross, vt = np.linalg.svd(s[:, None] * (a.T @ b) * t, full_matrices=False)
    scale = np.sqrt((s @ s) * (t @ t))
    cosine = min(cross.sum() / scale, 1.0)
    squares = [np.square(z * w) @ np.ones(len(w)) / (w @ w) for z, w in ((a, s), (b, t))]
    moved = len(a) * (np.einsum("ar,ar->a", (a * s) @ u, (b * t) @ vt.T) / scale - cosine * sum(squares) / 2)
    sine = np.sqrt(1 - cosine**2)
    return float(np.arccos(cosine)), -moved / sine if sine > 1e-6 else np.zeros(len(a))


def _main_scores(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of unit length along the directions that explain most of the variance, and their part of every feature."""
    u, s, vt = _scores(x)
    share = np.cumsum(s**2) / np.sum(s**2)
    kept = int(np.searchsorted(share, _VARIANCE * (1 - 1e-12))) + 1
    return u[:, :kept], s[:kept, None] * vt[:kept]


def _canonical(
    x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray], weighted: bool
) -> tuple[float, np.ndarray]:
    (a, of_features), (b, _) = x, y
    n = len(a)
    if a.shape[1] + b.shape[1] >= n:
        return np.nan, np.zeros(n)
    u, rho, vt = np.linalg.svd(a.T @ b, full_matrices=False)
    rho = np.clip(rho, 0, 1)
    one, other = a @ u, b @ vt.T
    # How much of the first model's features lies along each canonical direction; held fixed in the draws.
    weight = np.abs(u.T @ of_features).sum(axis=1) if weighted else np.ones(len(rho))
    weight = weight / weight.sum()
    moved = n * (one * other - rho * (one**2 + other**2) / 2) @ weight
    return float(rho @ weight), moved


def _ranks(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the distances of all pairs as shares of their number, and the pairs in this order."""
    distance = pdist(x)
    return rankdata(distance) / len(distance), np.argsort(distance, kind="stable")


def _rank_correlation(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
    (f, by_f), (g, by_g) = x, y
    centred = [r - r.mean() for r in (f, g)]
    scale = np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1]))
    value = float(centred[0] @ centred[1] / scale) if scale > 0 else np.nan
    # A pair acts by its own ranks and by the ranks that it moves: those of all pairs above it.
    moved = f * g
    for order, rank in ((by_f, g), (by_g, f)):
        above = np.empty_like(rank)
        above[order] = rank.sum() - np.cumsum(rank[order])
        moved += above / len(rank)
    moved -= moved.mean()
    of_example = squareform(12 * moved)
    # A mean over pairs: an example acts twice.
    return value, 2 * of_example.sum(axis=0) / (len(of_example) - 1)


def _neighbours(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest others of every example (example, NEIGHBOURS), and the one that would be next (example,)."""
    found = np.empty((len(x), NEIGHBOURS), np.int64)
    following = np.full(len(x), -1)
    last = min(NEIGHBOURS, len(x) - 2)
    step = max(1, _ENTRIES // 8 // len(x))
    for lo in range(0, len(x), step):
        distance = x[lo : lo + step] @ -x.T
        own = np.arange(len(distance))
        distance[own, own + lo] = np.inf
        order = np.argpartition(distance, (NEIGHBOURS - 1, last), axis=1)
        found[lo : lo + step] = order[:, :NEIGHBOURS]
        if last == NEIGHBOURS:
            following[lo : lo + step] = order[:, NEIGHBOURS]
    return found, following


def _overlap(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
    (near_x, next_x), (near_y, next_y) = x, y
    same = near_x[:, :, None] == near_y[:, None, :]
    in_both, there = same.any(axis=2), same.any(axis=1)
    shared = in_both.sum(axis=1)
    # An example also acts as a neighbour of others: without it, the next one would take its place.
    gain_x = (next_x[:, None] == near_y).any(axis=1)
    gain_y = (next_y[:, None] == near_x).any(axis=1)
    gain_both = gain_x + gain_y + ((next_x == next_y) & (next_x >= 0)) - 1.0
    without_x = np.where(in_both, gain_both[:, None], gain_x[:, None])
    without_y = np.where(there, 0.0, gain_y[:, None])
    kept = np.bincount(near_x.ravel(), without_x.ravel(), minlength=len(shared))
    kept += np.bincount(near_y.ravel(), without_y.ravel(), minlength=len(shared))
    return float(shared.mean()) / NEIGHBOURS, (shared - kept) / NEIGHBOURS


CKA = partial(
    Measure,
    name="cka",
    title="CKA",
    estimator="linear CKA, biased (V-statistic)",
    paper="Kornblith, Norouzi, Lee, Hinton 2019, arXiv 1905.00414",
    needs=("two texts in every language",),
    default=True,
    between=_cka,
)
CKA_DEBIASED = partial(
    Measure,
    name="cka_debiased",
    title="CKA, debiased",
    estimator="linear CKA, debiased (U-statistic)",
    range="-1 to 1; around 0, also below, where there is nothing in common",
    bounds=(-1, 1),
    paper="Song, Smola, Gretton, Bedo, Borgwardt 2012; Nguyen, Raghu, Kornblith 2021, arXiv 2010.15327",
    fewest=4,
    between=partial(_cka, debiased=True),
)
PROCRUSTES = partial(
    Measure,
    name="procrustes",
    title="Procrustes distance",
    estimator="angular orthogonal Procrustes distance: arccos(|X'Y|_* / (|X| |Y|)), a metric",
    range="0 to pi / 2; below pi / 2 by chance where examples are few",
    bounds=(0, np.pi / 2),
    better="lower",
    higher_is="less alike",
    unchanged=0.0,
    paper="Williams, Kunz, Kornblith, Linderman 2021, arXiv 2110.14739",
    between=partial(_by_pair, _scores, _procrustes, True),
)
SVCCA = partial(
    Measure,
    name="svcca",
    title="SVCCA",
    estimator=f"mean canonical correlation of the directions that explain {_VARIANCE:.0%} of the variance",
    paper="Raghu, Gilmer, Yosinski, Sohl-Dickstein 2017, arXiv 1706.05806",
    fewest=3,
    between=partial(_by_pair, _main_scores, partial(_canonical, weighted=False), True),
)
PWCCA = partial(
    Measure,
    name="pwcca",
    title="PWCCA",
    estimator=f"canonical correlations weighted by their share in the first model, of the {_VARIANCE:.0%} directions",
    unchanged_by=("rotation of the second", "shift of either", "common scale of either", "order"),
    paper="Morcos, Raghu, Bengio 2018, arXiv 1806.05759",
    symmetric=False,
    fewest=3,
    between=partial(_by_pair, _main_scores, partial(_canonical, weighted=True), False),
)
RSA = partial(
    Measure,
    name="rsa",
    title="RSA",
    estimator="Spearman correlation of the Euclidean distances of all pairs of examples",
    range="-1 to 1; 0 where there is nothing in common",
    bounds=(-1, 1),
    paper="Kriegeskorte, Mur, Bandettini 2008",
    fewest=4,
    most=1000,
    between=partial(_by_pair, _ranks, _rank_correlation, True),
)
NEIGHBOUR_OVERLAP = partial(
    Measure,
    name="neighbour_overlap",
    title="shared neighbours",
    estimator=f"share of the {NEIGHBOURS} nearest neighbours by cosine that both have",
    range=f"0 to 1; chance is {NEIGHBOURS} / (n - 1)",
    unchanged_by=("rotation of either", "common scale of either", "length of each vector of either", "order"),
    paper="no single source",
    fewest=NEIGHBOURS + 1,
    of_directions=True,
    between=partial(_by_pair, _neighbours, _overlap, True),
)


def _declared(about: Callable[..., Measure]) -> Measure:
    found: Measure = about(
        measure=lambda run: _measured(found, run),
        check=lambda run: check_enough(run.reps, found.fewest, found.name),
    )
    return found


MEASURES = {
    measure.name: measure
    for measure in map(_declared, (CKA, CKA_DEBIASED, PROCRUSTES, SVCCA, PWCCA, RSA, NEIGHBOUR_OVERLAP))
}
