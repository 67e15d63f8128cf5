"""Loyalty: whether a compressed model still predicts what its original does, right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr
from scipy.special import softmax

from probes.errors import InputError
from probes.measures.probe import LARGE, Probe, Run
from probes.results.draws import Sample, sample, weighted_means
from probes.results.intervals import of_shares
from probes.results.result import result, stack_measures
from probes.states.predictions import class_names, classes_in_words, decisions, predicts
from probes.states.representations import aligned

# A declaration of a share of sentences, by the class that is predicted for them.
of_predictions = partial(
    Probe,
    range="0 to 1",
    bounds=(0, 1),
    better="higher",
    unchanged_by=("what keeps the predicted class", "order"),
    default=True,
    interval=LARGE,
)


def loyalty(base: xr.Dataset, other: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how far a compressed model's predictions are those of its original, right or wrong.

    Args:
        base: Representations of the original, captured with its head.
        other: Representations of the compressed model on the same sentences, aligned by id and
            language.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, language)`, all languages together as `pooled`. The measures,
        both 0 to 1 and better preserved when higher: `label_loyalty`, the share of sentences with
        the same predicted class, and `probability_loyalty`, the mean of 1 - sqrt(JSD) of the
        predicted probabilities.

    Raises:
        InputError: one of the two has no logits, or they have other classes, or other sentences.

    Notes:
        After Xu and McAuley 2023, arXiv 2202.07105. The Jensen-Shannon divergence is taken in bits,
        so that it reaches 1. The interval of the labels is the exact binomial one for as many
        independent sentences as the spread of the draws speaks of.

    See also:
        `accuracy`, `drift`, `number_loyalty`.

    Example:
        >>> import probes
        >>> logits = np.random.default_rng(0).normal(size=(100, 3))
        >>> reps = probes.from_arrays(np.ones((100, 2)))
        >>> reps = reps.assign(logits=(("example", "class"), logits))
        >>> same = loyalty(reps, reps.assign(logits=reps.logits * 2))
        >>> same.value.sel(language="pooled").round(2).values.tolist()
        [1.0, 0.83]
    """
    return _measured(base, other, sample(base, draws=draws, seed=seed))


def _measured(base: xr.Dataset, other: xr.Dataset, drawn: Sample) -> xr.Dataset:
    other = aligned(base, other)
    one, two = (decisions(reps, "loyalty") for reps in (base, other))
    heads = predicts(base), predicts(other)
    if len(set(heads)) > 1 or class_names(base) != class_names(other):
        raise InputError(
            f"loyalty compares predictions class by class: model {base.attrs.get('model', '?')!r} has the classes "
            f"{classes_in_words(base)} and model {other.attrs.get('model', '?')!r} {classes_in_words(other)}"
            + (f" (heads of {heads[0]} and {heads[1]})" if len(set(heads)) > 1 else "")
        )
    _, here, there = np.intersect1d(
        one.there, two.there, assume_unique=True, return_indices=True
    )  # words that both read
    p, q, example = one.scores[here], two.scores[there], one.example[here]
    drawn = drawn.over(example)
    same = (p.argmax(axis=1) == q.argmax(axis=1)).astype(float)
    same[~(np.isfinite(p) & np.isfinite(q)).all(axis=1)] = np.nan
    of = {"other_model": base.attrs.get("model", "?")}
    return stack_measures(
        [
            counted(of_shares(at_output(other, drawn, same, _LABEL, of)), example, drawn.group),
            counted(at_output(other, drawn, 1 - np.sqrt(divergence(p, q)), _PROBABILITY, of), example, drawn.group),
        ]
    )


def _of_run(run: Run) -> xr.Dataset:
    assert run.base is not None  # it needs another model
    return _measured(run.base, run.reps, run.sample)


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence of the softmax of logits (example, class), in bits."""
    p, q = softmax(one.astype(np.float64), axis=1), softmax(other.astype(np.float64), axis=1)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(r > 0, r * np.log2(r / middle), 0.0).sum(axis=1) for r in (p, q)]
    out = np.clip((terms[0] + terms[1]) / 2, 0, 1)
    return np.where(np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1), out, np.nan)


def counted(out: xr.Dataset, example: np.ndarray, rows: Callable[[str], np.ndarray]) -> xr.Dataset:
    """Return a result over decisions, whose `n` is how many texts these are of, as of any other.

    Args:
        out: the result.
        example: (decision,) the number of the text that each is of.
        rows: of a language, or of all, the decisions that count.
    """
    texts = [len(np.unique(example[rows(str(language))])) for language in out["language"].values]
    return out.assign(n=("language", np.array(texts)))


def at_output(
    reps: xr.Dataset, drawn: Sample, values: np.ndarray, probe: Probe, more: Mapping[str, str] | None = None
) -> xr.Dataset:
    """Return the means of what the outputs of sentences say (example,), in every language and
    pooled.
    """
    why: Callable[[tuple[int, ...], str], str] = lambda at, language: (  # noqa: E731
        f"the output: the logits of {int(np.isnan(values[drawn.group(language)]).sum())} rows are not finite"
    )
    about = probe.about() | dict(more or {})
    return result(reps, drawn, weighted_means(drawn, values), about, bounds=probe.bounds, over={}, missing=why)


_LABEL = of_predictions(
    name="label_loyalty",
    estimator="share of sentences for which both models predict the same class",
    higher_is="better preserved",
    paper="Xu and McAuley 2023, arXiv 2202.07105",
    needs=("logits", "another model", "models of the same classes"),
    family="loyalty",
    compares=True,
    tolerance=0.05,
    measure=_of_run,
)
_PROBABILITY = replace(
    _LABEL,
    name="probability_loyalty",
    title="probability loyalty",
    tolerance=None,
    estimator="mean of 1 - sqrt(Jensen-Shannon divergence of the predicted probabilities), in bits",
    range="0 to 1; 1 where all probabilities are the same",
    unchanged_by=("a constant added to all logits of a sentence", "order"),
)
LOYALTY = (_LABEL, _PROBABILITY)
