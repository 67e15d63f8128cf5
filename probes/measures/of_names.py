"""Names of classes as a probe of a comparison, which has to be told of the names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from probes.errors import InputError
from probes.measures import catalogue
from probes.measures.classes.folds import known_pivot
from probes.measures.classes.label_names import LABEL_NAMES, check_names, measured_names, parts_of
from probes.measures.probe import Run
from probes.results.draws import need_classes


def declare_names(names: Mapping[str, Sequence[str]]) -> list[str]:
    """Make probes of `compare` of how well texts are classified by the names of the classes, and
    return the names of the probes.

    A comparison then has "label_names", "label_names_support" and "label_names_gain" of each model,
    which runs the names itself, as it does the texts.

    Args:
        names: of every class, each in one or several templates.

    Returns:
        The names of the probes. Those of earlier names are no longer there.

    Raises:
        InputError: names are no texts of classes, or a class has none.

    Notes:
        The corpus needs labels and a column `split`: support are the pivot's rows of "train", the
        factors are chosen on its rows of "dev", and every language is tested on those of "test".

    See also:
        `label_names`, `compare`, `probe`.

    Example:
        >>> import probes
        >>> declare_names({"food": ["food", "about food"], "travel": ["travel", "about travel"]})
        ['label_names', 'label_names_support', 'label_names_gain']
    """
    if isinstance(names, xr.Dataset):
        raise InputError("declare_names: expected texts, which each model of a comparison runs; found Representations")
    for label, texts in (check_names(names, names) or {}).items():
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(f"declare_names: label {label!r}: expected texts, none of them empty; found {texts!r}")

    def check(run: Run) -> None:
        check_names(names, need_classes(run.sample).classes)
        parts_of(run.reps, run.sample, known_pivot(run.sample, run.pivot))

    def measure(run: Run) -> xr.Dataset:
        assert run.models is not None  # it needs models to run
        how: dict[str, Any] = {k: v for k, v in run.settings.items() if k not in ("prompt", "max_length")}
        how |= {"models": run.models[1:], "pivot": run.pivot, "seed": run.seed}
        return measured_names(run.reps, run.sample, names, **how)

    for one in LABEL_NAMES:
        catalogue.OWN[one.name] = replace(one, needs=(*one.needs, "models to run"), measure=measure, check=check)
    return [one.name for one in LABEL_NAMES]
