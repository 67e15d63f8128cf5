"""Separation between classes: how far apart examples of two classes lie, in lengths of a state."""

from __future__ import annotations

from functools import partial
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.measures.classes.class_pairs import PairMeans, Parts, by_layer, parts_of, spread_out, sums_of_distances
from probes.measures.classes.labels import FEWEST, labelled, measured, of_labels
from probes.measures.probe import LARGE, Probe, Run
from probes.results.draws import Sample, sample


@overload
def class_distance(
    x: xr.Dataset, labels: None = None, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0
) -> xr.Dataset: ...


@overload
def class_distance(
    x: npt.ArrayLike, labels: npt.ArrayLike, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0
) -> float: ...


def class_distance(
    x: xr.Dataset | npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    fewest: int = FEWEST,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure the mean distance between examples of two classes, in mean lengths of a state.

    Each pair of classes counts equally; states are scaled to a mean length of 1. 0 to infinity, in
    practice below 2; higher is farther apart, which is neither better nor worse: it says nothing of
    the distance within a class, which `snr` divides by.

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
        The numerator of the ratio of O' Neill, Dutta and Assem 2021, arXiv 2109.15014; the scale is
        a choice made here. Pairs of translations, and of two texts of one group, are left out.
        Draws are of first order. Time grows with the square of the number of examples.

    See also:
        `snr`, `fisher_ratio`, `class_separability`.

    Example:
        >>> class_distance([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0, 0, 1, 1], fewest=2)
        1.4142135623730951
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels, "class_distance", fewest))
    return measured(
        CLASS_DISTANCE, Run(x, sample(x, draws=draws, seed=seed)), partial(by_layer, _distance), fewest=fewest
    )


def _of_array(x: np.ndarray, drawn: Sample) -> float:
    return float(_distance(x, parts_of(drawn, np.arange(len(x))), drawn)[0])


def _distance(x: np.ndarray, parts: Parts, drawn: Sample) -> np.ndarray:
    """Return the distance of states (example, feature) for every row of weights."""
    x = x[parts.rows]
    with np.errstate(invalid="ignore", divide="ignore"):  # what has no value is said by name
        spread = spread_out(x)
        if spread is None:
            return np.full(len(drawn.weights), np.nan)
        lengths = np.linalg.norm(x, axis=1)
        pairs = PairMeans(parts, *sums_of_distances(spread, parts))
        means = pairs.means()
        c = len(means)
        apart = (means.sum() - np.trace(means)) / c / (c - 1)
        slope = np.full(means.shape, 1 / (c * (c - 1)))
        np.fill_diagonal(slope, 0)
        weights = drawn.weights[:, drawn.ids[parts.rows]].astype(np.float64)
        return pairs.draws(float(apart), slope, drawn) * weights.sum(axis=1) / (weights @ lengths)


CLASS_DISTANCE: Probe = of_labels(
    name="class_distance",
    title="distance between classes",
    estimator="mean Euclidean distance between classes over the mean length of states",
    range="0 to infinity, in practice below 2",
    higher_is="farther apart",
    unchanged_by=("rotation", "common scale", "order"),
    paper="O' Neill, Dutta, Assem 2021, arXiv 2109.15014",
    interval=LARGE,
    better="",
    family="",
    default=False,
    measure=lambda run: measured(CLASS_DISTANCE, run, partial(by_layer, _distance)),
)
