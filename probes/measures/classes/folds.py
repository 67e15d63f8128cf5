"""What a linear probe learns from and is tested on: the splits of a corpus, or folds of ids.

Ids of one group stay together, so that no probe is tested on the article that it has learned from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.results.draws import Sample

if TYPE_CHECKING:
    from sklearn.model_selection import StratifiedGroupKFold

FOLDS = 5


@dataclass(frozen=True)
class Fold:
    """What is trained and tested on, and how the pivot's training rows choose the strength."""

    train: np.ndarray  # (example,) bool
    test: np.ndarray  # (example,) bool
    inner: list[tuple[np.ndarray, np.ndarray]]  # positions among the pivot's training rows in order of their ids


def known_pivot(drawn: Sample, pivot: str | None) -> str:
    """Return the language to train on; raise `InputError` where it is unknown or not given."""
    if pivot is None:
        if len(drawn.languages) > 1:
            raise InputError("expected pivot=..., the language that the probe is trained on")
        return drawn.languages[0]
    if pivot not in drawn.languages:
        there = ", ".join(map(repr, drawn.languages))
        raise InputError(f"pivot {pivot!r}: no such language in the corpus; there are {there}")
    return pivot


def by_id(drawn: Sample, language: str, among: np.ndarray) -> np.ndarray:
    """Rows of a language among some, in order of ids: that of the corpus must not matter."""
    rows = drawn.group(language)
    rows = rows[among[rows]]
    return rows[np.argsort(drawn.ids[rows], kind="stable")]


def folds_of(drawn: Sample, pivot: str, seed: int, reps: xr.Dataset | None = None) -> list[Fold]:
    """Split the examples by `split`, or into folds of ids or groups, and check that each can be
    trained.
    """
    split = reps["split"].values if reps is not None and "split" in reps.coords else np.full(len(drawn.ids), "")
    train, test = split == "train", split == "test"
    units = drawn.units[drawn.ids]
    given = bool(train.any() and test.any())
    if not given:
        train = test = np.ones(len(split), bool)
    elif reps is not None and len(both := np.intersect1d(drawn.ids[train], drawn.ids[test])):
        name = reps["id"].values[drawn.ids == both[0]][0]
        raise InputError(
            f"id {name!r} is in split 'train' and in split 'test', so the probe would be tested on translations of "
            "what it was trained on. Give all rows of an id the same split"
        )
    elif reps is not None and len(both := np.intersect1d(units[train], units[test])):
        name = reps["group"].values[units == both[0]][0]
        raise InputError(
            f"group {name!r} is in split 'train' and in split 'test', so the probe would be tested on sentences that "
            "are not independent of what it was trained on. Give all ids of a group the same split, or leave the "
            "column split out"
        )
    _check_classes(drawn, pivot, train, test)
    pairs = [(train, test)]
    if not given:
        order = np.lexsort((np.array(drawn.languages).astype(str)[drawn.language], drawn.ids))
        pairs = []
        for _, part in groups(FOLDS, seed).split(order, drawn.label[order], units[order]):
            test = np.zeros(len(order), bool)
            test[order[part]] = True
            pairs.append((~test, test))
    classes = np.unique(drawn.label[by_id(drawn, pivot, train)])
    folds = []
    for train, test in pairs:
        rows = by_id(drawn, pivot, train)
        # Where a language lacks many translations, folds of all ids need not be even in it.
        _check_enough(drawn, pivot, rows, classes, FOLDS - 1)
        inner = list(groups(FOLDS - 1, seed).split(rows, drawn.label[rows], units[rows]))
        # Groups that hold several classes cannot always be dealt out so that each class is everywhere.
        for part in (rows, *(rows[learned] for learned, _ in inner)):
            for c in np.setdiff1d(classes, drawn.label[part]):
                raise InputError(
                    f"class {drawn.classes[c]!r} lies in so few groups of the pivot {pivot!r} that a fold has no row "
                    "of it to train on. Merge or drop the class, or add groups that hold it"
                )
        folds.append(Fold(train, test, inner))
    return folds


def groups(folds: int, seed: int) -> StratifiedGroupKFold:
    """Return what splits ids, or groups of them, into folds that hold the classes evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    return StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)


def _check_classes(drawn: Sample, pivot: str, train: np.ndarray, test: np.ndarray) -> None:
    rows = by_id(drawn, pivot, train)
    if not len(rows):
        there = [language for language in drawn.languages if train[drawn.group(language)].any()]
        raise InputError(
            f"pivot {pivot!r} has no row in split 'train', which the probe is trained on. "
            f"Choose a pivot that has some: {', '.join(map(repr, there))}"
        )
    known = np.unique(drawn.label[rows])
    for language in drawn.languages:
        tested = drawn.label[by_id(drawn, language, test)]
        if not len(tested):
            raise InputError(f"language {language!r} has no row in split 'test'. Drop the language, or add test rows")
        for c in np.setdiff1d(tested, known):
            raise InputError(
                f"class {drawn.classes[c]!r} is missing in train: language {language!r} is tested on it, and the pivot "
                f"{pivot!r} has no training row of it. Add some, or drop the class"
            )
    if len(known) < 2:
        raise InputError(
            f"the training rows of the pivot {pivot!r} have only one class, {drawn.classes[known[0]]!r}; "
            "a probe needs at least two"
        )
    _check_enough(drawn, pivot, rows, known, FOLDS)


def _check_enough(drawn: Sample, pivot: str, rows: np.ndarray, classes: np.ndarray, fewest: int) -> None:
    what = "groups" if drawn.grouped else "ids"
    for c in classes:
        found = len(np.unique(drawn.units[drawn.ids[rows[drawn.label[rows] == c]]]))
        if found < fewest:
            raise InputError(
                f"class {drawn.classes[c]!r} has {found} {what} to train on in the pivot {pivot!r}, and folds need "
                f"at least {fewest}. Merge or drop the class, or add sentences of it"
            )
