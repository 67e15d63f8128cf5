"""Ranks by a budget: of the parameters that are left, to each matrix what it gains most by."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping

import torch

from compress.factorization.factors import tails_of
from compress.factorization.low_rank import LowRank
from compress.factorization.tensor_train import TensorTrain, train_parameters
from probes.errors import InputError

_WHOLE = -1  # in place of a cut: all of a matrix that is left
_LITTLE = 1e-9  # in place of no parameters


def ranks_by_budget(
    parts: Mapping[str, LowRank | TensorTrain], budget: float, shares: bool
) -> dict[str, list[int] | None]:
    """The ranks of all matrices, None for a whole one, that take a share of their parameters.

    Greedy: of the next components of all matrices, the one of most energy for each parameter comes
    first, as it is or as its share of that of its matrix.
    """
    energies = {name: part.energies for name, part in parts.items()}
    if shares:
        energies = {name: [e / e.sum().clamp_min(torch.finfo(e.dtype).tiny) for e in energies[name]] for name in parts}
    whole = {name: part.matrix.values.numel() for name, part in parts.items()}
    ranks: dict[str, list[int] | None] = {name: [1] * len(energies[name]) for name in parts}
    used = {name: train_parameters(part.sizes, [1] * len(energies[name])) for name, part in parts.items()}
    for name in parts:
        if used[name] > whole[name]:
            ranks[name], used[name] = None, whole[name]
    left = math.floor(budget * sum(whole.values()) + 1e-9) - sum(used.values())
    if left < 0:
        raise InputError(
            f"budget={budget}: rank 1 in every matrix takes {sum(used.values()) / sum(whole.values()):.1%} of the "
            "parameters already. Ask for more, or choose some of the matrices with only="
        )
    tails = {name: [tails_of(e) for e in energies[name]] for name in parts}

    def next_of(name: str) -> tuple[float, int, int]:
        """Energy, parameters and cut of the next component of a matrix."""
        now, sizes = ranks[name] or [], parts[name].sizes
        lost = [float(tail[rank]) for tail, rank in zip(tails[name], now, strict=True)]
        cut, around = lost.index(max(lost)), [1, *now, 1]
        cost = sizes[cut] * around[cut] + sizes[cut + 1] * around[cut + 2]
        if used[name] + cost > whole[name]:
            return sum(lost), whole[name] - used[name], _WHOLE
        return float(energies[name][cut][now[cut]]) if lost[cut] else 0.0, cost, cut

    names = [name for name in parts if ranks[name] is not None]
    queue: list[tuple[float, int]] = []  # minus the energy for each parameter, and the matrix

    def push(number: int) -> None:
        gained, cost, _ = next_of(names[number])
        if gained > 0:
            heapq.heappush(queue, (-gained / max(cost, _LITTLE), number))

    for number in range(len(names)):
        push(number)
    while queue:
        _, number = heapq.heappop(queue)
        name = names[number]
        _, cost, cut = next_of(name)
        if cost > left:
            continue
        left, used[name] = left - cost, used[name] + cost
        now = ranks[name]
        if cut == _WHOLE:
            ranks[name] = None
        elif now is not None:
            now[cut] += 1
            push(number)
    return ranks
