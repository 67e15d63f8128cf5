"""A matrix as the product of two of low rank: by its singular values, also over its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from compress.factorization.factors import Factors, Matrix, least_rank, ratio, relative_error, tails_of

_RIDGE = 1e-6  # of the mean second moment


class LowRank:
    """A matrix by its singular values, over what it gives for inputs of some second moment."""

    def __init__(self, matrix: Matrix, moment: torch.Tensor | None) -> None:
        """Args: the matrix; the second moment of its inputs or its diagonal, None for ones."""
        self.matrix = matrix
        given = self.map if moment is None else _times_root(self.map, moment)
        self.left, values, _ = torch.linalg.svd(given, full_matrices=False)
        self.energies = [values.square()]
        self.sizes = [self.map.shape[1], self.map.shape[0]]

    @property
    def map(self) -> torch.Tensor:
        """From inputs to outputs, which for an embedding are tokens and features."""
        values = self.matrix.values.double()
        return values.T if self.matrix.embedding else values

    def full(self) -> list[int]:
        """Return the rank at which nothing is lost."""
        return [min(self.sizes)]

    def ranks(self, rank: int | None, energy: float | None) -> list[int]:
        """Return the rank asked for, or the lowest that keeps this share of the energy."""
        if rank is not None:
            return [rank]
        assert energy is not None
        tails = tails_of(self.energies[0])
        return [least_rank(tails, (1 - energy) * float(tails[0]))]

    def saves(self, ranks: Sequence[int]) -> bool:
        """Return whether factors of this rank take no more parameters than the matrix."""
        return ranks[0] * sum(self.sizes) <= self.matrix.values.numel()

    def cut(self, ranks: Sequence[int]) -> Factors:
        """Return the factors of this rank."""
        rank = ranks[0]
        whole, second = self.map, self.left[:, :rank]
        first = second.T @ whole
        # Components of equal norms in both, where they are not zero.
        norms = first.norm(dim=1).sqrt()
        norms = torch.where(norms > 0, norms, 1)
        first, second = first / norms[:, None], second * norms
        tails = tails_of(self.energies[0])
        about = {
            "rank": rank,
            "energy": 1.0 - ratio(float(tails[rank]), float(tails[0])),
            "relative_error": relative_error(whole, second @ first),
            "parameters": rank * sum(self.sizes),
        }
        return Factors({"rank": rank}, [first, second], about)


def _times_root(matrix: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """A map times a root of the second moment of its inputs, whole or its diagonal."""
    if moment.ndim == 1:
        return matrix * (moment + _RIDGE * moment.mean()).sqrt()
    values, vectors = torch.linalg.eigh(moment)
    return (matrix @ vectors) * (values.clamp_min(0) + _RIDGE * values.mean()).sqrt()
