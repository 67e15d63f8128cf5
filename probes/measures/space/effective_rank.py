"""The effective rank of the covariance, corrected for the number of sentences."""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.probe import THIS_SIZE
from probes.measures.space.principal import Within, spectrum_of, within_sentences
from probes.measures.space.sentences import ROUNDING, Sentences, of_geometry
from probes.results.counts import Weights
from probes.results.resampled import without_parts

_STEP = 0.25
_RIDGES = np.exp(np.arange(np.log(1e-9), np.log(1e8), _STEP))  # in units of the trace of the covariance
_ATOMS = 64


def entropy_of_covariance(
    scores: np.ndarray, spectrum: np.ndarray, within: Within, sentences: Sentences, features: int
) -> tuple[float, float]:
    """Return the entropy of the eigenvalues of the covariance, and the part of it that is guessed.

    Of the scores it is read how many there are; any turned copy of them will do.

    What is guessed is how much more it is than it would be, were there no more dimensions than
    sentences can tell. With eigenvalues p that sum to 1, the entropy is the integral over t from 0
    to infinity of f(t) - 1 / (1 + t), where f(t) = sum of p / (p + t) are the degrees of freedom of
    a ridge t. The degrees of freedom of the sample at a ridge w are those of the population at the
    larger ridge t = w / b, whatever its eigenvalues, in the limit of many rows and features
    (Silverstein 1995): for n independent rows b = 1 - f / n. For rows with a covariance of their
    own (translations) and of different length, whose eigenvalues c have the mean 1, b solves mean(c
    / (b + c f / n)) = 1. Ridges below t(0), which n rows cannot tell apart, are extrapolated from
    the value and slope there.
    """
    p = spectrum / spectrum.sum()
    size = len(scores) / len(sentences.counts)
    n = (len(sentences.counts) - 1) * size
    p = p[::-1][: int(n)]
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
    return float(area + low - np.log1p(t[0])), float(low - t[0] * f[0])


def entropy_draws(x: np.ndarray, ids: np.ndarray, entropy: float, weights: Weights) -> np.ndarray:
    """Return the entropy of states sorted by id for every row of weights: (1 + draws,), row 0 the
    value.

    From what is left without a part of the sentences: what a sentence does to eigenvalues is of no
    first order where they are as many as the sentences.

    Args:
        weights: (1 + draws, sentences), as they come in the ids.
    """
    if len(weights) == 1:
        return np.array([entropy])
    of = np.unique(ids, return_inverse=True)[1]

    def left(stay: np.ndarray) -> float:
        rows = stay[of]
        sentences, centred = Sentences.of(ids[rows]), x[rows] - x[rows].mean(axis=0)
        if np.abs(centred).max() <= ROUNDING * np.abs(x).max():
            return np.nan
        centred, spectrum = spectrum_of(centred)
        within = within_sentences(centred, sentences)
        return entropy_of_covariance(centred, spectrum, within, sentences, x.shape[1])[0]

    return without_parts(entropy, left, weights, (0.0, np.inf))


def _row_spread(spread: np.ndarray, spectrum: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of the covariance of the rows, of mean 1, and the share of each.

    From those of the products within sentences, which are spread by chance too, the more so the
    fewer dimensions there are: they are raised to the power that leaves as much spread as is not
    expected by chance. Without those that are 0.
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
    """Solve mean(c / (b + c y)) = 1 for b in (0, 1], for every y.

    By Newton's method from 0 on 1 / mean(...), which is concave in b, so that the steps only rise.
    """
    part, least = of * c, np.exp(-60.0)
    cy = np.outer(y, c)
    b = np.full(len(y), least)
    for _ in range(60):
        each = 1 / (b[:, None] + cy)
        mean = each @ part
        step = (1 - 1 / mean) * np.square(mean) / (np.square(each) @ part)
        b = np.maximum(b + step, least)
        if (step <= 1e-13 * b).all():
            break
    return b


def _extrapolated(t: float, f: float, slope: float, most: float) -> float:
    """Integrate degrees of freedom from 0 to t, which rise to `most` at 0, from their value and
    slope at t.

    As most / (1 + (t / s)^a), which is exact where all eigenvalues are equal (a = 1).
    """
    if most - f < 1e-6 * most or t * most < 1e-6:
        return t * f
    a = min(1.0, -slope * t / f / (1 - f / most))
    x = (np.arange(1000) + 0.5) / 1000
    return float(t * np.mean(most / (1 + (most / f - 1) * x**a)))


EFFECTIVE_RANK = partial(
    of_geometry,
    name="effective_rank",
    estimator="exp of the entropy of the eigenvalues of the covariance, corrected for the number of sentences",
    range="1 to the number of features",
    interval=THIS_SIZE,
    paper="Roy, Vetterli 2007, EUSIPCO (of singular values there); the correction is our own, after Silverstein 1995",
)
