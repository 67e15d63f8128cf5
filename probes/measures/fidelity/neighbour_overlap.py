"""Do examples have the same nearest neighbours?"""

from __future__ import annotations

from functools import partial

import numpy as np

from probes.measures.fidelity.layer_pairs import ENTRIES, Measure, by_pair

NEIGHBOURS = 10


def _neighbours(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest others of every example (example, NEIGHBOURS), and the one that would be next
    (example,).
    """
    found = np.empty((len(x), NEIGHBOURS), np.int64)
    following = np.full(len(x), -1)
    last = min(NEIGHBOURS, len(x) - 2)
    step = max(1, ENTRIES // 8 // len(x))
    for lo in range(0, len(x), step):
        distance = x[lo : lo + step] @ -x.T
        own = np.arange(len(distance))
        distance[own, own + lo] = np.inf
        order = np.argpartition(distance, (NEIGHBOURS - 1, last), axis=1)
        found[lo : lo + step] = order[:, :NEIGHBOURS]
        if last == NEIGHBOURS:
            following[lo : lo + step] = order[:, NEIGHBOURS]
    return found, following


def _overlap(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> tuple[float, np.ndarray]:
    (near_x, next_x), (near_y, next_y) = x, y
    same = near_x[:, :, None] == near_y[:, None, :]
    in_both, there = same.any(axis=2), same.any(axis=1)
    shared = in_both.sum(axis=1)
    # An example also acts as a neighbour of others: without it, the next one would take its place.
    gain_x = (next_x[:, None] == near_y).any(axis=1)
    gain_y = (next_y[:, None] == near_x).any(axis=1)
    gain_both = gain_x + gain_y + ((next_x == next_y) & (next_x >= 0)) - 1.0
    without_x = np.where(in_both, gain_both[:, None], gain_x[:, None])
    without_y = np.where(there, 0.0, gain_y[:, None])
    kept = np.bincount(near_x.ravel(), without_x.ravel(), minlength=len(shared))
    kept += np.bincount(near_y.ravel(), without_y.ravel(), minlength=len(shared))
    return float(shared.mean()) / NEIGHBOURS, (shared - kept) / NEIGHBOURS


NEIGHBOUR_OVERLAP = partial(
    Measure,
    name="neighbour_overlap",
    title="shared neighbours",
    estimator=f"share of the {NEIGHBOURS} nearest neighbours by cosine that both have",
    range=f"0 to 1; chance is {NEIGHBOURS} / (n - 1)",
    unchanged_by=("rotation of either", "common scale of either", "length of each vector of either", "order"),
    fewest=NEIGHBOURS + 1,
    of_directions=True,
    between=partial(by_pair, _neighbours, _overlap, True),
)
