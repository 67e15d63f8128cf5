"""Random binning: sparse features whose products are, on average, the Laplacian kernel.

Each of many grids cuts every feature into bins of a random width at a random offset; two rows meet
in a grid where they share the bin of every feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Grids:
    """Grids of one bandwidth: what a feature is divided by, the offsets, and what hashes the bins.

    Args:
        density: (grid, feature) bins a unit of the feature.
        offset: (grid, feature) between 0 and 1, in bins.
        factors: (grid, feature) odd numbers, for the hash.
    """

    density: np.ndarray
    offset: np.ndarray
    factors: np.ndarray


def grids(features: int, count: int, bandwidth: float, seed: int) -> Grids:
    """Draw grids for the kernel exp(-bandwidth |x - y|), with |.| the sum over features.

    The widths follow the density delta k''(delta), which for this kernel is that of Gamma(2) over
    the bandwidth. Those of the Fourier transform of a kernel would give another kernel.

    Example:
        >>> drawn = grids(3, 2000, 0.5, seed=0)
        >>> x = np.array([[0.0, 0.0, 0.0], [0.2, -0.4, 0.4]])
        >>> bins = hashed(x, drawn)
        >>> bool(abs((bins[0] == bins[1]).mean() - np.exp(-0.5)) < 0.03)
        True
    """
    rng = np.random.default_rng(seed)
    width = rng.gamma(2.0, size=(count, features))
    offset = rng.random((count, features))
    factors = rng.integers(0, 2**63, (count, features), dtype=np.uint64) * 2 + 1
    return Grids(bandwidth / width, offset, factors)


def hashed(x: np.ndarray, drawn: Grids) -> np.ndarray:
    """Return the bin of every row in every grid as a number, (row, grid).

    It is a hash modulo 2^64 of the bins of all features: two bins of a grid share it about never.
    """
    out = np.empty((len(x), len(drawn.density)), np.uint64)
    for k, (density, offset, factors) in enumerate(zip(drawn.density, drawn.offset, drawn.factors, strict=True)):
        bins = np.floor(x * density - offset).astype(np.int64).view(np.uint64)
        out[:, k] = bins @ factors
    return out


def binned(train: np.ndarray, *others: np.ndarray) -> tuple[sp.csr_array, ...]:
    """Return hashed rows as sparse features (row, bin), one of 1 / sqrt(grids) a grid.

    There is a feature for each bin that a row of `train` lies in; a row of `others` in a bin that
    none does has nothing for that grid.

    Args:
        train, others: (row, grid) of `hashed`.
    """
    count = train.shape[1]
    numbers = [np.empty(part.shape, np.int64) for part in (train, *others)]
    occupied = 0
    for k in range(count):
        there, numbers[0][:, k] = np.unique(train[:, k], return_inverse=True)
        for number, part in zip(numbers[1:], others, strict=True):
            at = np.minimum(np.searchsorted(there, part[:, k]), len(there) - 1)
            number[:, k] = np.where(there[at] == part[:, k], at, -1)
        for number in numbers:
            number[:, k] = np.where(number[:, k] >= 0, number[:, k] + occupied, -1)
        occupied += len(there)
    return tuple(_sparse(number, occupied) for number in numbers)


def _sparse(numbers: np.ndarray, columns: int) -> sp.csr_array:
    found = numbers >= 0
    ends = np.concatenate([[0], np.cumsum(found.sum(axis=1))])
    data = np.full(ends[-1], numbers.shape[1] ** -0.5)
    return sp.csr_array((data, numbers[found], ends), shape=(len(numbers), columns))
