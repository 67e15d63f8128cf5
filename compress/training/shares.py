"""In which order rows are trained on where groups of them are to come alike often."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from probes.errors import InputError


class EqualShares(Sampler[int]):
    """Rows in an order in which each group comes alike often, in every stretch of as many rows as groups.

    One time through has as many rows as there are. Rows of a small group come several times in it,
    each as often as the others but for one time; of a large group some do not come, others each time
    through.

    Args:
        groups: of each row.
        seed: of the order, with the number of the time through.

    Example:
        >>> order = EqualShares(["a", "a", "a", "a", "a", "b"], seed=0)
        >>> [["a", "a", "a", "a", "a", "b"][row] for row in order].count("b")
        3
    """

    def __init__(self, groups: Sequence[object], seed: int) -> None:
        """Begin with the first time through."""
        names, of = np.unique(np.asarray(groups, str), return_inverse=True)
        self.rows = [np.flatnonzero(of == group) for group in range(len(names))]
        self.count, self.seed, self.epoch = len(of), seed, 0

    def __len__(self) -> int:
        """Return how many rows one time through has."""
        return self.count

    def set_epoch(self, epoch: int) -> None:
        """Say how often all was gone through before."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Give the numbers of rows in their order."""
        rng = np.random.default_rng([self.seed, self.epoch])
        groups = len(self.rows)
        rounds = rng.permuted(np.tile(np.arange(groups), (math.ceil(self.count / groups), 1)), axis=1)
        group = rounds.ravel()[: self.count]
        order = np.empty(self.count, int)
        for number, rows in enumerate(self.rows):
            at = np.flatnonzero(group == number)
            order[at] = np.concatenate([rng.permutation(rows) for _ in range(math.ceil(len(at) / len(rows)))] or [at])[
                : len(at)
            ]
        yield from order.tolist()


def equal_shares(rows: Sequence[Mapping[str, Any]], column: str | None, seed: int) -> EqualShares | None:
    """Return the order in which the groups that a column names come alike often; None without one.

    Args:
        rows: what is trained on, each with what the column holds beside it.
        column: its name.
        seed: of the training.

    Raises:
        InputError: there is no such column, or a cell of it is null; there is one group; rows hold
            several texts.
    """
    if column is None:
        return None
    if "segments" in rows[0]:
        raise InputError(
            f"balanced={column!r}: rows hold several texts, which may be of several groups: give packed=False to the "
            "objective, or leave it out"
        )
    beside = [row.get("beside", {}) for row in rows]
    groups = [found.get(column) for found in beside]
    if None in groups:
        at = groups.index(None)
        what = "is null" if column in beside[at] else "is missing"
        raise InputError(
            f"balanced={column!r}: the column {what} in row {at} of those trained on: give each text its group, or "
            "name another column of the corpus"
        )
    found = EqualShares(groups, seed)
    if len(found.rows) < 2:
        raise InputError(
            f"balanced={column!r}: all {len(rows)} texts are of the group {str(groups[0])!r}: expected at least two "
            "groups; give another column, or leave it out"
        )
    return found
