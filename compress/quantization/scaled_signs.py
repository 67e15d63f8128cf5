"""Weights of two or three values, a sign times a step: the step of least squares, exactly."""

from __future__ import annotations

import torch

from probes.errors import InputError
from probes.models.formats.quantized_inputs import exact_step


def binary_step(rows: torch.Tensor) -> torch.Tensor:
    """Return the step of each row by which its signs come nearest to it: its mean size.

    Args:
        rows: (row, number), float32 and finite.

    Returns:
        (row, 1), rounded to 16 significant bits as every step is; 0 for a row of zeros.

    Notes:
        That of XNOR-Net, Rastegari, Ordonez, Redmon and Farhadi 2016, arXiv 1603.05279, there one a
        filter. Of 0 the sign is +.

    Example:
        >>> binary_step(torch.tensor([[-1.0, 0.5, 3.0]]))
        tensor([[1.5000]])

    See also:
        `compress.quantization.quantizers.quantize_tensor`.
    """
    sizes = rows.abs().mean(1, keepdim=True, dtype=torch.float64)
    return torch.where(sizes > 0, exact_step(sizes.float()), 0.0)


def ternary_step(rows: torch.Tensor) -> torch.Tensor:
    """Return the step of each row by which -1, 0 and 1 times it come nearest to the row.

    Args:
        rows: (row, number), float32 and finite.

    Returns:
        (row, 1), rounded to 16 significant bits as every step is.

    Notes:
        Of the k largest sizes the best step is their mean, and k is what makes (their sum)^2 / k
        largest; the others lie below half of it, so that rounding to nearest finds them. Ternary
        weight networks, Li, Zhang and Liu 2016, arXiv 1605.04711, take 0.7 times the mean size for
        the threshold instead, near the best of a normal row.

    Example:
        >>> ternary_step(torch.tensor([[-1.0, 0.1, 3.0, 3.0]]))
        tensor([[3.]])

    See also:
        `compress.quantization.quantizers.quantize_tensor`.
    """
    sums = rows.abs().double().sort(1, descending=True).values.cumsum(1)
    counts = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    best = (sums.square() / counts).argmax(1, keepdim=True)  # of equal ones the fewest
    return exact_step((sums.gather(1, best) / (best + 1)).float())


def signs_of(values: torch.Tensor) -> torch.Tensor:
    """Return -1 for what is below 0, and 1 for what is not.

    Example:
        >>> signs_of(torch.tensor([-0.2, 0.0, 7.0]))
        tensor([-1.,  1.,  1.])
    """
    return torch.where(values < 0, -1.0, 1.0)


def check_signs(bits: int, ranges: str, symmetric: bool) -> None:
    """Raise `InputError` where 1 bit is asked for with another step than that of least squares."""
    if bits == 1 and (ranges != "least_squares" or not symmetric):
        raise InputError(
            "bits=1 leaves of a weight its sign times a step, which is that of least squares: give "
            f"ranges='least_squares' and symmetric=True, found ranges={ranges!r} and symmetric={symmetric}"
        )
