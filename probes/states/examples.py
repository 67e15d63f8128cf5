"""The examples that all models are measured on: those of a corpus, or of Representations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import datasets
import numpy as np
import xarray as xr

from probes.corpus import SEVERAL
from probes.errors import InputError
from probes.states.representations import as_strings, from_arrays
from probes.streamed import pieces


def examples_of(corpus: datasets.Dataset | None, captured: dict[str, xr.Dataset], models: Iterable[str]) -> xr.Dataset:
    """Return the examples, the same for every model, as Representations without states.

    Args:
        corpus: where it is given, what it holds.
        captured: the models that are Representations already, by name.
        models: the names of all models.

    Raises:
        InputError: a model is to be run and there is no corpus; Representations hold other
            examples.
    """
    columns = ["id", "language", "label", "split", "group", *SEVERAL]
    if corpus is None:
        if any(name not in captured for name in models):
            name = next(n for n in models if n not in captured)
            raise InputError(
                f"model {name!r} is still to be run: expected a corpus, as probes.load_corpus(...) gives it"
            )
        first = next(iter(captured.values()))
        values = {c: first[c].values for c in columns if c in first.coords}
    else:
        values = {c: column_of(corpus, c) for c in columns if c in corpus.column_names}
    for name, reps in captured.items():
        other = {c: reps[c].values for c in columns if c in reps.coords}
        if corpus is None and "group" in other and "group" not in values:
            raise InputError(
                f"model {name!r}: its Representations have groups, and those of {next(iter(captured))!r} have none. "
                "Capture all models on one corpus"
            )
        if not all(np.array_equal(values[c], other[c]) for c in values if c in other and c != "split"):
            raise InputError(
                f"model {name!r}: its Representations hold other examples (id, language, label, group) than the "
                "others, or the same in another order. Capture all models on one corpus"
            )
    named: dict[str, Any] = {c: values[c] for c in ("id", "language", "label", "group") if c in values}
    others = {c: ("example", values[c]) for c in ("split", *SEVERAL) if c in values}
    return from_arrays(np.zeros((len(values["id"]), 1)), **named).assign_coords(others)


def column_of(corpus: datasets.Dataset, column: str) -> np.ndarray:
    """Return a column of a corpus as Python strings, each of not too many in memory once.

    Example:
        >>> corpus = datasets.Dataset.from_dict({"language": ["en", "fr", "en"]})
        >>> column_of(corpus, "language").tolist()
        ['en', 'fr', 'en']
    """
    known: dict[str, str] = {}
    return np.concatenate([as_strings(frame[column].tolist(), known) for frame in pieces(corpus, [column])])
