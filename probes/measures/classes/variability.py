"""Hidden-state variability: how widely classes spread, against how far they lie apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.errors import LayerscopeWarning
from probes.measures.classes.labels import FEWEST, labelled, measured, of_labels, units_of_classes
from probes.measures.probe import Run
from probes.results.draws import Sample, sample
from probes.results.intervals import centred, widened
from probes.states.representations import BLOCK, rows_of

_ENTRIES = 2**20  # numbers of states that are read at a time
_ROWS = 256  # of them whose states along the class means are kept at a time
_RELIABLE = 10  # sentences of a class from which on its interval holds


@overload
def variability(
    x: xr.Dataset, labels: None = None, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0
) -> xr.Dataset: ...


@overload
def variability(
    x: npt.ArrayLike, labels: npt.ArrayLike, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0
) -> float: ...


def variability(
    x: xr.Dataset | npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    fewest: int = FEWEST,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how widely the examples of a class spread, against how far the classes lie apart.

    nu = trace(Sigma_within Sigma_between^+) / C, with the covariance within and between the C
    classes, all classes counting equally, along the directions in which the class means differ. 0
    to infinity; low where a layer is specialised for the classes, so lower is better separated.

    Args:
        x: Representations with labels, or an array (example, feature).
        labels: (example,) beside an array.
        fewest: classes with fewer sentences in a language are left out there, and a warning names
            them; at least 2.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)`, with all languages together as `pooled`; for an array
        a float.

    Raises:
        InputError: there are no labels, or only one class.

    Notes:
        Equation (3) of Xie, Qiu, Pasad, Du, Qu and Mei 2022, arXiv 2210.10041: biased covariances,
        the mean of the class means in place of the grand mean. Noise in the class means moves the
        value where classes are small or hardly differ, so corpora of different size cannot be
        compared, and the interval is for the mean over corpora of this size; warnings say where
        class means differ by little more than noise, or classes have fewer than 10 examples. Memory
        does not grow with the corpus.

    See also:
        `best_layer`, `class_separability`, `snr`.

    Example:
        >>> y = np.arange(3000) % 3
        >>> x = np.random.default_rng(0).normal(size=(3000, 16)) + 4 * np.eye(16)[y]
        >>> round(variability(x, y), 3)
        0.122
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels, "variability", fewest))
    run = Run(x, sample(x, draws=draws, seed=seed))
    noise: list[float] = []
    return _said(measured(VARIABILITY, run, partial(_statistics, noise), fewest=fewest, reliable=_RELIABLE), noise)


def _of_array(x: np.ndarray, drawn: Sample) -> float:
    group = _group(np.arange(len(x)), drawn, x.shape[1])
    memory = np.empty((len(drawn.classes), 1, x.shape[1]), np.float32)
    return float(_variability(x.__getitem__, group, drawn, memory)[0][0])


def variability_of(run: Run, fewest: int = FEWEST) -> xr.Dataset:
    """Measure the variability of Representations with draws that are there already."""
    noise: list[float] = []
    return _said(measured(VARIABILITY, run, partial(_statistics, noise), fewest=fewest, reliable=_RELIABLE), noise)


def _said(out: xr.Dataset, noise: list[float]) -> xr.Dataset:
    if drowned := sum(share > 0.5 for share in noise):
        warnings.warn(
            f"variability of model {out.attrs['model']}: at {drowned} of {len(noise)} layers and languages more than "
            "half of the distance between the class means is noise; what it says there is little about the labels",
            LayerscopeWarning,
            stacklevel=3,
        )
    return out


def _statistics(
    noise: list[float], reps: xr.Dataset, drawn: Sample, kept: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """nu of every group (1 + draws, layer); `noise` collects the share of noise in the distance
    between class means.
    """
    # Made once: to get fresh memory of this size from the system again and again takes longer than to fill it.
    memory = np.empty((len(drawn.classes), len(drawn.weights), reps.sizes["feature"]), np.float32)
    groups = {name: _group(rows, drawn, reps.sizes["feature"]) for name, rows in kept.items()}
    found: dict[str, list[tuple[np.ndarray, float]]] = {name: [] for name in kept}
    for layer in range(reps.sizes["layer"]):
        read = rows_of(reps, layer)
        for name, group in groups.items():
            found[name].append(_variability(read, group, drawn, memory))
    out = {}
    for name, layers in found.items():
        noise += [share for _, share in layers]
        counts = units_of_classes(drawn, kept[name])
        # A ratio that spans orders of magnitude, so its draws are moved and widened on the log scale.
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = centred(np.log(np.stack([nu for nu, _ in layers], axis=-1)))
            out[name] = np.exp(widened(logs, counts[counts > 0]))
    return out


class _Group(NamedTuple):
    """Some rows, which are the same in every layer, and how often draws have their classes."""

    rows: np.ndarray  # some at a time, and of these those of one class after another
    label: np.ndarray  # (row,) codes of the classes that are there
    pieces: list[slice]
    counts: np.ndarray  # (1 + draws, class)
    # Where it is cheaper to multiply states with each other than with the means of every draw: where what an id has in
    # a class begins, and its weight in its class, (1 + draws, part).
    starts: np.ndarray | None
    weights: np.ndarray | None

    def by_class(self, piece: slice) -> Iterator[tuple[int, slice]]:
        """Yield the classes of some rows, and where each is among them."""
        return _runs(self.label[piece])


def _runs(label: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Yield labels that are in order, and where each is."""
    ends = np.flatnonzero(np.diff(label)) + 1
    for start, stop in pairwise([0, *ends.tolist(), len(label)]):
        yield int(label[start]), slice(start, stop)


