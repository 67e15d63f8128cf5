"""Whether the states of neighbours in a corpus are more alike than chance makes them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from probes.order import MOST, neighbours_agree
from probes.states.representations import states


def alike_in_order(reps: xr.Dataset) -> list[str]:
    """Return the languages in which neighbours in the corpus are far more alike than by chance.

    By the last layer; where there are labels, by what is left of the states without the means of
    their classes, so that a corpus in order of its labels is none for that alone.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> articles = np.repeat(rng.normal(size=(50, 8)), 4, axis=0) + rng.normal(size=(200, 8))
        >>> alike_in_order(probes.from_arrays(articles))
        ['und']
        >>> alike_in_order(probes.from_arrays(rng.permutation(articles)))
        []
    """
    found = []
    for language in dict.fromkeys(reps["language"].values):
        rows = np.flatnonzero(reps["language"].values == language)[:MOST]
        x = states(reps, -1, rows)
        if not np.isfinite(x).all():
            continue
        if "label" in reps.coords:
            classes = pd.factorize(reps["label"].values[rows])[0]
            of_class = np.eye(classes.max() + 1)[classes]
            x = x - (of_class @ ((of_class.T @ x) / of_class.sum(axis=0)[:, None]))
        if neighbours_agree(x):
            found.append(str(language))
    return found
