"""Maps in two dimensions of every layer of every model, turned so that they can be compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.linalg
import xarray as xr
from scipy.sparse.linalg import LinearOperator, eigsh
from threadpoolctl import threadpool_limits

from probes.errors import InputError, needed
from probes.states.representations import BLOCK

_DIRECT = 1024  # features (or rows) up to which the Gram matrix is made
_FARTHEST = 4.0  # times the root mean square: what lies outside is drawn at the edge
_NEIGHBOURS = 15
_ONE = threading.RLock()
FEWEST_FOR_UMAP = _NEIGHBOURS + 1


@dataclass(frozen=True)
class Maps:
    """The maps of all layers of a model.

    Attributes:
        points: (layer, example, 2) float32, of root mean square length 1 in every layer, turned.
        plain: the same before it was turned, which does not depend on another model.
        explained: (layer,) share of the variance that the two dimensions hold; 0 where there is
            none.
        notes: what could not be drawn, in plain sentences.
    """

    points: np.ndarray
    plain: np.ndarray
    explained: np.ndarray
    notes: list[str]


def principal_map(x: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, float]:
    """Return the first two principal components of states, at root mean square length 1.

    Args:
        x: (example, feature), all finite.
        seed: where the search for the components starts.

    Returns:
        (example, 2) in float64, and the share of the variance that they hold. All zero, and 0,
        where all states are equal; the second column is zero where there is no second component.
        The sign of a component is such that its largest entry is positive.

    Notes:
        By the Lanczos method on the smaller Gram matrix, or on the states where that would be
        large, in the precision that the states have; the mean is taken in float64.

    Example:
        >>> x = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0], [4.0, 1.0, 5.0]])
        >>> points, explained = principal_map(x)
        >>> np.abs(points[:, 0].round(3)).tolist(), round(explained, 6)
        ([1.225, 0.0, 1.225], 1.0)
    """
    n, features = x.shape
    out = np.zeros((n, 2))
    if not n:
        return out, 0.0
    mean = x.mean(axis=0, dtype=np.float64)
    centred = x - mean.astype(x.dtype) if x.dtype.kind == "f" and x.dtype.itemsize >= 4 else x - mean
    largest = float(np.abs(centred).max(initial=0.0))
    rounding = 4 * float(np.finfo(centred.dtype).eps) * float(np.abs(mean).max(initial=0.0))
    if largest <= rounding:
        return out, 0.0
    centred /= centred.dtype.type(largest)
    total = float(np.einsum("ij,ij->", centred, centred, dtype=np.float64))
    wide = features > n
    side = min(n, features)
    if side <= _DIRECT:
        gram = (centred @ centred.T if wide else centred.T @ centred).astype(np.float64)
        if side <= 8:
            vectors = np.linalg.eigh(gram)[1][:, ::-1][:, :2]
        else:
            values, vectors = eigsh(gram, 2, v0=np.random.default_rng(seed).normal(size=side))
            vectors = vectors[:, np.argsort(-values)]
    else:
        left, right = (centred, centred.T) if wide else (centred.T, centred)

        def apply(v: np.ndarray) -> np.ndarray:
            return left @ (right @ v.astype(centred.dtype))

        start = np.random.default_rng(seed).normal(size=side).astype(centred.dtype)
        values, vectors = eigsh(LinearOperator((side, side), matvec=apply, dtype=centred.dtype), 2, v0=start)
        vectors = vectors[:, np.argsort(-values)]
    if wide:  # the directions in the features, so that both ways give the scores alike
        vectors = centred.T @ vectors.astype(centred.dtype)
        lengths = np.linalg.norm(vectors, axis=0)
        vectors = vectors / np.where(lengths > 0, lengths, 1)
    scores = (centred @ vectors.astype(centred.dtype)).astype(np.float64)
    squares = np.square(scores).sum(axis=0)
    scores[:, squares <= 1e-12 * total] = 0.0  # rounding, not a component
    scores *= np.where(scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])] < 0, -1.0, 1.0)
    out[:, : scores.shape[1]] = scores
    return unit(out), min(float(np.square(scores).sum()) / total, 1.0)


def unit(points: np.ndarray) -> np.ndarray:
    """Return points at root mean square length 1, all zero where they were."""
    length = np.sqrt(np.square(points).sum(axis=1).mean()) if len(points) else 0.0
    return points / length if length > 0 else np.zeros_like(points)


def turned(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Return points turned to lie as near as they can to others: orthogonal Procrustes.

    Args:
        points: (example, 2).
        onto: (example, 2), the same rows, or the first of them.

    Example:
        >>> square = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, -2.0]])
        >>> bool(np.allclose(turned(square[:, ::-1], square), square))
        True
    """
    if not points.any() or not onto.any():
        return points
    return points @ scipy.linalg.orthogonal_procrustes(points[: len(onto)], onto)[0]


