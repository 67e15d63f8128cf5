"""A matrix as the cores of a tensor train: its digits, TT-SVD, and the sizes of the cores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from compress.factorization.factors import Factors, Matrix, least_rank, ratio, relative_error, tails_of
from probes.models.formats.factorized import (
    from_cores,
)

_CORES = 3


def balanced(size: int, parts: int = _CORES) -> tuple[int, ...]:
    """Return ascending whole numbers whose product is `size`, the largest as small as can be.

    Of several such the one whose smallest number is largest. A prime number gives itself and ones.

    Example:
        >>> balanced(128), balanced(768), balanced(13)
        ((4, 4, 8), (8, 8, 12), (1, 1, 13))

    See also:
        `factorize`.
    """

    def splits(size: int, parts: int, least: int) -> list[tuple[int, ...]]:
        if parts == 1:
            return [(size,)] if size >= least else []
        found = []
        for first in range(least, math.floor(size ** (1 / parts) + 1e-9) + 1):
            if size % first == 0:
                found += [(first, *rest) for rest in splits(size // first, parts - 1, first)]
        return found

    return min(splits(size, parts, 1), key=lambda found: (found[-1], tuple(-f for f in found)))


def tensor_train(
    matrix: torch.Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    *,
    ranks: Sequence[int] | None = None,
    energy: float = 1.0,
) -> tuple[list[torch.Tensor], list[float]]:
    """Cut a matrix into the cores of a tensor train, by TT-SVD.

    Args:
        matrix: (row, column), of the sizes that the products of `rows` and `columns` are.
        rows, columns: the bases of the digits that rows and columns are counted by, one of each a
            core.
        ranks: the most between two cores, one less than there are cores.
        energy: where no ranks are given, the share of the squared norm that is kept at least; every
            cut may lose an equal part of the rest.

    Returns:
        The cores (rank before, row, column, rank after) in float64, all of one norm, and for each
        cut the norm of the singular values that were discarded. The error is the root of the sum of
        their squares.

    Example:
        >>> import torch
        >>> matrix = torch.kron(torch.ones(2, 4), torch.arange(6.0).view(3, 2))
        >>> cores, lost = tensor_train(matrix, (2, 3), (4, 2), ranks=(1,))
        >>> [tuple(core.shape) for core in cores], lost[0] < 1e-12
        ([(1, 2, 4, 1), (1, 3, 2, 1)], True)

    See also:
        `factorize`, `tensor_train_lstm`.
    """
    count = len(rows)
    rest = _digits(matrix.detach().cpu().double(), rows, columns)
    allowed = (1 - energy) * float(rest.square().sum()) / max(1, count - 1)
    cores, lost, before = [], [], 1
    for k in range(count - 1):
        left, values, right = torch.linalg.svd(rest.reshape(before * rows[k] * columns[k], -1), full_matrices=False)
        tails = tails_of(values.square())
        rank = least_rank(tails, allowed) if ranks is None else min(ranks[k], len(values))
        cores.append(left[:, :rank].reshape(before, rows[k], columns[k], rank))
        lost.append(math.sqrt(float(tails[rank])))
        rest, before = values[:rank, None] * right[:rank], rank
    cores.append(rest.reshape(before, rows[-1], columns[-1], 1))
    norms = [float(core.norm()) for core in cores]
    if all(norms):
        mean = math.prod(norms) ** (1 / count)
        cores = [core * (mean / norm) for core, norm in zip(cores, norms, strict=True)]
    return cores, lost


class TensorTrain:
    """A matrix as a tensor train."""

    def __init__(self, matrix: Matrix) -> None:
        """Args: the matrix; the sizes of the cores follow from its own."""
        self.matrix = matrix
        outputs, inputs = matrix.values.shape
        self.rows = filled_sizes(outputs) if matrix.embedding else balanced(outputs)
        self.columns = balanced(inputs)[::-1]
        self.sizes = [r * c for r, c in zip(self.rows, self.columns, strict=True)]

    @property
    def filled(self) -> torch.Tensor:
        """The matrix, filled up with rows of zeros."""
        lacking = math.prod(self.rows) - len(self.matrix.values)
        return torch.nn.functional.pad(self.matrix.values.double(), (0, 0, 0, lacking))

    @property
    def energies(self) -> list[torch.Tensor]:
        """Squared singular values of the matrix unfolded at each cut."""
        digits = _digits(self.filled, self.rows, self.columns)
        cuts = [math.prod(self.sizes[: k + 1]) for k in range(_CORES - 1)]
        return [torch.linalg.svdvals(digits.reshape(cut, -1)).square() for cut in cuts]

    def full(self) -> list[int]:
        """Return the ranks at which nothing is lost, of each cut."""
        cuts = [math.prod(self.sizes[: k + 1]) for k in range(_CORES - 1)]
        return [min(cut, math.prod(self.sizes) // cut) for cut in cuts]

    def ranks(self, rank: int | None, energy: float | None) -> list[int]:
        """Return the ranks asked for, or those that keep this share of the energy."""
        if rank is not None:
            return [min(rank, full) for full in self.full()]
        assert energy is not None
        cores, _ = tensor_train(self.filled, self.rows, self.columns, energy=energy)
        return [core.shape[3] for core in cores[:-1]]

    def saves(self, ranks: Sequence[int]) -> bool:
        """Return whether cores of these ranks take no more parameters than the matrix."""
        return train_parameters(self.sizes, ranks) <= self.matrix.values.numel()

    def cut(self, ranks: Sequence[int]) -> Factors:
        """Return the cores of these ranks."""
        cores, lost = tensor_train(self.filled, self.rows, self.columns, ranks=ranks)
        found = [core.shape[3] for core in cores[:-1]]
        settings = {"rows": list(self.rows), "columns": list(self.columns), "ranks": found}
        energy = float(self.filled.square().sum())
        about = {
            "rank": found,
            "energy": 1.0 - ratio(sum(part**2 for part in lost), energy),
            "relative_error": relative_error(self.filled, from_cores(cores)),
            "parameters": train_parameters(self.sizes, found),
        }
        return Factors(settings, cores, about)


def train_parameters(sizes: Sequence[int], ranks: Sequence[int]) -> int:
    """Return how many numbers cores of these sizes hold, with these ranks between them."""
    around = [1, *ranks, 1]
    return sum(size * around[k] * around[k + 1] for k, size in enumerate(sizes))


def filled_sizes(size: int) -> tuple[int, ...]:
    """Numbers near the cube root of a size whose product is the size or little above."""
    out, rest = [], size
    for parts in range(_CORES, 0, -1):
        out.append(next(n for n in range(max(1, math.floor(rest ** (1 / parts))), rest + 1) if n**parts >= rest))
        rest = -(-rest // out[-1])
    return tuple(out)


def _digits(matrix: torch.Tensor, rows: Sequence[int], columns: Sequence[int]) -> torch.Tensor:
    """A matrix as a tensor with its digits side by side: (row 1, column 1, row 2, ...)."""
    count = len(rows)
    return matrix.reshape(*rows, *columns).permute([k + side * count for k in range(count) for side in (0, 1)])
