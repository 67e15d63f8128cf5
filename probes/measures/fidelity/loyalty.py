"""Loyalty and accuracy: whether a compressed model still predicts what its original does, and what is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy.special import softmax

from probes.errors import InputError
from probes.results.draws import Sample, sample, weighted_means
from probes.results.intervals import exact_at_the_ends
from probes.results.result import result, stack_measures
from probes.states.predictions import check_logits, class_names, classes_in_words, label_codes
from probes.states.representations import aligned

_LABEL = {
    "probe": "label_loyalty",
    "estimator": "share of sentences for which both models predict the same class",
    "range": "0 to 1",
    "higher_is": "better preserved",
    "unchanged_by": "what does not change the predicted class",
    "paper": "Xu and McAuley 2023, arXiv 2202.07105",
}
_PROBABILITY = {
    "probe": "probability_loyalty",
    "estimator": "mean of 1 - sqrt(Jensen-Shannon divergence of the predicted probabilities), in bits",
    "range": "0 to 1; 1 where all probabilities are the same",
    "higher_is": "better preserved",
    "unchanged_by": "a constant added to all logits of a sentence, order",
    "paper": "Xu and McAuley 2023, arXiv 2202.07105",
}
_ACCURACY = {
    "probe": "accuracy",
    "estimator": "share of sentences whose predicted class is their label",
    "range": "0 to 1",
    "higher_is": "better classified",
    "unchanged_by": "what does not change the predicted class",
    "paper": "no single source",
}


def loyalty(base: xr.Dataset, other: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how far a compressed model's predictions are those of its original, right or wrong.

    Args:
        base: Representations of the original, captured with its head.
        other: Representations of the compressed model on the same sentences, aligned by id and language.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, language)`, all languages together as `pooled`. The measures, both 0 to 1 and better
        preserved when higher: `label_loyalty`, the share of sentences with the same predicted class, and
        `probability_loyalty`, the mean of 1 - sqrt(JSD) of the predicted probabilities.

    Raises:
        InputError: one of the two has no logits, or they have other classes, or other sentences.

    Notes:
        After Xu and McAuley 2023, arXiv 2202.07105. The Jensen-Shannon divergence is taken in bits, so that it reaches
        1. Where all sentences agree, or none, the interval of the labels is the exact binomial one.

    Example:
        >>> import probes
        >>> logits = np.random.default_rng(0).normal(size=(100, 3))
        >>> reps = probes.from_arrays(np.ones((100, 2))).assign(logits=(("example", "class"), logits))
        >>> same = loyalty(reps, reps.assign(logits=reps.logits * 2))
        >>> same.value.sel(language="pooled").round(2).values.tolist()
        [1.0, 0.83]
    """
    other = aligned(base, other)
    one, two = check_logits(base, "loyalty"), check_logits(other, "loyalty")
    if one.shape != two.shape or list(class_names(base)) != list(class_names(other)):
        raise InputError(
            f"loyalty compares predictions class by class: model {base.attrs.get('model', '?')!r} has the classes "
            f"{classes_in_words(base)} and model {other.attrs.get('model', '?')!r} {classes_in_words(other)}"
        )
    drawn = sample(base, draws=draws, seed=seed, labels=False)
    same = (one.argmax(axis=1) == two.argmax(axis=1)).astype(float)
    same[~(np.isfinite(one) & np.isfinite(two)).all(axis=1)] = np.nan
    out = []
    for values, about in ((same, _LABEL), (1 - np.sqrt(divergence(one, two)), _PROBABILITY)):
        about = about | {"other_model": base.attrs.get("model", "?")}
        out.append(_at_output(other, drawn, values, about))
    return stack_measures([exact_at_the_ends(out[0]), out[1]])


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence in bits, 0 to 1, of the softmax of logits (example, class), a row each."""
    p, q = softmax(one.astype(np.float64), axis=1), softmax(other.astype(np.float64), axis=1)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(r > 0, r * np.log2(r / middle), 0.0).sum(axis=1) for r in (p, q)]
    out = np.clip((terms[0] + terms[1]) / 2, 0, 1)
    return np.where(np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1), out, np.nan)


def accuracy(reps: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how often a model predicts the label of a sentence.

    Args:
        reps: Representations with labels, captured with a head whose classes are named as the labels are
            (`model.config.id2label`), or whose labels are their numbers.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (language)`, all languages together as `pooled`; 0 to 1, higher is better.

    Raises:
        InputError: there are no logits or no labels, or a label that is no class of the model.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(np.ones((4, 2)), label=["a", "a", "b", "b"])
        >>> logits = xr.DataArray(np.eye(2)[[0, 0, 0, 1]], dims=("example", "class"), coords={"class": ["a", "b"]})
        >>> float(accuracy(reps.assign(logits=logits)).value.sel(language="pooled"))
        0.75
    """
    logits = check_logits(reps, "accuracy")
    if "label" not in reps.coords:
        raise InputError("accuracy needs labels, and the Representations have none. Capture a corpus with a label")
    wanted = label_codes(reps["label"].values, class_names(reps), str(reps.attrs.get("model", "?")))
    right = (logits.argmax(axis=1) == wanted).astype(float)
    right[~np.isfinite(logits).all(axis=1)] = np.nan
    drawn = sample(reps, draws=draws, seed=seed, labels=False)
    return exact_at_the_ends(_at_output(reps, drawn, right, _ACCURACY))


def _at_output(reps: xr.Dataset, drawn: Sample, values: np.ndarray, about: dict[str, str]) -> xr.Dataset:
    why: Callable[[tuple[int, ...], str], str] = lambda at, language: (  # noqa: E731
        f"the output: the logits of {int(np.isnan(values[drawn.group(language)]).sum())} rows are not finite"
    )
    return result(reps, drawn, weighted_means(drawn, values), about, bounds=(0, 1), over={}, missing=why)
