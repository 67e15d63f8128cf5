"""Interval and p of a difference from one calibration: of each alone, and jointly over a family.

All comes from how far the draws of a difference lie from their middle, in units of their spread. Of
one difference alone the interval is its middle, plus and minus the 95 % quantile of that distance;
p is the share of draws at least as far from the middle as the middle is from 0. So p < 0.05 if and
only if the interval leaves out 0. Jointly the distance of a draw is the largest one over the
family, which all have the same draws of sentences: interval and p hold for all of the family at
once (max-T of Westfall and Young 1993).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm as normal

LEVEL = 0.05
_FARTHEST = 30.0  # beyond, normal tails are nothing even in numbers
_ROUNDING = 1e-12  # what is less than this share of what was subtracted is a rounding error


class Calibrated(NamedTuple):
    """Intervals and p of differences, (cell,) each: alone, and jointly over a family."""

    difference_low: np.ndarray
    difference_high: np.ndarray
    p: np.ndarray
    p_adjusted: np.ndarray
    adjusted_low: np.ndarray
    adjusted_high: np.ndarray


class _Spread(NamedTuple):
    """How draws spread: their middle, the width that distances are in units of, and these."""

    centre: np.ndarray  # (cell,)
    width: np.ndarray  # (cell,)
    distance: np.ndarray  # (cell, draw), NaN where a draw has no value or nothing moves
    still: np.ndarray  # (cell,) no draw differs, though others might

    def of(self, cells: np.ndarray) -> _Spread:
        return _Spread(*(x[cells] for x in self))


def calibrated(
    gap: np.ndarray,
    draws: np.ndarray,
    scale: np.ndarray,
    unseen: np.ndarray,
    family: np.ndarray,
    units: np.ndarray | float = np.inf,
) -> Calibrated:
    """Return intervals and p of differences, alone and jointly over families of them.

    Args:
        gap: (cell,) the differences themselves, finite.
        draws: (cell, draw) NaN where a draw has none; no cell without any.
        scale: (cell,) how large what was subtracted is, of which a rounding error is a part.
        unseen: (cell,) the variance that may be there though no draw shows it
            (`intervals.of_shares`).
        family: (cell,) the number of the family of each.
        units: (cell,) how many ids, or groups of them, the draws are of: few are less sure far out
            than normal draws are (Student's t).

    Notes:
        `p_adjusted` is Westfall and Young's step-down p; but where the interval, which is the
        single-step one, holds 0, it is at least 0.05.
    """
    at = _spread(draws, scale, unseen, units)
    alone = _alone(at)
    p, half = _tail(alone, at), _half(alone, at)
    p_adjusted, jointly = np.empty_like(p), np.empty_like(half)
    for members in _families(family):
        among = at.of(members)
        order = np.argsort(-np.abs(_over(among.centre, among.width)), kind="stable")
        steps = _from_nearest(among.of(order))
        jointly[members] = _half(steps[:1], among)
        # No smaller than that of any member that lies farther from 0.
        stepwise = np.maximum.accumulate(_tail(steps, among.of(order)))
        single = _tail(steps[:1], among)
        p_adjusted[members[order]] = np.where(single[order] < LEVEL, stepwise, np.maximum(stepwise, LEVEL))
    # A draw without a value has one in the family, so that this could say more than its member.
    p_adjusted, jointly = np.maximum(p_adjusted, p), np.maximum(jointly, half)
    # Value and draws on two sides of 0: the interval holds both, and so 0.
    torn = np.sign(gap) != np.sign(at.centre)
    return Calibrated(
        *_around(gap, at.centre, half),
        np.where(torn, 1.0, p),
        np.where(torn, 1.0, p_adjusted),
        *_around(gap, at.centre, jointly),
    )


def ends(
    gap: np.ndarray,
    draws: np.ndarray,
    scale: np.ndarray,
    unseen: np.ndarray,
    weight: np.ndarray,
    units: np.ndarray | float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends (cell,) of intervals of differences, of which all upper ones hold at once in 95
    % of samples, and all lower ones: for claims of one side, that something is less or is more.

    Args:
        gap, draws, scale, unseen, units: as for `calibrated`; all cells are one family.
        weight: (cell,) how much of the error each may take beside another of weight 1. More makes
            its interval narrower, and all others wider.
    """
    at, level = _spread(draws, scale, unseen, units), 2 * LEVEL
    weight = np.where(at.still, 1.0, weight)
    weighed = at._replace(distance=_weighed(at.distance, weight[:, None]))
    jointly = np.broadcast_to(_reach(_from_nearest(weighed)[:1], level), len(gap))
    reach = np.maximum(_weighed(jointly, 1 / weight), _reach(_alone(at), level))
    few = _ranks(at.distance, level) == 0
    half = np.where(few, np.maximum(reach * at.width, np.abs(at.centre)), reach * at.width)
    return _around(gap, at.centre, half)


def _weighed(distance: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The distances that normal draws exceed less often by a weight."""
    return normal.isf(np.minimum(normal.sf(np.minimum(distance, _FARTHEST)) / weight, 0.5))


def stretch(
    draws: np.ndarray, scale: np.ndarray, unseen: np.ndarray, family: np.ndarray, units: np.ndarray | float = np.inf
) -> np.ndarray:
    """Return how much wider intervals (cell,) must be to hold for all of a family at once.

    Args:
        draws, scale, unseen, family, units: as for `calibrated`, of the values themselves.
    """
    at = _spread(draws, scale, unseen, units)
    reach, jointly = _reach(_alone(at)), np.empty(len(draws))
    for members in _families(family):
        jointly[members] = _reach(_from_nearest(at.of(members))[:1])
    return np.maximum(_over(jointly, reach), 1.0)


def p_text(p: float, draws: int) -> str:
    """Return p in words, as "< 0.005" where so many draws allow no less.

    Example:
        >>> p_text(0.0123, 200), p_text(1 / 201, 200)
        ('0.012', '< 0.005')
    """
    least = 1 / (draws + 1)
    if not p <= least:
        return f"{p:.3f}"
    digit = 10.0 ** np.floor(np.log10(least))
    return f"< {np.ceil(least / digit) * digit:.6g}"


def _spread(draws: np.ndarray, scale: np.ndarray, unseen: np.ndarray, units: np.ndarray | float) -> _Spread:
    draws = np.where(np.isfinite(draws), draws, np.nan)
    centre, spread = np.nanmean(draws, axis=1), np.nanstd(draws, axis=1)
    rounding = _ROUNDING * scale
    moves = spread > rounding
    centre = np.where(moves | (np.abs(centre) > rounding), centre, 0.0)
    width = np.sqrt(np.where(moves, spread, 0.0) ** 2 + unseen)
    distance = np.abs(draws - centre[:, None]) / np.where(moves, spread, np.nan)[:, None]
    return _Spread(centre, width, _as_students(distance, units), ~moves & (unseen > 0))


def _as_students(distance: np.ndarray, units: np.ndarray | float) -> np.ndarray:
    """Distances (cell, draw) as far out as Student's t lies where normal ones do; at 95 %, where
    draws have its factor already (`intervals.student_factor`), as they are.
    """
    freedom = np.maximum(np.broadcast_to(units, len(distance)) - 1.0, 1.0)[:, None]

    def longer(z: np.ndarray | float) -> np.ndarray:  # Cornish and Fisher
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)

    at = float(normal.isf(LEVEL / 2))
    return longer(distance) * (at / longer(at))


def _over(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x / y, and 0 for 0 / 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, 0.0, x / y)


def _families(family: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(family, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(family[order])) + 1) if len(order) else []


def _alone(at: _Spread) -> np.ndarray:
    return np.where(at.still[:, None], _largest_normal(1, at.distance.shape[1]), at.distance)


def _from_nearest(at: _Spread) -> np.ndarray:
    """The largest distance of every draw among a member of a family and those after it."""
    back = at.distance[::-1]
    if at.still.any():
        back = np.fmax(back, _largest_normal(int(at.still.sum()), back.shape[1]))
    return np.fmax.accumulate(back, axis=0)[::-1]


def _largest_normal(count: int, draws: int) -> np.ndarray:
    """The largest of so many distances of normal draws (draw,), in place of those that do not move.

    What these would have in common cannot be known, so they are taken as independent.
    """
    ranks = np.random.default_rng(0).permutation(draws) + 0.5
    return normal.isf((1 - (ranks / draws) ** (1 / count)) / 2)


def _tail(distance: np.ndarray, at: _Spread) -> np.ndarray:
    """The share of draws (cell, draw) at least as far from the middle as that is from 0."""
    far = (distance * at.width[:, None] >= np.abs(at.centre)[:, None]).sum(axis=1)
    return np.where(at.centre == 0, 1.0, (1 + far) / (1 + _there(distance)))


def _there(distance: np.ndarray) -> np.ndarray:
    """How many draws (cell, draw) say something; all where none moves, for that is certain."""
    there = np.isfinite(distance).sum(axis=1)
    return np.where(there > 0, there, distance.shape[1])


def _half(distance: np.ndarray, at: _Spread) -> np.ndarray:
    """Half of the interval that leaves out 0 if and only if p < 0.05."""
    few = _ranks(distance) == 0  # with fewer than 20 draws p never is
    half = _reach(distance) * at.width
    return np.where(few, np.maximum(half, np.abs(at.centre)), half)


def _reach(distance: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The distance that so few draws (cell, draw) exceed that p < level; 0 where none moves."""
    ordered = np.sort(np.where(np.isfinite(distance), distance, -np.inf), axis=1)
    at = np.maximum(_ranks(distance, level), 1)
    return np.maximum(np.take_along_axis(ordered, -at[:, None], axis=1)[:, 0], 0.0)


def _ranks(distance: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """How many draws (cell, draw) as far make p no longer less than a level; 0 where it never is."""
    there = _there(distance)
    counts = np.arange(distance.shape[1] + 1)
    known = [np.argmax((1 + counts) / (1 + count) >= level) for count in np.unique(there)]
    return np.array(known)[np.searchsorted(np.unique(there), there)]


def _around(gap: np.ndarray, centre: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.minimum(centre - half, gap), np.maximum(centre + half, gap)
