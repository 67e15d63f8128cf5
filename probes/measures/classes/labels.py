"""What the probes of labels share: bare arrays as a sample, and what classes must be there."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from probes.errors import InputError
from probes.measures.probe import Probe, Run
from probes.results.draws import Sample
from probes.states.representations import as_numbers, as_strings


def labelled(x: npt.ArrayLike, labels: npt.ArrayLike | None) -> tuple[np.ndarray, Sample]:
    """Return states (example, feature) in float64, and their classes as a sample without draws.

    Raises:
        InputError: an array has another shape or holds no numbers; a label is missing; there is
            only one class.
    """
    if labels is None:
        raise InputError("expected labels beside the array, one a row: probe(x, labels)")
    states = as_numbers(x)
    if states.ndim != 2 or 0 in states.shape or states.dtype.kind not in "fiub":
        raise InputError(f"expected an array (example, feature) of numbers; found {states.dtype} {states.shape}")
    given = np.asarray(labels, dtype=object).ravel()
    if len(given) != len(states):
        raise InputError(f"label: expected {len(states)} values, one a row of the hidden states; found {len(given)}")
    if pd.isna(given).any():
        raise InputError(f"label is null in row {np.flatnonzero(pd.isna(given))[0]}. Every row needs one: fill it")
    label, classes = pd.factorize(as_strings(given), sort=True)
    if len(classes) < 2:
        raise InputError(f"this probe compares classes, and there is only one: {classes[0]!r}")
    # Every row is a sentence of its own, called by its number, as in Representations.
    ids = np.unique(np.arange(len(states)).astype(str), return_inverse=True)[1]
    weights = np.ones((1, len(states)), np.uint16)
    units = np.arange(len(states))
    drawn = Sample(ids, ["und"], np.zeros(len(states), int), list(classes), label, weights, units, "")
    return states.astype(np.float64), drawn


def check_labels(run: Run) -> None:
    """Raise `InputError` where a language has only one class, or a class has a single example in
    it.
    """
    drawn = run.sample
    for language in drawn.languages:
        counts = np.bincount(drawn.label[drawn.group(language)], minlength=len(drawn.classes))
        there = np.flatnonzero(counts)
        if len(there) < 2:
            raise InputError(
                f"language {language!r} has only one class, {drawn.classes[there[0]]!r}; probes of labels need at "
                "least two. Drop the language, or choose probes that need no labels"
            )
        if (counts == 1).any():
            label = drawn.classes[int(np.flatnonzero(counts == 1)[0])]
            raise InputError(
                f"class {label!r} has a single example in language {language!r}; distances within a class need two. "
                "Drop the class or merge it, or choose probes that need no labels"
            )


# A declaration of a probe of labels: what all of them say, so that each says the rest.
of_labels = partial(
    Probe,
    family="labels",
    range="0 to infinity",
    bounds=(0, np.inf),
    better="higher",
    higher_is="better separated",
    needs=("labels",),
    default=True,
    check=check_labels,
)