def _group(rows: np.ndarray, drawn: Sample, features: int) -> _Group:
    label = np.unique(drawn.label[rows], return_inverse=True)[1]
    at_once = len(rows) * features <= _ENTRIES
    step = len(rows) if at_once else BLOCK
    order = np.lexsort((drawn.ids[rows] if at_once else rows, label, np.arange(len(rows)) // step))
    rows, label = rows[order], label[order]
    pieces = [slice(start, start + step) for start in range(0, len(rows), step)]
    draws, n_classes = len(drawn.weights), int(label.max()) + 1
    counts = np.zeros((draws, n_classes))
    for piece in pieces:
        counts += drawn.weights[:, drawn.ids[rows[piece]]] @ np.eye(n_classes)[label[piece]]
    starts = np.flatnonzero(np.r_[True, (np.diff(label) != 0) | (np.diff(drawn.ids[rows]) != 0)])
    if not at_once or draws == 1 or len(starts) * (features + draws) > draws * features * n_classes:
        return _Group(rows, label, pieces, counts, None, None)
    weights = drawn.weights[:, drawn.ids[rows[starts]]] / np.maximum(counts, 1)[:, label[starts]]
    return _Group(rows, label, pieces, counts, starts, weights.astype(np.float32))


class _Draws(NamedTuple):
    """What nu is made of in every draw, in units of the sample."""

    between: np.ndarray  # (1 + draws, ..., ...) K
    within: np.ndarray  # (1 + draws, ..., ...) Q times the number of classes
    moved: float  # the squared distances of all class means from those of the sample, summed


def _variability(
    read: Callable[[np.ndarray], np.ndarray], group: _Group, drawn: Sample, memory: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return nu of rows of states for every row of weights, and the share of noise in the distance
    of the class means.

    With M the centred class means, Sigma_between = M'M / C, so nu is trace(K^-1 Q K^-1) for K = M
    M' and Q = M Sigma_within M', which are small.
    """
    rows, label, pieces = group.rows, group.label, group.pieces
    size = np.bincount(label)
    n_classes = len(size)
    of_class = np.eye(n_classes)
    with np.errstate(invalid="ignore"):  # states that are not finite
        centre = sum(of_class[:, label[piece]] @ read(rows[piece]) for piece in pieces) / size[:, None]
    if not np.isfinite(centre).all():
        return np.full(len(drawn.weights), np.nan), 0.0
    # The rows of centred means sum to 0, so one singular value is 0 by construction. It is taken out by working in the
    # C - 1 directions orthogonal to the ones, which takes the mean out as well.
    contrasts = _contrasts(n_classes)
    if np.abs(contrasts @ centre).max() <= 1e-12 * np.abs(centre).max():  # class means that differ by rounding
        return np.full(len(drawn.weights), np.nan), 0.0
    left, lengths, right = np.linalg.svd(contrasts @ centre, full_matrices=False)
    # Classes that share a mean leave fewer directions than C - 1, in the sample and so in every draw.
    rank = int((lengths > 1e-10 * lengths[0]).sum())
    own = right[:rank].T / lengths[:rank] @ left[:, :rank].T
    # Around the class means of the sample, so that little is taken off anywhere. The sample itself in float64; the
    # draws in float32, in units in which nothing overflows: rounding far below their spread, in half the time.
    unit = np.abs(contrasts @ centre).max()

    def around(piece: slice) -> np.ndarray:
        """Read some rows around the means of their classes."""
        x = read(rows[piece])
        for c, inside in group.by_class(piece):
            x[inside] -= centre[c]
        return x

    kept = [around(pieces[0])] if len(pieces) == 1 else None
    value = 0.0
    for piece, x in zip(pieces, kept or map(around, pieces), strict=True):
        value += (np.square(x @ own).sum(axis=1) / size[label[piece]]).sum() / n_classes
    if len(drawn.weights) == 1:
        return np.array([value]), 0.0

    def in_units() -> Iterator[np.ndarray]:
        return ((x / unit).astype(np.float32) for x in kept or map(around, pieces))

    means = contrasts @ centre / unit
    if group.weights is None:
        found = _by_means(in_units, means, group, drawn, memory)
    else:
        found = _by_products(next(in_units()), means, group)
    nu = _traces(found, rank) / n_classes
    nu[~np.all(group.counts > 0, axis=1)] = np.nan  # a draw may leave a class out
    nu[0] = value
    # Draws are as far from the sample's class means as those are from the truth.
    noise = found.moved / n_classes / max(len(drawn.weights) - 1, 1)
    return nu, float(noise * (n_classes - 1) / np.trace(found.between[0]))


def _by_products(x: np.ndarray, means: np.ndarray, group: _Group) -> _Draws:
    """From the products of states with each other: weights are taken of these, not of states.

    Args:
        x: (row, feature) around the means of their classes.
        means: (C - 1, feature) of the sample, by contrasts of its classes.
        group: with weights.
    """
    assert group.weights is not None
    assert group.starts is not None
    w, starts, n_classes = group.weights, group.starts, len(means) + 1
    contrasts = _contrasts(n_classes)
    centre = (contrasts.T @ means).astype(np.float32)  # of the classes, around their mean
    of_class = np.eye(n_classes, dtype=np.float32)[group.label]
    part = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(x)]))
    sums = np.add.reduceat(x, starts) if len(starts) < len(x) else x
    classes = list(_runs(group.label[starts]))
    within, off = np.zeros((len(w), n_classes, n_classes)), np.zeros((n_classes, len(w), n_classes))
    for start in range(0, len(x), _ROWS):
        some = slice(start, start + _ROWS)
        products = sums @ x[some].T
        along = np.empty((n_classes, len(w), products.shape[1]), np.float32)  # of rows, the class means of every draw
        for c, inside in classes:
            np.matmul(w[:, inside], products[inside], out=along[c])
        along += (centre @ x[some].T)[:, None]
        weighted = along * w[:, part[some]]
        within += weighted.transpose(1, 0, 2) @ along.transpose(1, 2, 0)
        off += weighted @ of_class[some]
    # Of every class how far its mean has moved, along all class means of the draw, and along those of the sample.
    moved = off.transpose(1, 2, 0)
    along_own = sums @ centre.T
    own = np.stack([w[:, inside] @ along_own[inside] for _, inside in classes], axis=1).astype(np.float64)
    within -= moved.transpose(0, 2, 1) @ moved
    between = moved + own.transpose(0, 2, 1) + contrasts.T @ (means @ means.T) @ contrasts
    total = np.einsum("wcc->", moved[1:] - own[1:])
    between, within = (contrasts @ (k @ contrasts.T) for k in (between, within))
    return _Draws(between, within, float(total))


def _by_means(
    in_units: Callable[[], Iterator[np.ndarray]], means: np.ndarray, group: _Group, drawn: Sample, memory: np.ndarray
) -> _Draws:
    """From the class means of every draw, some rows at a time.

    Args:
        in_units: reads the rows, piece by piece, as `x` of `_by_products`.
        means, group: as there.
        drawn: the sample.
        memory: (class, 1 + draws, feature) to work in.
    """
    contrasts = _contrasts(len(means) + 1)
    share = 1 / np.maximum(group.counts, 1)

    def pieces() -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield some rows, their weights, those of a class summing to 1 (1 + draws, row), and their states."""
        for piece, x in zip(group.pieces, in_units(), strict=True):
            yield piece, drawn.weights[:, drawn.ids[group.rows[piece]]] * share[:, group.label[piece]], x

    kept = list(pieces()) if len(group.pieces) == 1 else None
    moved = memory[: len(contrasts) + 1]
    moved[:] = 0
    for piece, w, x in kept or pieces():
        for c, inside in group.by_class(piece):
            moved[c] += w[:, inside] @ x[inside]
    reduced = (contrasts.astype(np.float32) @ moved.reshape(len(moved), -1)).reshape(-1, *moved.shape[1:])
    reduced += means.astype(np.float32)[:, None]  # (C - 1, 1 + draws, feature)
    q = np.zeros((len(share), len(contrasts), len(contrasts)))  # summed over classes
    for _, w, x in kept or pieces():
        for start in range(0, len(x), _ROWS):
            some = slice(start, start + _ROWS)
            along = (reduced.reshape(-1, reduced.shape[2]) @ x[some].T).reshape(*reduced.shape[:2], -1)
            weighted = along * w[:, some]
            q += weighted.transpose(1, 0, 2) @ along.transpose(1, 2, 0)
    across = reduced.transpose(1, 0, 2)  # (1 + draws, C - 1, feature)
    off = moved.transpose(1, 0, 2) @ across.transpose(0, 2, 1)  # (1 + draws, class, C - 1)
    q -= off.transpose(0, 2, 1) @ off
    k = (across @ across.transpose(0, 2, 1)).astype(np.float64)
    return _Draws(k, q, float(np.einsum("cwd,cwd->", moved[:, 1:], moved[:, 1:])))


def _traces(found: _Draws, rank: int) -> np.ndarray:
    """Return trace(K^-1 Q K^-1) of every draw (1 + draws,), in the directions in which classes lie apart."""
    k, q = found.between, found.within
    if rank == k.shape[1]:
        with suppress(np.linalg.LinAlgError):  # a draw whose class means coincide
            inverse = np.linalg.inv(k)
            return np.asarray(np.einsum("wab,wba->w", inverse @ q, inverse))
    scale, axes = np.linalg.eigh(k)
    scale, axes = scale[:, -rank:], axes[:, :, -rank:]
    along = np.einsum("wka,wka->wa", axes, q @ axes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((along / scale**2).sum(axis=1))


@cache
def _contrasts(n: int) -> np.ndarray:
    """Directions (n - 1, n) orthogonal to the ones, and to each other."""
    return np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, :-1]]))[0][:, 1:].T


VARIABILITY = of_labels(
    name="variability",
    title="variability (ν)",
    estimator="nu = trace(Sigma_within pinv(Sigma_between)) / classes, classes weighted equally",
    better="lower",
    higher_is="worse separated",
    unchanged_by=("rotation", "shift", "common scale", "order", "size of the classes"),
    paper="Xie, Qiu, Pasad, Du, Qu, Mei 2022, arXiv 2210.10041",
    measure=variability_of,
)
