"""Signal-to-noise ratio: how much farther apart examples of different classes lie than of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.measures.classes.class_pairs import PairMeans, Parts, by_layer, parts_of, spread_out, sums_of_distances
from probes.measures.classes.labels import FEWEST, labelled, measured, of_labels
from probes.measures.classes.random_parts import MOST, PART, mean_over_parts
from probes.measures.probe import LARGE, Probe, Run
from probes.results.draws import Sample, sample


@overload
def snr(x: xr.Dataset, labels: None = None, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0) -> xr.Dataset: ...


@overload
def snr(x: npt.ArrayLike, labels: npt.ArrayLike, *, fewest: int = FEWEST, draws: int = 200, seed: int = 0) -> float: ...


def snr(
    x: xr.Dataset | npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    fewest: int = FEWEST,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset | float:
    """Measure how much farther apart examples of different classes lie than examples of one class.

    Mean distance between classes, each pair of classes counting equally, over the mean distance
    within a class, each class counting equally. 0 to infinity; 1 means that labels say nothing
    about where an example lies; higher is better separated.

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
        Ratio form after O' Neill, Dutta and Assem 2021, arXiv 2109.15014; classes may differ in
        size. Pairs of translations, and of two texts of one group, are left out: in a large corpus
        their share vanishes. Draws are of first order. Time grows with the square of the number of
        examples up to 32,768 a language (and pooled); of more, pairs within random parts of about
        8,192 count, whose error is in the interval, which says so. An array is always compared as a
        whole.

    See also:
        `class_separability`, `variability`, `linear_probe`.

    Example:
        >>> y = np.arange(3000) % 3
        >>> x = np.random.default_rng(0).normal(size=(3000, 16)) + 4 * np.eye(16)[y]
        >>> round(snr(x, y), 2)
        1.42
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels, "snr", fewest))
    return _said(measured(SNR, Run(x, sample(x, draws=draws, seed=seed)), _statistics, fewest=fewest))


def _statistics(reps: xr.Dataset, drawn: Sample, kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    large = {group: rows for group, rows in kept.items() if len(rows) > MOST}
    small = {group: rows for group, rows in kept.items() if group not in large}
    return by_layer(_snr, reps, drawn, small) | mean_over_parts(_snr, reps, drawn, large)


def _said(out: xr.Dataset) -> xr.Dataset:
    """Say of which languages pairs within random parts count."""
    parted = [str(group) for group in out["language"].values[(out["n"] > MOST).values]]
    if not parted:
        return out
    said = f"of pairs within random parts of about {PART:,} texts, whose error is in it ({', '.join(parted)})"
    return out.assign_attrs(interval=f"{out.attrs['interval']}; {said}")


def _of_array(x: np.ndarray, drawn: Sample) -> float:
    return float(_snr(x, parts_of(drawn, np.arange(len(x))), drawn)[0])


def _snr(x: np.ndarray, parts: Parts, drawn: Sample) -> np.ndarray:
    """Return the ratio of states (example, feature) for every row of weights."""
    with np.errstate(invalid="ignore", divide="ignore"):  # what has no value is said by name
        spread = spread_out(x[parts.rows])
        if spread is None:
            return np.full(len(drawn.weights), np.nan)
        distances = PairMeans(parts, *sums_of_distances(spread, parts))
        means = distances.means()
        c = len(means)
        within = np.trace(means) / c
        value = (means.sum() / c - within) / (c - 1) / within
        slope = np.full(means.shape, 1 / (within * c * (c - 1)))
        np.fill_diagonal(slope, -value / (within * c))
        return distances.draws(float(value), slope, drawn)


SNR: Probe = of_labels(
    name="snr",
    title="signal-to-noise ratio",
    estimator="mean Euclidean distance between classes over mean distance within a class",
    range="0 to infinity; 1 where labels say nothing",
    unchanged_by=("rotation", "shift", "common scale", "order"),
    paper="O' Neill, Dutta, Assem 2021, arXiv 2109.15014",
    interval=LARGE,
    measure=lambda run: _said(measured(SNR, run, _statistics)),
)