def layer_maps(reps: xr.Dataset, rows: np.ndarray, onto: Maps | None = None, *, seed: int = 0) -> Maps:
    """Return the maps of all layers of a model by principal components, turned to be comparable.

    Every layer of the baseline is turned onto the layer before it, every layer of another model
    onto the same layer of the baseline (the one at the same share of the depth, where it has more
    or fewer). What differs is then the shape, not the side it is seen from.

    Args:
        reps: Representations.
        rows: the examples to show, in increasing order.
        onto: the maps of the baseline; None for the baseline itself.
        seed: where the search for the components starts.

    Notes:
        A state that is not finite is drawn at the centre, and takes no part. To turn is all that is
        done: a map never shows an alignment that is not there by more than a rotation of two
        dimensions can bring.
    """
    return turned_maps([plain_map(reps, layer, rows, seed=seed) for layer in range(reps.sizes["layer"])], onto)


@dataclass(frozen=True)
class Plain:
    """The map of one layer before it is turned.

    Attributes:
        points: (example, 2) float64, of root mean square length 1.
        explained: share of the variance that they hold.
        notes: what could not be drawn, in plain sentences.
    """

    points: np.ndarray
    explained: float
    notes: list[str]


def plain_map(reps: xr.Dataset, layer: int, rows: np.ndarray, *, seed: int = 0) -> Plain:
    """Return the map of one layer by principal components, not turned yet.

    Args:
        reps, rows, seed: as `layer_maps` takes them.
        layer: its place, 0 for the first.
    """
    points, explained, notes = np.zeros((len(rows), 2)), 0.0, []
    where = f"model {reps.attrs.get('model', '?')}, layer {layer}"
    with one_thread() if reps.sizes["feature"] <= _DIRECT else contextlib.nullcontext():
        x = read(reps, layer, rows)
        finite = np.isfinite(x).all(axis=1)
        if not finite.all():
            notes.append(
                f"{where}: {int((~finite).sum())} sentences have no finite states; they are drawn at the centre of "
                "the map"
            )
        points[finite], explained = principal_map(x[finite], seed=seed)
    if finite.any() and not points.any():
        notes.append(f"{where}: no map, since all its states are equal")
    return Plain(points, explained, notes)


def turned_maps(plain: Sequence[Plain], onto: Maps | None = None) -> Maps:
    """Return the maps of all layers of a model, turned as `layer_maps` says."""
    points = np.empty((len(plain), *plain[0].points.shape), np.float32)
    last = np.zeros(points.shape[1:])
    for layer, one in enumerate(plain):
        if onto is not None:
            last = facing(onto, layer, len(plain))
        found = turned(one.points, last)
        points[layer] = found
        if onto is None and found.any():
            last = found
    return Maps(
        points,
        np.stack([one.points for one in plain]).astype(np.float32),
        np.array([one.explained for one in plain]),
        [note for one in plain for note in one.notes],
    )


