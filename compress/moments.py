"""What a matrix is fed on texts, as its second moments, and what a change of its weights costs there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from probes.errors import InputError


@dataclass
class Moments:
    """Sums over what a matrix is fed, token by token.

    Attributes:
        products: (input, input), the sum of outer products, in float64.
        sizes: (input,), the sum of sizes |x|, in float64.
        tokens: how many there were; 0 where none reached it, all inputs then count the same.
    """

    products: torch.Tensor
    sizes: torch.Tensor
    tokens: int = 0

    @classmethod
    def none(cls, width: int, device: torch.device | None = None) -> Moments:
        """Return what is known of inputs before any was seen: they count the same, each for itself."""
        ones = torch.ones(width, dtype=torch.float64, device=device)
        return cls(ones.diag(), ones)

    @classmethod
    def of(cls, x: torch.Tensor) -> Moments:
        """Return those of some tokens (token, input).

        Example:
            >>> Moments.of(torch.tensor([[1.0, -2.0], [3.0, 0.0]])).products.tolist()
            [[10.0, -2.0], [-2.0, 4.0]]
        """
        x = x.float()
        return cls((x.T @ x).double(), x.abs().sum(0, dtype=torch.float64), len(x))

    def add(self, other: Moments) -> None:
        """Take in further tokens."""
        if self.tokens:
            self.products += other.products
            self.sizes += other.sizes
        else:
            self.products, self.sizes = other.products.clone(), other.sizes.clone()
        self.tokens += other.tokens

    def check(self, name: str) -> None:
        """Raise `InputError` where what came in was NaN or infinite."""
        if not self.products.isfinite().all():
            raise InputError(f"{name}: its inputs are not finite, so nothing is fitted on them. Look at the weights")


def check_damping(damping: float) -> None:
    """Raise `InputError` where damping cannot be."""
    if isinstance(damping, bool) or not isinstance(damping, int | float) or not 0 <= damping < math.inf:
        raise InputError(f"damping={damping!r}: expected a share of the mean square of inputs, at least 0, as 0.01")


def factor(products: torch.Tensor, damping: float, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how an error in one input of a matrix is made good by the inputs after it.

    With H = products + damping * mean(diagonal) * I = R R^T, R upper triangular, errors e of the
    weights of a unit cost sum_k (R_kk (e_k + sum_{i<k} share_ki e_i))^2. So weights that are fixed
    one after the other each have one best value, given the errors before it, and the inverse of H,
    by which GPTQ and SparseGPT are written, is never needed: theirs is R^-1.

    Args:
        products: (input, input), symmetric, as `Moments` has it.
        damping: share of the mean of the diagonal that is added to it.
        name: what the matrix is called in messages.

    Returns:
        `share` (input, input), lower triangular with ones on the diagonal, and `weight` (input,),
        R_kk^2, both in float32.

    Raises:
        InputError: the products are not positive definite, and damping does not make them so.

    Example:
        >>> share, weight = factor(torch.tensor([[2.0, 1.0], [1.0, 1.0]]).double(), 0.0, "w")
        >>> share.tolist(), weight.tolist()
        ([[1.0, 0.0], [1.0, 1.0]], [1.0, 1.0])
    """
    damped = products.clone()
    diagonal = damped.diagonal()
    mean = float(diagonal.mean())
    diagonal += damping * mean if mean else 1.0
    diagonal[diagonal == 0] = 1.0  # an input that is always 0, where nothing is added
    # Cholesky's factor of the same with its inputs the other way round is R the other way round.
    lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
    if failed:
        raise InputError(
            f"{name}: damping={damping}: the second moments of its {len(products)} inputs have no inverse, as where "
            "there are fewer tokens than inputs. Give damping=0.01, or more texts"
        )
    upper = lower.flip(0, 1)
    ends = upper.diagonal()
    return (upper / ends).T.float().contiguous(), ends.square().float()


def squared_error(change: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """Return what a change of a matrix costs each of its units: the sum of squared changes of its
    output over the tokens that were seen.

    Args:
        change: (unit, input), the new weights less the old.
        products: (input, input), as `Moments` has it.

    Returns:
        (unit,), in float32.

    Example:
        >>> x, change = torch.randn(9, 3), torch.randn(2, 3)
        >>> error = squared_error(change, Moments.of(x).products)
        >>> torch.allclose(error, (x @ change.T).square().sum(0), rtol=1e-4)
        True
    """
    return ((change @ products.float()) * change).sum(1)
