"""Accuracy: how often a model predicts what is right."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.measures.fidelity.loyalty import at_output, of_predictions
from probes.results.draws import Sample, sample
from probes.results.intervals import of_shares
from probes.states.predictions import check_logits, class_names, label_codes


def accuracy(reps: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how often a model predicts the label of a sentence.

    Args:
        reps: Representations with labels, captured with a head whose classes are named as the
            labels are (`model.config.id2label`), or whose labels are their numbers.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (language)`, all languages together as `pooled`; 0 to 1, higher is better.

    Raises:
        InputError: there are no logits or no labels, or a label that is no class of the model.

    See also:
        `loyalty`.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(np.ones((4, 2)), label=["a", "a", "b", "b"])
        >>> logits = (("example", "class"), np.eye(2)[[0, 0, 0, 1]])
        >>> reps = reps.assign(logits=logits).assign_coords({"class": ["a", "b"]})
        >>> float(accuracy(reps).value.sel(language="pooled"))
        0.75
    """
    return _measured(reps, sample(reps, draws=draws, seed=seed))


def rights(reps: xr.Dataset) -> np.ndarray:
    """Return 1 where the predicted class is the label, 0 where not, NaN where logits are not finite
    (example,).
    """
    logits = check_logits(reps, "accuracy")
    if "label" not in reps.coords:
        raise InputError("accuracy needs labels, and the Representations have none. Capture a corpus with a label")
    wanted = label_codes(reps["label"].values, class_names(reps), str(reps.attrs.get("model", "?")))
    right = (logits.argmax(axis=1) == wanted).astype(float)
    right[~np.isfinite(logits).all(axis=1)] = np.nan
    return right


def _measured(reps: xr.Dataset, drawn: Sample) -> xr.Dataset:
    return of_shares(at_output(reps, drawn, rights(reps), ACCURACY))


ACCURACY = of_predictions(
    name="accuracy",
    estimator="share of sentences whose predicted class is their label",
    higher_is="better classified",
    tolerance=0.01,
    needs=("logits", "labels", "classes named as the labels are"),
    measure=lambda run: _measured(run.reps, run.sample),
)
