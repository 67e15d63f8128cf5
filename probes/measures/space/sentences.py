"""Rows as sentences: translations of one lie together, how many make up a geometry, and what most measures say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from probes.measures.probe import LARGE, Probe

FEWEST_IDS = 4  # an unbiased square of a covariance takes four sentences
# What separates equal inputs that ran in different batches: a few roundings of their states.
ROUNDING = 4 * float(np.finfo(np.float32).eps)

# A declaration of a measure of geometry, as far as its own file has it: what most of them say.
of_geometry = partial(
    Probe,
    range="0 to infinity",
    higher_is="more dimensions",
    unchanged_by=("rotation", "shift", "common scale", "order"),
    family="geometry",
    interval=LARGE,
)


@dataclass(frozen=True)
class Sentences:
    """Rows sorted by sentence: where each one starts, and how many rows (translations) it has."""

    ids: np.ndarray  # (row,) codes, columns of the weights
    starts: np.ndarray  # (sentence,)
    counts: np.ndarray  # (sentence,)

    @classmethod
    def of(cls, ids: np.ndarray) -> Sentences:
        """Return those of sorted rows."""
        return cls(ids, *np.unique(ids, return_index=True, return_counts=True)[1:])

    @property
    def there(self) -> np.ndarray:
        """The id of every sentence: (sentence,)."""
        return self.ids[self.starts]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Add up the rows (row, ...) of every sentence: (sentence, ...)."""
        return values if len(self.starts) == len(self.ids) else np.add.reduceat(values, self.starts, axis=0)

    def by_size(self) -> Iterator[np.ndarray]:
        """Yield the rows (sentence, row) of all sentences with one number of rows."""
        for size in np.unique(self.counts):
            yield self.starts[self.counts == size][:, None] + np.arange(size)
