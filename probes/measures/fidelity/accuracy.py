"""Accuracy: how often a model predicts what is right."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.measures.fidelity.loyalty import at_output, counted, of_predictions
from probes.results.draws import Sample, sample
from probes.results.intervals import of_shares
from probes.states.predictions import decisions, right_classes


def accuracy(reps: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how often a model predicts what the labels say.

    Of a head of one class a text the share of texts, of one of a class a word the share of words
    (by the first token of each), and of one of several classes a text the share of all decisions,
    class by class.

    Args:
        reps: Representations captured with such a head, and of a corpus with its labels: `label`,
            `tags` or `labels`. Classes are named as the labels are (`model.config.id2label`), or
            the labels are their numbers.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (language)`, all languages together as `pooled`; 0 to 1, higher is better.

    Raises:
        InputError: there are no predictions or no labels, or a label that is no class of the model.

    See also:
        `loyalty`, `number_quality`.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(np.ones((4, 2)), label=["a", "a", "b", "b"])
        >>> logits = (("example", "class"), np.eye(2)[[0, 0, 0, 1]])
        >>> reps = reps.assign(logits=logits).assign_coords({"class": ["a", "b"]})
        >>> float(accuracy(reps).value.sel(language="pooled"))
        0.75
    """
    return _measured(reps, sample(reps, draws=draws, seed=seed))


def rights(reps: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 where what is predicted is right, 0 where not, NaN where logits are not finite
    (decision,), and the number of the example that each decision is of.
    """
    made = decisions(reps, "accuracy")
    right = (made.scores.argmax(axis=1) == right_classes(reps, made, "accuracy")).astype(float)
    right[~np.isfinite(made.scores).all(axis=1)] = np.nan
    return right, made.example


def _measured(reps: xr.Dataset, drawn: Sample) -> xr.Dataset:
    right, of = rights(reps)
    drawn = drawn.over(of)
    return counted(of_shares(at_output(reps, drawn, right, ACCURACY)), of, drawn.group)


ACCURACY = of_predictions(
    name="accuracy",
    estimator="share of sentences whose predicted class is their label, or of words, or of several labels each",
    higher_is="better classified",
    tolerance=0.01,
    needs=("logits", "labels of the head", "classes named as the labels are"),
    measure=lambda run: _measured(run.reps, run.sample),
)
