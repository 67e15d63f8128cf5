"""Patterns of zeros that hardware can skip: of every m inputs side by side a unit keeps n."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from compress.pruning.criteria import behind
from probes.errors import InputError


def read_pattern(pattern: str, sparsity: float) -> tuple[int, int]:
    """Return how many of how many inputs a pattern keeps; raise `InputError` where it is none, or
    does not give the sparsity.

    Example:
        >>> read_pattern("2:4", 0.5)
        (2, 4)
    """
    found = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    keep, among = (int(number) for number in found.groups()) if found else (0, 0)
    if not 0 < keep < among:
        raise InputError(f"pattern={pattern!r}: expected how many of so many inputs stay, as '2:4'")
    if abs(sparsity - (1 - keep / among)) > 1e-9:
        raise InputError(
            f"pattern={pattern!r} makes {1 - keep / among:.4g} of the weights zero, and sparsity={sparsity}: give "
            f"sparsity={1 - keep / among:.4g}"
        )
    return keep, among


def check_width(width: int, pattern: tuple[int, int], name: str) -> None:
    """Raise `InputError` where a pattern does not divide the inputs of a matrix."""
    if width % pattern[1]:
        raise InputError(
            f"{name}: pattern='{pattern[0]}:{pattern[1]}' does not divide its {width} inputs. Take another, or leave "
            "it out by only="
        )


def by_pattern(
    score: Mapping[str, torch.Tensor],
    kept: Mapping[str, torch.Tensor],
    keep: int,
    among: int,
    transposed: Mapping[str, bool],
) -> dict[str, torch.Tensor]:
    """Return which weights stay (True): of every so many inputs of a unit those that score highest.

    Those that are gone stay gone; of equal ones the last go.

    Args:
        score, kept: by name, in the shape of the matrices.
        keep, among: of `among` inputs side by side `keep` stay, or fewer where more are gone.
        transposed: which matrices hold their inputs along the first dimension.

    Example:
        >>> score = {"w": torch.tensor([[3.0, 1.0, 2.0, 4.0]])}
        >>> by_pattern(score, {"w": torch.ones(1, 4).bool()}, 2, 4, {"w": False})["w"].tolist()
        [[True, False, False, True]]
    """
    out = {}
    for name, s in score.items():
        ranked = behind(s, kept[name])
        units = ranked.T if transposed[name] else ranked
        groups = units.reshape(len(units), -1, among)
        first = groups.argsort(dim=-1, descending=True, stable=True)[..., :keep]
        stays = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, first, True).reshape(units.shape)
        out[name] = (stays.T if transposed[name] else stays) & kept[name]
    return out
