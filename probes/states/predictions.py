"""What a model predicts, as Representations keep it: logits, the names of its classes, and labels
by their numbers.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError


def label_codes(labels: np.ndarray, classes: list[str], model: str) -> np.ndarray:
    """Return the number of the class that each label names, by the name of the class or by its
    number.
    """
    if len(set(classes)) < len(classes):
        raise InputError(
            f"accuracy: two classes of model {model!r} have one name, among {', '.join(map(repr, classes[:10]))}. "
            "Give each its own, in model.config.id2label"
        )
    numbers = [str(i) for i in range(len(classes))]
    known = set(pd.unique(pd.Series(labels)))
    names = classes if known <= set(classes) else numbers
    unknown = sorted(known.difference(classes)) if not known <= set(names) else []
    if unknown:
        raise InputError(
            f"label {unknown[0]!r} is no class of model {model!r}; it has "
            f"{', '.join(map(repr, classes[:10]))}. Name its classes as the labels are, in model.config.id2label"
        )
    return pd.Categorical(labels, categories=names).codes


def check_logits(reps: xr.Dataset, probe: str) -> np.ndarray:
    """Return the logits (example, class) of Representations; raise `InputError` where there are
    none.
    """
    if "logits" not in reps:
        raise InputError(
            f"{probe} needs predictions, and the Representations of model {reps.attrs.get('model', '?')!r} hold no "
            "logits. Capture a model for sequence classification, with its head"
        )
    return reps["logits"].values


def class_names(reps: xr.Dataset) -> list[str]:
    """Return the names of the classes of logits, their numbers where they have none."""
    return (
        [str(c) for c in reps["class"].values] if "class" in reps.coords else list(map(str, range(reps.sizes["class"])))
    )


def classes_in_words(reps: xr.Dataset) -> str:
    """Return the first ten classes of a model for a message."""
    return ", ".join(map(repr, class_names(reps)[:10]))
