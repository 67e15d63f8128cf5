"""K-means of single numbers: the best of few clusters along a line."""

from __future__ import annotations

import numpy as np

_BINS = 512  # values, or parts of the line, that the best clusters are found among
_MOST = 256  # clusters that are found so; of more any start serves
_ROUNDS = 1000  # of Lloyd, far more than it takes


def clusters(values: np.ndarray, count: int) -> np.ndarray:
    """Return the centres of at most so many clusters, ascending, whose squared distances are least.

    Args:
        values: (number,), finite.
        count: clusters at most; as few distinct values are their own centres.

    Returns:
        The centres in float64. Of up to 512 distinct values, or two a cluster where that is more,
        they are the best there are; of more, the best whose borders lie between 512 parts of the
        line, moved from there by Lloyd's rounds until nothing changes. Beyond 256 clusters from
        quantiles and from an even grid, the better of the two.

    Notes:
        Clusters of a line are stretches of it, so that the best ones are found part by part, by
        dynamic programming (Fisher 1958; Wang and Song 2011).

    Example:
        >>> clusters(np.array([0.0, 9.0, 1.0, 8.0, 0.5]), 2)
        array([0.5, 8.5])

    See also:
        `compress.product_quantize`.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    distinct = np.unique(ordered)
    if len(distinct) <= count:
        return distinct
    if count <= _MOST:
        edges = _edges(ordered, distinct, max(_BINS, 2 * count))
        return _lloyd(ordered, _means(ordered, _best(ordered, edges, count)))
    even = np.linspace(ordered[0], ordered[-1], count)
    starts = (np.quantile(ordered, (np.arange(count) + 0.5) / count), even)
    found = [_lloyd(ordered, np.unique(start)) for start in starts]
    return min(found, key=lambda centres: _spread(ordered, centres))


def nearest_of(values: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return those of some centres that a value is nearest to, ascending, and of each value which.

    Example:
        >>> nearest_of(np.array([0.1, 5.2, 0.2]), np.array([0.0, 2.0, 5.0]))
        (array([0., 5.]), array([0, 1, 0]))
    """
    centres = np.unique(centres)
    used, numbers = np.unique(np.searchsorted(_middles(centres), values), return_inverse=True)
    return centres[used], numbers.reshape(-1)


def _edges(ordered: np.ndarray, distinct: np.ndarray, most: int) -> np.ndarray:
    """Where the line may be cut, as places among the ordered values, 0 and their number too."""
    if len(distinct) <= most:
        cuts = np.searchsorted(ordered, distinct)
    else:  # half of the parts of as many values each, half of the same length, so that few values far out count too
        half = most // 2
        lengths = np.searchsorted(ordered, np.linspace(ordered[0], ordered[-1], half + 1))
        cuts = np.concatenate([np.arange(half + 1) * len(ordered) // half, lengths])
        # No cut parts values that are equal.
        cuts = np.searchsorted(ordered, ordered[np.minimum(cuts, len(ordered) - 1)])
    return np.unique(np.append(cuts, [0, len(ordered)]))


def _best(ordered: np.ndarray, edges: np.ndarray, count: int) -> np.ndarray:
    """The places among which to cut, so that the squared distances to means are least."""
    centred = ordered - ordered.mean()
    sums, squares = (np.append(0.0, np.cumsum(v))[edges] for v in (centred, centred**2))
    number = np.maximum(edges[None, :] - edges[:, None], 1)
    # [i, j]: of what lies between cuts i and j; what is not in order is never taken.
    cost = (squares[None, :] - squares[:, None]) - (sums[None, :] - sums[:, None]) ** 2 / number
    cost = np.where(np.tri(len(edges), dtype=bool), np.inf, np.maximum(cost, 0.0))
    least, came = cost[0], []
    for _ in range(min(count, len(edges) - 1) - 1):
        totals = least[:, None] + cost
        came.append(totals.argmin(0))
        least = np.take_along_axis(totals, came[-1][None], 0)[0]
    cuts = [len(edges) - 1]
    for before in reversed(came):
        cuts.append(int(before[cuts[-1]]))
    return edges[[0, *reversed(cuts)]]


def _means(ordered: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    cuts = np.unique(cuts)
    return np.add.reduceat(ordered, cuts[:-1]) / np.diff(cuts)


def _lloyd(ordered: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Move centres to the means of what is nearest to them until nothing changes."""
    cuts = np.array([0])
    for _ in range(_ROUNDS):
        found = np.unique(np.concatenate([[0], np.searchsorted(ordered, _middles(centres)), [len(ordered)]]))
        if np.array_equal(found, cuts):
            break
        cuts = found
        centres = _means(ordered, cuts)
    return centres


def _middles(centres: np.ndarray) -> np.ndarray:
    return centres[:-1] + np.diff(centres) / 2


def _spread(ordered: np.ndarray, centres: np.ndarray) -> float:
    return float(((ordered - centres[np.searchsorted(_middles(centres), ordered)]) ** 2).sum())
