"""One model trained several times: the mean over its replicates, with draws of two levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.stats import norm as normal
from scipy.stats import t as student_t

from probes.errors import InputError
from probes.results.intervals import CONFIDENCE, interval, of_shares

# Of Satterthwaite's degrees of freedom, which few replicates make too many: 2 would be his own. See `over_replicates`.
_POWER = 1.5


def over_replicates(
    results: Sequence[xr.Dataset], name: str, *, seed: int, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> xr.Dataset:
    """Return the mean over the replicates of a model, for all models trained in that way.

    The draws vary in two ways: by the sentences, as each replicate's do, the same for all of them,
    and by the replicates. Those are drawn as normal multiples of how the replicates differ, the
    same multiples for every model with as many of them, so that two such models are paired
    replicate by replicate.

    Args:
        results: of one probe, one a replicate, with the same draws of sentences.
        name: of the model.
        seed: of the draws of replicates.
        bounds: the range that the interval is kept within.

    Returns:
        The result of the first with `value, low, high` and `draws` of the mean; `between`, the
        standard deviation between replicates, and `replicates`, their number. NaN where a replicate
        has no value.

    Raises:
        InputError: the replicates have other layers or modules, or other draws.

    Notes:
        With S the standard deviation between k replicates, C the variance by sentences that they
        share and I the rest of it, the spread is that of Student's t of variance C + S^2 / k, at
        least C + I / k, with (k - 1) ((C + S^2 / k) / (S^2 / k))^1.5 degrees of freedom. How often
        such intervals hold stands on the reference page of `compare`.

    See also:
        `compare`.
    """
    first = results[0]
    _check_alike(results, name)
    value = np.stack([r["value"].values for r in results])
    with np.errstate(invalid="ignore"):  # infinite values have no spread
        mean, between = value.mean(axis=0), value.std(axis=0, ddof=1)
    out = first.assign(
        value=(first["value"].dims, mean),
        between=(first["value"].dims, between),
        replicates=len(results),
    ).assign_attrs(model=name)
    if "draws" not in first:
        return out
    of_each = np.stack([r["draws"].values for r in results])  # (replicate, draw, ...)
    with np.errstate(invalid="ignore"):
        draws = of_each.mean(axis=0) + _of_replicates(value, of_each, seed)
    low, high = (np.clip(end, *bounds) for end in interval(mean, draws))
    out = out.assign(
        low=(first["value"].dims, low), high=(first["value"].dims, high), draws=(first["draws"].dims, draws)
    ).assign_attrs(interval=f"{first.attrs['interval']}, and of {len(results)} replicates")
    return of_shares(out) if (first["unseen"] > 0).any() else out


def _of_replicates(value: np.ndarray, of_each: np.ndarray, seed: int) -> np.ndarray:
    """What the draws of the mean vary by beyond those of sentences, (draw, ...)."""
    k, count = of_each.shape[:2]
    total = of_each.mean(axis=0).var(axis=0)  # C + I / k
    shared = np.maximum((k * total - of_each.var(axis=1).mean(axis=0)) / (k - 1), 0.0)
    off = value - value.mean(axis=0)
    squares = np.square(off).sum(axis=0)
    of_seeds = squares / (k - 1) / k
    variance = np.maximum(shared + of_seeds, total)
    with np.errstate(divide="ignore", over="ignore"):
        freedom = (k - 1) * (variance / of_seeds) ** _POWER
    level = (1 + CONFIDENCE) / 2
    factor = student_t.ppf(level, np.clip(freedom, 1, 1e9)) / normal.ppf(level)
    more = np.maximum(np.square(factor) * variance - total, 0.0)
    # Directions in which the replicates differ, of length 1 at each layer and language.
    with np.errstate(divide="ignore"):
        along = off * np.where(squares > 0, np.sqrt(more / squares), 0.0)
    return np.nan_to_num(np.tensordot(_multiples(count, k, seed), along, axes=1))


def _multiples(draws: int, replicates: int, seed: int) -> np.ndarray:
    """Normal multiples (draw, replicate) that sum to 0 over the replicates, as evenly spread as so
    many can be.
    """
    rng = np.random.default_rng([seed, replicates])
    scores = normal.ppf((np.arange(draws) + 0.5) / draws)
    free = np.column_stack([rng.permutation(scores) for _ in range(replicates - 1)])
    # Without what they are correlated by chance: their covariance over the draws is that of independent ones.
    left, _, right = np.linalg.svd(free, full_matrices=False)
    contrasts = np.linalg.qr(np.column_stack([np.ones(replicates), np.eye(replicates)[:, :-1]]))[0][:, 1:]
    return np.sqrt(draws) * left @ right @ contrasts.T


def _check_alike(results: Sequence[xr.Dataset], name: str) -> None:
    first = results[0]
    for number, other in enumerate(results[1:], start=2):
        for dim in first["value"].dims:
            if not np.array_equal(first[dim].values, other[dim].values):
                raise InputError(
                    f"model {name!r}: replicate {number} has other values of {dim!r} than the first: expected "
                    f"{first[dim].values.tolist()}, found {other[dim].values.tolist()}. Replicates are one model, "
                    "trained several times: give other models names of their own"
                )
        if first.attrs.get("resampling") != other.attrs.get("resampling"):
            raise InputError(
                f"model {name!r}: replicate {number} has other draws than the first. Measure both on the same corpus "
                "with the same draws and seed"
            )
