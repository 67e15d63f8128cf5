"""What the probes of labels share: bare arrays as a sample, and what classes must be there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from probes.errors import InputError, LayerscopeWarning
from probes.measures.probe import Probe, Run
from probes.results.draws import POOLED, Sample, need_classes
from probes.results.result import result
from probes.states.representations import as_numbers, as_strings

FEWEST = 5  # sentences of a class, in a language, that it takes to know how widely it spreads
_MOST_NAMED = 5  # classes that a warning lists


def labelled(
    x: npt.ArrayLike, labels: npt.ArrayLike | None, probe: str = "", fewest: int = 1
) -> tuple[np.ndarray, Sample]:
    """Return states (example, feature) in float64, and their classes as a sample without draws.

    Classes with fewer rows than `fewest` are left out, and a warning of the probe names them.

    Raises:
        InputError: an array has another shape or holds no numbers; a label is missing; there is
            only one class, or no two have enough rows.
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
    if fewest == 1:
        return states.astype(np.float64), drawn
    kept = kept_rows(drawn, units, fewest)
    if len(np.unique(label[kept])) < 2:
        raise InputError(f"{probe}: no two classes have {fewest} rows or more. Give more rows, or a smaller fewest=...")
    _say_few(f"{probe} of an array", drawn, drawn.languages, fewest, fewest)
    return states[kept].astype(np.float64), replace(
        drawn, ids=ids[kept], language=drawn.language[kept], label=label[kept]
    )


def check_labels(run: Run) -> None:
    """Raise `InputError` where a language has only one class."""
    drawn = run.sample
    for language in drawn.languages:
        there = np.unique(drawn.label[drawn.group(language)])
        if len(there) < 2:
            raise InputError(
                f"language {language!r} has only one class, {drawn.classes[there[0]]!r}; probes of labels need at "
                "least two. Drop the language, or choose probes that need no labels"
            )


def measured(
    probe: Probe,
    run: Run,
    statistics: Callable[[xr.Dataset, Sample, Mapping[str, np.ndarray]], dict[str, np.ndarray]],
    *,
    fewest: int = FEWEST,
    reliable: int = FEWEST,
) -> xr.Dataset:
    """Measure, in every language and in all together, the classes that have enough sentences there.

    Args:
        probe, run: what is measured, and of what.
        statistics: from Representations, sample and the rows of every language to an array (1 +
            draws, layer) each.
        fewest: sentences of a class that is kept; groups of them, where there are groups.
        reliable: how many of a class it takes for an interval that holds.

    Raises:
        InputError: there are no labels, or only one class; fewest is less than 2.
    """
    drawn = need_classes(run.sample)
    kept = {group: kept_rows(drawn, drawn.group(group), fewest) for group in [*drawn.languages, POOLED]}
    alone = {group for group, rows in kept.items() if len(np.unique(drawn.label[rows])) < 2}
    found = statistics(run.reps, drawn, {group: rows for group, rows in kept.items() if group not in alone})
    nothing = np.full((len(drawn.weights), run.reps.sizes["layer"]), np.nan)

    def missing(_: tuple[int, ...], language: str) -> str:
        return f"every layer: no two classes have {fewest} {_units(drawn)} or more" if language in alone else ""

    out = result(
        run.reps,
        drawn,
        {group: found.get(group, nothing) for group in kept},
        probe.about(),
        rows=kept,
        bounds=probe.bounds,
        missing=missing,
    )
    _say_few(f"{probe.name} of model {out.attrs['model']}", drawn, list(kept), fewest, reliable)
    return out


def kept_rows(drawn: Sample, rows: np.ndarray, fewest: int) -> np.ndarray:
    """Return those of some rows whose class has enough units among them.

    Raises:
        InputError: fewest is less than 2.
    """
    if not isinstance(fewest, int | np.integer) or fewest < 2:
        raise InputError(
            f"fewest={fewest!r}: expected a whole number of at least 2: a class of one sentence has no spread"
        )
    return rows[units_of_classes(drawn, rows)[drawn.label[rows]] >= fewest]


def units_of_classes(drawn: Sample, rows: np.ndarray) -> np.ndarray:
    """How many ids, or groups of them, some rows have of each class: (class,)."""
    pairs = np.unique(np.stack([drawn.label[rows], drawn.units[drawn.ids[rows]]]), axis=1)
    return np.bincount(pairs[0], minlength=len(drawn.classes))


def _units(drawn: Sample) -> str:
    return "sentences" if len(drawn.units) == drawn.units.max() + 1 else "groups"


def _say_few(what: str, drawn: Sample, groups: Sequence[str], fewest: int, reliable: int) -> None:
    """Warn of classes that are left out, and of those too small for an interval that holds."""
    counts = {group: units_of_classes(drawn, drawn.group(group)) for group in groups}
    units = _units(drawn)
    for least, most, said in (
        (1, fewest, f"classes with fewer than {fewest} {units} are left out (%s); fewest=... can keep them"),
        (fewest, reliable, f"fewer than {reliable} {units} in a class (%s), so its intervals are not reliable"),
    ):
        few = [
            f"{drawn.classes[c]} has {count[c]} in {group}"
            for group, count in counts.items()
            for c in np.flatnonzero((count >= least) & (count < most))
        ]
        if few:
            more = f"; and {len(few) - _MOST_NAMED} more" if len(few) > _MOST_NAMED else ""
            warnings.warn(f"{what}: {said % ('; '.join(few[:_MOST_NAMED]) + more)}", LayerscopeWarning, stacklevel=4)


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
