"""Matrices that are no parameters of their own: a part of one, or one in another shape."""

from __future__ import annotations

import torch
from torch import nn


class MatrixView:
    """A matrix that a parameter holds among others, or in another shape.

    It is read and written through `detach`, as a parameter is, and knows its part of the gradient.

    Attributes:
        number: which of the matrices of the parameter it is, -1 for the only one.
        inputs_first: whether it holds its inputs along the first dimension.
    """

    number = -1
    inputs_first = False

    @property
    def stack(self) -> nn.Parameter:
        """The parameter that holds it."""
        raise NotImplementedError

    def part(self, whole: torch.Tensor) -> torch.Tensor:
        """Return of something in the shape of the parameter what is of the matrix, in its shape."""
        raise NotImplementedError

    @property
    def grad(self) -> torch.Tensor | None:
        """Its part of the gradient."""
        return None if self.stack.grad is None else self.part(self.stack.grad)

    def detach(self) -> torch.Tensor:
        """Return its values, which share memory with the model's."""
        return self.part(self.stack.detach())

    @property
    def shape(self) -> torch.Size:
        """Of the matrix."""
        return self.detach().shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix."""
        return self.stack.dtype

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.stack.device

    def numel(self) -> int:
        """Return how many weights it has."""
        return self.shape.numel()

    def element_size(self) -> int:
        """Return how many bytes a weight takes."""
        return self.stack.element_size()