def facing(onto: Maps, layer: int, layers: int) -> np.ndarray:
    """Return the map of the baseline at the depth of a layer of a model with so many."""
    return onto.points[round(layer * (len(onto.points) - 1) / max(layers - 1, 1))]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Multiply in one thread: on small matrices several wait longer than they compute.

    One at a time, since the limit is one for the whole process and is set back at the end.
    """
    with _ONE, threadpool_limits(1, user_api="blas"):
        yield


def read(reps: xr.Dataset, layer: int, rows: np.ndarray) -> np.ndarray:
    """Return states (row, feature) of a layer as they are stored, in float32 at least."""
    variable = reps["hidden"].variable
    dtype = np.result_type(variable.dtype, np.float32)
    if len(rows) == reps.sizes["example"]:
        return variable.isel(layer=layer).values.astype(dtype, copy=False)
    out = np.empty((len(rows), reps.sizes["feature"]), dtype)
    for i in range(0, len(rows), BLOCK):
        out[i : i + BLOCK] = variable.isel(layer=layer, example=rows[i : i + BLOCK]).values
    return out


def domain(maps: Maps) -> float:
    """Return how far the axes go either way: as far as nearly all points of the baseline."""
    reach = np.abs(maps.points)
    return float(np.clip(1.15 * np.quantile(reach, 0.999), 1.0, _FARTHEST)) if reach.size else 1.0


def to_uint16(points: np.ndarray, bound: float) -> np.ndarray:
    """Return coordinates as whole numbers, from 0 for -bound to 65535 for bound and beyond.

    Example:
        >>> to_uint16(np.array([-1.0, 0.0, 1.0, 9.0]), 1.0).tolist()
        [0, 32768, 65535, 65535]
    """
    share = (np.clip(points / bound, -1, 1).astype(np.float64) + 1) / 2
    return np.rint(share * 65535).astype("<u2")


def umap_map(
    x: np.ndarray, start: np.ndarray, *, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Return a map by UMAP, started from another map; not turned or scaled yet.

    Args:
        x: (example, feature).
        start: (example, 2), such as `principal_map` gives.
        seed: the same seed gives the same map.
        progress: called with the epochs that are done and their number; what it raises stops the
            work.

    Raises:
        InputError: there are fewer than 16 states to place, or they are all equal.

    Notes:
        UMAP of McInnes, Healy and Melville 2018, arXiv 1802.03426, with 15 neighbours by cosine, as
        neighbours and translations are found here. States that are not finite or all zero have no
        direction; they are put at 0.
    """
    with np.errstate(over="ignore"):
        there = np.isfinite(x).all(axis=1) & (np.abs(x).max(axis=1) > 0)
    if there.sum() < FEWEST_FOR_UMAP:
        raise InputError(
            f"UMAP needs at least {FEWEST_FOR_UMAP} sentences with a direction, and there are {int(there.sum())}. Use "
            "the PCA map, or more sentences"
        )
    begin = start[there].astype(np.float64)
    if not begin.any():
        raise InputError("no UMAP of this layer, since all its states are equal")
    # A dimension without extent cannot be scaled.
    begin += 1e-4 * np.random.default_rng(seed).normal(size=begin.shape) * (np.ptp(begin, axis=0) < 1e-3)
    umap = needed("umap", "A map by UMAP", extra="lab")
    file = _Bar(progress)
    bar = {"disable": progress is None, "file": file, "lock_args": _Before(file)}
    bar |= {"bar_format": "{n}/{total};", "mininterval": 0.2}
    out = np.zeros((len(x), 2))
    reducer = umap.UMAP(
        n_neighbors=_NEIGHBOURS,
        metric="cosine",
        init=begin.astype(np.float32),
        random_state=seed,
        n_jobs=1,
        tqdm_kwds=bar,
    )
    out[there] = reducer.fit_transform(x[there].astype(np.float32))
    file.check()
    out[there] -= out[there].mean(axis=0)
    return out


class _Bar:
    """A file for tqdm, which UMAP reports its epochs to, that hands the numbers on.

    What that raises is kept for later: tqdm writes while it holds a lock of the whole process, and
    would never give it back.
    """

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self.progress = progress
        self.raised: BaseException | None = None

    def write(self, text: str) -> None:
        found = re.findall(r"(\d+)/(\d+);", text)
        if found and self.progress is not None and self.raised is None:
            try:
                self.progress(*map(int, found[-1]))
            except BaseException as error:
                self.raised = error

    def flush(self) -> None:
        """Nothing is kept back."""

    def check(self) -> None:
        """Raise what was raised, now that no lock is held."""
        if self.raised is not None:
            raise self.raised


class _Before:
    """The arguments of the lock that tqdm takes: none. It asks for them before, and that is when to
    stop.
    """

    def __init__(self, bar: _Bar) -> None:
        self.bar = bar

    def __bool__(self) -> bool:
        self.bar.check()
        return False


def umap_place(reps: xr.Dataset, layer: int, rows: np.ndarray, seed: int) -> Path | None:
    """Return where the UMAP map of a layer is kept: beside the store, where there is one.

    The name stands for the weights, the corpus and how they were captured, the layer, the rows and
    the settings, so that another one is never read in its place.
    """
    source, fingerprint = reps.encoding.get("source"), reps.attrs.get("fingerprint")
    if not source or not fingerprint or not Path(source).is_dir():
        return None
    key = [fingerprint, str(reps["layer"].values[layer]), hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()]
    key += [reps.sizes["example"], _NEIGHBOURS, "cosine", seed, version("umap-learn")]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    store = Path(source)
    return store.with_name(f"{store.stem}.maps") / f"umap-{name}.npy"


def open_map(path: Path | None, n: int) -> np.ndarray | None:
    """Return a map that `keep_map` wrote; None where there is none of n points."""
    if path is None or not path.is_file():
        return None
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return points if points.shape == (n, 2) and points.dtype == np.float32 and np.isfinite(points).all() else None


def keep_map(path: Path | None, points: np.ndarray) -> None:
    """Write a map; in a folder that cannot be written to nothing is kept."""
    if path is None:
        return
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, points.astype(np.float32), allow_pickle=False)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
