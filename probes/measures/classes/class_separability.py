"""Class separability: the share of the cosine distance that lies between classes."""

from __future__ import annotations

from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.measures.classes.labels import labelled, of_labels
from probes.measures.probe import LARGE, Run
from probes.results.draws import POOLED, Sample, need_classes, sample
from probes.results.intervals import centred, widened
from probes.results.result import result, warn_few
from probes.states.representations import BLOCK, directions

_FEWEST = 5


@overload
def class_separability(x: xr.Dataset, labels: None = None, *, draws: int = 200, seed: int = 0) -> xr.Dataset: ...


@overload
def class_separability(x: npt.ArrayLike, labels: npt.ArrayLike, *, draws: int = 200, seed: int = 0) -> float: ...


def class_separability(
    x: xr.Dataset | npt.ArrayLike, labels: npt.ArrayLike | None = None, *, draws: int = 200, seed: int = 0
) -> xr.Dataset | float:
    """Measure the share of the cosine distance between examples that lies between their classes.

    R2 = 1 - within / total: `within` is the mean cosine distance of two examples of one class,
    `total` of any two, all classes and all pairs of classes counting equally. 0 to 1, higher is
    better separated.

    Args:
        x: Representations with labels, or an array (example, feature).
        labels: (example,) beside an array.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (layer, language)`, with all languages together as `pooled`; for an array
        a float.

    Raises:
        InputError: there are no labels, or only one class.

    Notes:
        After Kornblith, Chen, Lee and Norouzi 2021, arXiv 2010.16402: means over all ordered pairs,
        those of an example with itself included. These raise the value by about (1 - R2) /
        (examples a class); the interval is for the value without that, and reaches to the value
        itself where needed. Where the classes hardly differ it is wider than it need be; with fewer
        than 5 examples in a class it is not reliable, and a warning says so. Memory does not grow
        with the corpus.

    See also:
        `snr`, `variability`, `linear_probe`.

    Example:
        >>> y = np.arange(3000) % 3
        >>> x = np.random.default_rng(0).normal(size=(3000, 16)) + 4 * np.eye(16)[y]
        >>> round(class_separability(x, y), 2)
        0.41
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels))
    return _measured(Run(x, sample(x, draws=draws, seed=seed)))


def _of_array(x: np.ndarray, drawn: Sample) -> float:
    rows = np.arange(len(x))
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return float(_separability(_class_sums(x, rows, drawn), _class_weights(rows, drawn))[0])


def _measured(run: Run) -> xr.Dataset:
    reps, drawn = run.reps, need_classes(run.sample)
    statistics = {
        group: widened(centred(values, times=2), drawn, group) for group, values in _statistics(reps, drawn).items()
    }
    out = result(reps, drawn, statistics, CLASS_SEPARABILITY.about(), bounds=CLASS_SEPARABILITY.bounds)
    warn_few(out, drawn, _FEWEST)
    return out


def _statistics(reps: xr.Dataset, drawn: Sample) -> dict[str, np.ndarray]:
    out = {group: np.empty((len(drawn.weights), reps.sizes["layer"])) for group in [*drawn.languages, POOLED]}
    groups = {group: drawn.group(group) for group in drawn.languages}
    counts = {group: _class_weights(drawn.group(group), drawn) for group in out}
    for layer in range(reps.sizes["layer"]):
        pooled = np.zeros((len(drawn.weights), len(drawn.classes), reps.sizes["feature"]))
        for group, rows in groups.items():
            sums = np.zeros_like(pooled)
            for start in range(0, len(rows), BLOCK):
                part = rows[start : start + BLOCK]
                sums += _class_sums(directions(reps, layer, part), part, drawn)
            out[group][:, layer] = _separability(sums, counts[group])
            pooled += sums
        out[POOLED][:, layer] = _separability(pooled, counts[POOLED])
    return out


def _class_sums(x: np.ndarray, rows: np.ndarray, drawn: Sample) -> np.ndarray:
    """Return the weighted sum of the states x of some rows in each class: (1 + draws, class,
    feature).
    """
    sums = np.zeros((len(drawn.weights), len(drawn.classes), x.shape[1]))
    label, ids = drawn.label[rows], drawn.ids[rows]
    for c in np.unique(label):
        inside = np.flatnonzero(label == c)
        with np.errstate(invalid="ignore"):  # a state that is not finite makes its class so, which is said by name
            sums[:, c] = drawn.weights[:, ids[inside]].astype(np.float64) @ x[inside]
    return sums


def _class_weights(rows: np.ndarray, drawn: Sample) -> np.ndarray:
    """Return the summed weights of the rows of each class, for every row of weights: (1 + draws,
    class).
    """
    indicator = np.zeros((drawn.weights.shape[1], len(drawn.classes)))
    np.add.at(indicator, (drawn.ids[rows], drawn.label[rows]), 1.0)
    return drawn.weights.astype(np.float64) @ indicator


def _separability(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """R2 from the summed unit vectors (1 + draws, class, feature) and weights (1 + draws, class) of
    the classes.

    The mean cosine of all pairs from two classes is the product of their mean unit vectors.
    """
    there = counts[0] > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:, there] / counts[:, there, None]
        within = 1 - np.einsum("wcd,wcd->w", means, means) / there.sum()
        centre = means.mean(axis=1)
        total = 1 - np.einsum("wd,wd->w", centre, centre)
        # All vectors along one line: what is left of both is rounding.
        return np.where(total > 1e-12, 1 - within / total, np.nan)


CLASS_SEPARABILITY = of_labels(
    name="class_separability",
    title="class separability (R²)",
    estimator="R2 = 1 - mean cosine distance within classes / mean cosine distance over all classes",
    range="0 to 1; 0 where all classes have one mean direction",
    bounds=(-np.inf, 1),
    unchanged_by=("rotation", "common scale", "length of each vector", "order", "size of the classes"),
    paper="Kornblith, Chen, Lee, Norouzi 2021, arXiv 2010.16402",
    interval=LARGE,
    measure=_measured,
)
