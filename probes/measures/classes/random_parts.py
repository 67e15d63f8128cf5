"""Statistics of all pairs of very many texts: the mean over random parts of them.

Every text is in a part, and is compared with the texts of its own part alone. What each text does to
the value is then known from fewer pairs, which the draws of the parts have in them: they spread more
widely by what the pairs that are left out would have said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from probes.measures.classes.class_pairs import Parts, parts_of
from probes.results.draws import Sample
from probes.states.representations import BLOCK, states

MOST = 2**15  # texts of a group that are compared all with all
PART = 2**13  # of a part, about, where they are more
_FEW = 32  # units of a class that a part has at least; of smaller classes all
_NUMBERS = 2**26  # of a layer that are in memory at a time
_SEED = 0  # of the parts, which are the same for every model


def random_parts(drawn: Sample, rows: np.ndarray) -> list[np.ndarray]:
    """Return rows in random parts of about `PART`, which depend on ids and labels alone: whole units
    (ids, or groups), of every class evenly many.

    A class that has too few units for all parts is in several, or in all of them.
    """
    unit, of_row = np.unique(drawn.units[drawn.ids[rows]], return_inverse=True)
    label = np.full(len(unit), len(drawn.classes))
    np.minimum.at(label, of_row, drawn.label[rows])
    count = -(-len(rows) // PART)
    order = np.random.default_rng(_SEED).permutation(len(unit))
    order = order[np.argsort(label[order], kind="stable")]
    sizes = np.bincount(label)
    place = np.empty(len(unit), int)  # among the units of its class, at random
    place[order] = np.arange(len(unit)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    among = np.clip(sizes // _FEW, 1, count)[label]  # in how many ways its class is parted
    return [rows[(place % among == part % among)[of_row]] for part in range(count)]


def mean_over_parts(
    of: Callable[[np.ndarray, Parts, Sample], np.ndarray],
    reps: xr.Dataset,
    drawn: Sample,
    kept: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return what `by_layer` does, as the mean over random parts of every group.

    Some parts are in memory at a time, as they are stored: of very many texts a layer is read several
    times. All of them count, and in one order, so that the mean does not change with how many fit.
    """
    out = {group: np.zeros((len(drawn.weights), reps.sizes["layer"])) for group in kept}
    at_once = max(1, _NUMBERS // (PART * reps.sizes["feature"]))
    for group, rows in kept.items():
        every = [np.sort(part) for part in random_parts(drawn, rows)]
        for first in range(0, len(every), at_once):
            parts = every[first : first + at_once]
            there = np.unique(np.concatenate(parts))
            found = [(np.searchsorted(there, part), parts_of(drawn, part, among=part)) for part in parts]
            x = np.empty((len(there), reps.sizes["feature"]), reps["hidden"].dtype)
            for layer in range(reps.sizes["layer"]):
                for start in range(0, len(there), BLOCK):
                    x[start : start + BLOCK] = states(reps, layer, there[start : start + BLOCK])
                for at, one in found:
                    out[group][:, layer] += of(x[at].astype(np.float64), one, drawn)
        out[group] /= len(every)
    return out
