"""Fisher ratio: the spread of the class means over the spread within classes."""

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
def fisher_ratio(
    x: xr.Dataset, labels: None = None, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0
) -> xr.Dataset: ...


@overload
def fisher_ratio(
    x: npt.ArrayLike, labels: npt.ArrayLike, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0
) -> float: ...


def fisher_ratio(
    x: xr.Dataset | npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    fewest: int = FEWEST,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how far apart the means of classes lie against how far examples lie from their mean.

    tr(S_B) / tr(S_W): the mean squared distance of the class means from their mean over the mean
    variance within a class, each class counting equally. 0 where all classes have one mean, then
    also below by chance; no upper end; higher is better separated.

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
        Debiased: from squared distances of pairs of different sentences, so that the noise of class
        means does not count as their spread; pairs of translations, and of two texts of one group,
        are left out as well. Draws are of first order. Time grows with the square of the number of
        examples.

    See also:
        `snr`, `class_distance`, `variability`.

    Example:
        >>> y = np.arange(3000) % 3
        >>> x = np.random.default_rng(0).normal(size=(3000, 16)) + 4 * np.eye(16)[y]
        >>> round(fisher_ratio(x, y), 2)  # in theory 2 / 3
        0.67
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels, "fisher_ratio", fewest))
    return measured(FISHER_RATIO, Run(x, sample(x, draws=draws, seed=seed)), partial(by_layer, _ratio), fewest=fewest)


def _of_array(x: np.ndarray, drawn: Sample) -> float:
    return float(_ratio(x, parts_of(drawn, np.arange(len(x))), drawn)[0])


def _ratio(x: np.ndarray, parts: Parts, drawn: Sample) -> np.ndarray:
    """Return the ratio of states (example, feature) for every row of weights."""
    with np.errstate(invalid="ignore", divide="ignore"):  # what has no value is said by name
        spread = spread_out(x[parts.rows])
        if spread is None:
            return np.full(len(drawn.weights), np.nan)
        pairs = PairMeans(parts, *sums_of_distances(spread, parts, squared=True))
        means = pairs.means()
        c = len(means)
        within = np.trace(means) / 2 / c
        between = (means.sum() - np.trace(means) - (c - 1) * np.trace(means)) / 2 / c**2
        value = between / within
        slope = np.full(means.shape, 1 / (2 * c**2 * within))
        np.fill_diagonal(slope, -(c - 1) / (2 * c**2 * within) - value / (2 * c * within))
        return pairs.draws(float(value), slope, drawn)


FISHER_RATIO: Probe = of_labels(
    name="fisher_ratio",
    title="Fisher ratio",
    estimator="tr(S_B) / tr(S_W), classes counting equally, debiased by pairs of different sentences",
    range="0 to infinity; around 0, also below, where all classes have one mean",
    bounds=(-np.inf, np.inf),
    unchanged_by=("rotation", "shift", "common scale", "order"),
    paper="Fisher 1936; in the form of O' Neill, Dutta, Assem 2021, arXiv 2109.15014",
    interval=LARGE,
    family="",
    default=False,
    measure=lambda run: measured(FISHER_RATIO, run, partial(by_layer, _ratio)),
)
