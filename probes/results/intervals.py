"""From draws to intervals: percentiles, bias, spread, first-order draws, shares."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from scipy.special import ndtri, stdtrit
from scipy.stats import beta

from probes.results.counts import Weights, sums_over

CONFIDENCE = 0.95


def centred(statistics: np.ndarray, times: int = 1) -> np.ndarray:
    """Take the bias off the draws of a statistic; row 0, the sample's own value, stays.

    A draw is as far from the sample as the sample is from the truth, so the draws carry the bias
    twice, once more than the sample's value. Taken off once, as their mean minus that value, they
    spread around what the statistic is in samples of this size; taken off two times, around what it
    tends to in large ones.
    """
    moved = statistics.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: said once, by name, in result()
        moved[1:] -= times * (np.nanmean(statistics[1:], axis=0) - statistics[0])
    return moved


def widened(statistics: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spread the draws of a statistic of classes as widely as the ids of all classes warrant.

    The draws know the spread of n ids with a share of 1 / n missing, and exactly only for large n:
    as for means of classes, the factor is that of Student's t (Welch's, a part of the variance for
    each class).

    Args:
        statistics: (1 + draws, ...).
        counts: (class,) ids of each, or groups of them.
    """
    part = 1 / np.maximum(counts - 1, 1)  # of the variance, up to a common factor
    factor = np.sqrt(part.sum() / (1 / counts).sum()) * t_factor(part.sum() ** 2 / (part**3).sum())
    spread = statistics.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmean(statistics[1:], axis=0)
    spread[1:] = middle + factor * (statistics[1:] - middle)
    return spread


def student_factor(n: int) -> float:
    """How much more widely than the draws of n ids, or groups of them, their population spreads."""
    n = max(n, 2)
    return float(np.sqrt(n / (n - 1)) * t_factor(n - 1))


def t_factor(freedom: float) -> float:
    """How much more widely than a normal law one spreads whose variance is estimated."""
    level = (1 + CONFIDENCE) / 2
    return float(stdtrit(freedom, level) / ndtri(level))


def linearised(
    value: np.ndarray,
    influence: np.ndarray,
    ids: np.ndarray,
    weights: Weights,
    units: np.ndarray,
    bounds: tuple[float, float],
) -> np.ndarray:
    """Return a statistic for every row of weights, to first order, from what each example does to
    it.

    For statistics that draws with repetition distort (nearest neighbours, ranks, eigenvalues: a
    sentence and its copy are alike) or that are too dear to compute hundreds of times. Spread as
    widely as the number of ids, or groups of them, warrants (Student's t), and kept within bounds.

    Args:
        value: (...) the sample's own.
        influence: (example, ...) n times what adding a little of this example does to the value;
            its mean is taken off.
        ids: (example,) codes, columns of the weights.
        weights: (1 + draws, ids).
        units: (ids,) number of the group of each id (`Sample.units`).
        bounds: the range of the statistic.

    Returns:
        (1 + draws, ...), row 0 the value.
    """
    there, own = np.unique(ids, return_inverse=True)
    flat = (influence - influence.mean(axis=0)).reshape(len(ids), -1)
    summed = np.zeros((len(there), flat.shape[1]))
    np.add.at(summed, own, flat)
    factor = student_factor(len(np.unique(units[there])))
    with np.errstate(invalid="ignore", divide="ignore"):
        size = sums_over(weights, there, np.bincount(own).astype(np.float64))[1:, None]
        moved = factor * sums_over(weights, there, summed)[1:] / size
    out = value + np.concatenate([np.zeros((1, *value.shape)), moved.reshape(-1, *value.shape)])
    out[1:] = np.clip(out[1:], *bounds)
    return out


def interval(value: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval over the first axis, widened where needed to hold the value.

    NaN draws (a class that a draw left out) are passed over; where the value is NaN, so are both
    ends.
    """
    tail = (1 - CONFIDENCE) / 2
    # The one that passes over NaN takes a loop in Python.
    quantile = np.nanquantile if np.isnan(draws).any() else np.quantile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: said once, by name, in result()
        low, high = quantile(draws, [tail, 1 - tail], axis=0, method="weibull")  # the (n + 1) q-th draw
    missing = np.isnan(value)
    return np.where(missing, np.nan, np.fmin(low, value)), np.where(missing, np.nan, np.fmax(high, value))


def of_shares(out: xr.Dataset) -> xr.Dataset:
    """Give shares of sentences their exact intervals, and say what no draw of them can show.

    The interval is the binomial one of Clopper and Pearson, for as many independent sentences as
    the spread of the draws speaks of (Korn and Graubard 1998). That says the less the fewer
    sentences are wrong (or right): where none is, there are as many as ids, or groups of them.

    Returns:
        The result with other `low` and `high`, and `unseen`: the variance of one sentence in so
        many, which a difference has at least. One of either model's is what the interval of Bonett
        and Price 2012 for paired shares adds.
    """
    p, n, units = out["value"].values, out["n"].values, out["units"].values  # language is the last dimension
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: said once, by name, in result()
        variance = np.nanvar(out["draws"].values, axis=0)
    # How many sentences go wrong together, from those that do and one more, with which all of its unit does.
    together = (variance * n**2 / np.maximum(p, 1 - p) + n / units) / (n * np.minimum(p, 1 - p) + 1)
    alike = n / together
    right, tail = p * alike, (1 - CONFIDENCE) / 2
    low = np.where(p == 0, 0.0, beta.ppf(tail, right, alike - right + 1))
    high = np.where(p == 1, 1.0, beta.isf(tail, right + 1, alike - right))
    dims = out["value"].dims
    said = out.attrs["interval"].replace("percentile interval of", "exact binomial interval by the spread of")
    return out.assign(low=(dims, low), high=(dims, high), unseen=(dims, 1 / alike**2)).assign_attrs(interval=said)
