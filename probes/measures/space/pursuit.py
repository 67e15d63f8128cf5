"""Binary codes of rows from their products alone: splits of the rows in two, the best of them together, flips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

_STARTS, _STEPS, _SWEEPS = 256, 30, 100
_EXACT = 10  # codes up to which all combinations of a row's bits are tried
_LARGE = 1000  # rows from which the leading directions are found by Lanczos' method
_OWN = 0.05  # share of a code that must not follow from those that are chosen
_LEAST = 1e-9  # share of all squares below which a gain is rounding
_WORTH = 1e-6  # share of all squares for which bits are flipped once more


@dataclass(frozen=True)
class Codes:
    """Binary codes of rows, and what it takes to code others."""

    bits: np.ndarray  # (row, code) boolean
    left: list[float]  # share of the squares that is left after each step, never rising


def pursue(gram: np.ndarray, k: int, rng: np.random.Generator) -> Codes:
    """Find k binary codes of which rows are sums: X ~ mean + Z W, Z in {0, 1}, W by least squares.

    Candidates are halves of the rows along directions of the k leading components, each improved
    until its own direction splits the rows as it does. Two choices of k among them, by how well
    each lies in the components and by what each explains, are improved by exchange, then by
    flipping bits in turn with least squares; the better one is kept.

    Args:
        gram: (row, row) products of the rows, which need not be centred.
        k: at most so many; fewer where more of them explain nothing.
        rng: of the directions.

    Example:
        >>> bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(3, axis=0)
        >>> x = bits @ [[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]
        >>> bool(pursue(x @ x.T, 2, np.random.default_rng(0)).left[-1] < 1e-12)
        True
    """
    gram = centred(gram)
    bits, fits = _candidates(_leading(gram, k), rng)
    around = bits - bits.mean(axis=0)
    among, worth = around.T @ around, around.T @ gram @ around
    total = float(np.trace(gram))
    found = []
    for by in (fits, None):
        chosen, left = _chosen(among, worth, k, by, total)
        found.append(_flipped(gram, bits[:, chosen], left, total))
    return min(found, key=lambda one: (round(one.left[-1], 9), one.bits.shape[1], one.left[-1]))


def centred(gram: np.ndarray) -> np.ndarray:
    """Return the products of rows without their mean."""
    rows = gram.mean(axis=1, keepdims=True)
    out: np.ndarray = gram - rows - rows.T + rows.mean()
    return out


def halves(y: np.ndarray) -> np.ndarray:
    """Return the best two means of each column (row, column) of mean 0: which rows are in the upper.

    Example:
        >>> halves(np.array([[-1.0], [-0.9], [0.1], [1.8]])).ravel().tolist()
        [False, False, False, True]
    """
    ordered = -np.sort(-y, axis=0)
    upper = np.arange(1, len(y))[:, None]
    between = np.square(np.cumsum(ordered, axis=0)[:-1]) / (upper * (len(y) - upper))
    at = np.argmax(between, axis=0)
    out: np.ndarray = y >= np.take_along_axis(ordered, at[None], axis=0)
    return out


def features_of(gram: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least-squares features W of codes by their products, and of what rows they are sums.

    Args:
        gram: (row, row) centred products.
        bits: (row, code).

    Returns:
        (code, code) products of the features, (row, code) products of the rows with them, and
        (row, code) `mix`, W = mix.T @ X.
    """
    around = bits - bits.mean(axis=0)
    mix = around @ np.linalg.pinv(around.T @ around, hermitian=True)
    towards = gram @ mix
    return mix.T @ towards, towards, mix


def coded(towards: np.ndarray, products: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Return the bits z of each row that minimise z P z - 2 z t: all combinations of up to 10 codes,
    above that flips of single bits from those that are given, until none is better.

    Args:
        towards: (row, code) t, products of each row, less the constant, with the features.
        products: (code, code) P, of the features.
        bits: (row, code) to begin with, kept where others are not better.

    Example:
        >>> coded(np.array([[0.4, 0.6]]), np.eye(2), np.zeros((1, 2), bool)).tolist()
        [[False, True]]
    """
    k = bits.shape[1]
    bits, least = bits.copy(), _LEAST * max(float(np.abs(products).max(initial=0)), 1e-300)
    if k <= _EXACT:
        every = (np.arange(2**k)[:, None] >> np.arange(k) & 1).astype(bool)
        own = ((every @ products) * every).sum(axis=1)
        now = ((bits @ products) * bits - 2 * bits * towards).sum(axis=1)
        for start in range(0, len(bits), 4096):
            part = slice(start, start + 4096)
            cost = own - 2 * towards[part] @ every.T
            best = cost.argmin(axis=1)
            better = cost[np.arange(len(best)), best] < now[part] - least
            bits[part][better] = every[best[better]]
        return bits
    for _ in range(_SWEEPS):
        changed = False
        for code in range(k):
            others = bits @ products[:, code] - bits[:, code] * products[code, code]
            gain = products[code, code] + 2 * others - 2 * towards[:, code]  # of 1 in place of 0
            flip = np.where(bits[:, code], -gain, gain) < -least
            bits[flip, code] ^= True
            changed |= bool(flip.any())
        if not changed:
            break
    return bits


def _leading(gram: np.ndarray, k: int) -> np.ndarray:
    """The k leading components of rows, (row, component), without those that are rounding."""
    n = len(gram)
    if n > _LARGE:
        values, vectors = eigsh(gram, k=k, v0=np.cos(np.arange(n)))
    else:
        values, vectors = eigh(gram, subset_by_index=[max(n - k, 0), n - 1])
    some: np.ndarray = vectors[:, values > 1e-10 * values.max(initial=0)]
    # Orthogonal to the constant up to rounding, which the search for halves takes as given.
    return some - some.mean(axis=0)


def _candidates(components: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Splits of the rows in two (row, candidate), best first, and which share of each lies in the components."""
    directions = rng.normal(size=(components.shape[1], _STARTS))
    bits = halves(components @ directions)
    moving = np.arange(_STARTS)
    for _ in range(_STEPS):
        again = halves(components @ (components.T @ bits[:, moving]))
        changed = (again != bits[:, moving]).any(axis=0)
        bits[:, moving] = again
        moving = moving[changed]
        if not len(moving):
            break
    bits = np.unique(np.where(bits[:1], ~bits, bits), axis=1)  # a code and its complement are one
    share = bits.mean(axis=0)
    bits, share = bits[:, share > 0], share[share > 0]
    fits = np.square(components.T @ bits).sum(axis=0) / (len(bits) * share * (1 - share))
    order = np.argsort(-fits, kind="stable")
    return bits[:, order], fits[order]


def _gains(among: np.ndarray, worth: np.ndarray, chosen: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What each candidate explains beside those chosen, and which share of it does not follow from them."""
    one, own = np.diag(worth), np.diag(among)
    if not chosen:
        return one / own, np.ones(len(own))
    follows = np.linalg.pinv(among[np.ix_(chosen, chosen)], hermitian=True) @ among[chosen]
    rest = 1 - (among[chosen] * follows).sum(axis=0) / own
    left = (
        one
        - 2 * (worth[chosen] * follows).sum(axis=0)
        + (follows * (worth[np.ix_(chosen, chosen)] @ follows)).sum(axis=0)
    )
    gains = np.where(rest > _OWN, left / (own * np.where(rest > _OWN, rest, 1)), 0.0)
    return gains, rest


def _chosen(
    among: np.ndarray, worth: np.ndarray, k: int, by: np.ndarray | None, total: float
) -> tuple[list[int], list[float]]:
    """Up to k candidates, one by one, by a number of each or by what they explain; then exchanged
    one for one while that explains more. With the share of squares left after each step.
    """
    chosen: list[int] = []
    left = [1.0]
    while len(chosen) < k:
        gains, _ = _gains(among, worth, chosen)
        allowed = gains > _LEAST * total
        if not allowed.any():
            break
        best = int(np.argmax(np.where(allowed, gains if by is None else by, -np.inf)))
        chosen.append(best)
        left.append(left[-1] - gains[best] / total)
    for _ in range(_SWEEPS):
        before = list(chosen)
        for place, code in enumerate(before):
            others = chosen[:place] + chosen[place + 1 :]
            gains, _ = _gains(among, worth, others)
            best = int(np.argmax(gains))
            if gains[best] > gains[code] + _LEAST * total:
                chosen[place] = best
                left.append(left[-1] - (gains[best] - gains[code]) / total)
        if chosen == before:
            break
    return chosen, left


def _flipped(gram: np.ndarray, bits: np.ndarray, left: list[float], total: float) -> Codes:
    """Bits of each row and features by least squares in turn, while either explains more."""
    left = list(left)
    products, towards, _ = features_of(gram, bits)
    for _ in range(_SWEEPS):
        flipped = coded(towards + bits.mean(axis=0) @ products, products, bits)
        products, towards, _ = features_of(gram, flipped)
        now = 1 - _squares(flipped, products) / total
        if now > left[-1] - _LEAST:
            break
        bits = flipped
        left.append(now)
        if now > left[-2] - _WORTH:
            break
    # In order of what is lost without each, and as few rows as can be have a code.
    bits = bits[:, bits.any(axis=0) & ~bits.all(axis=0)]
    bits = np.where(bits.mean(axis=0) > 0.5, ~bits, bits)
    around = bits - bits.mean(axis=0)
    among, worth = around.T @ around, around.T @ gram @ around
    explained = []
    for code in range(len(among)):
        others: np.ndarray = np.delete(np.arange(len(among)), code)
        inverse = np.linalg.pinv(among[np.ix_(others, others)], hermitian=True)
        explained.append(float((inverse * worth[np.ix_(others, others)]).sum()))
    return Codes(bits[:, np.argsort(np.array(explained), kind="stable")], left)


def _squares(bits: np.ndarray, products: np.ndarray) -> float:
    """The squares that codes with features of these products add up to."""
    around = bits - bits.mean(axis=0)
    return float(((around.T @ around) * products).sum())


def left_over(gram: np.ndarray, bits: np.ndarray) -> float:
    """Return the share of squares that codes leave, with features by least squares.

    Example:
        >>> bits = np.array([[0], [0], [1], [1]])
        >>> round(left_over(centred(bits @ bits.T), bits), 9)
        0.0
    """
    return 1 - _squares(bits, features_of(gram, bits)[0]) / float(np.trace(gram))
