"""How near a model that predicts a number comes to the numbers that are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.measures.probe import LARGE, Probe
from probes.results.correlations import correlations, weighted_ranks
from probes.results.draws import POOLED, Sample, sample, spread
from probes.results.result import result, stack_measures
from probes.states.predictions import numbers_of, predicted_numbers

# From two numbers of each example, (example,), and the weights of all draws, (1 + draws, example), to (1 + draws,).
Statistic = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def number_quality(reps: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how near a regression's predicted numbers come to the labels.

    Args:
        reps: Representations with labels that are numbers, captured with a head that gives one
            number a text.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, language)`, all languages together as `pooled`. The measures:
        `pearson` and `spearman`, the correlations of numbers and of ranks, -1 to 1, higher is
        better; `squared_error`, the mean of squared differences, 0 to infinity, lower is better.

    Raises:
        InputError: there are no predicted numbers or no labels, or a label that is no number.

    Notes:
        Ranks are taken anew in each draw, ties share theirs. Over all languages together, languages
        of different means are correlated by these, too.

    See also:
        `number_loyalty`, `accuracy`, `compress.quality`.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(np.ones((4, 2)), label=[1, 2, 3, 4])
        >>> reps = reps.assign(numbers=(("example", "number"), [[1.0], [2.0], [4.0], [5.0]]))
        >>> number_quality(reps).value.sel(language="pooled").round(3).values.tolist()
        [0.99, 1.0, 0.5]
    """
    return _measured(reps, sample(reps, draws=draws, seed=seed))


def pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation in every draw."""
    return correlations(np.broadcast_to(x, weights.shape), np.broadcast_to(y, weights.shape), weights)


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation in every draw, ranks taken anew."""
    return correlations(weighted_ranks(x, weights), weighted_ranks(y, weights), weights)


def squared_error(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of squared differences in every draw."""
    return weights @ np.square(x - y) / weights.sum(axis=1)


def of_numbers(
    reps: xr.Dataset,
    drawn: Sample,
    x: np.ndarray,
    y: np.ndarray,
    measures: Sequence[tuple[Probe, Statistic]],
    more: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Return statistics of two numbers of each example, in every language and pooled, side by side."""
    out = []
    for probe, statistic in measures:
        found: dict[str, np.ndarray] = {}
        for language in [*drawn.languages, POOLED]:
            rows = drawn.group(language)
            weights = drawn.weights[:, drawn.ids[rows]].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                values = statistic(x[rows], y[rows], weights)
            if not np.isfinite(x[rows] + y[rows]).all():
                values = np.full(len(weights), np.nan)
            found[language] = spread(drawn, values, rows)

        def missing(_: tuple[int, ...], language: str) -> str:
            bad = int((~np.isfinite((x + y)[drawn.group(language)])).sum())
            return (
                f"the output: the numbers of {bad} rows are not finite"
                if bad
                else "the output: one is the same for all"
            )

        about = probe.about() | dict(more or {})
        out.append(result(reps, drawn, found, about, bounds=probe.bounds, over={}, missing=missing))
    return stack_measures(out)


def _labels(reps: xr.Dataset) -> np.ndarray:
    if "label" not in reps.coords:
        raise InputError(
            "number_quality needs labels, and the Representations have none. Capture a corpus with a label that is a "
            "number"
        )
    return np.array(numbers_of(list(reps["label"].values), str(reps.attrs.get("model", "?"))))


def _measured(reps: xr.Dataset, drawn: Sample) -> xr.Dataset:
    said = predicted_numbers(reps, "number_quality")
    return of_numbers(reps, drawn, said, _labels(reps), list(zip(NUMBER_QUALITY, _STATISTICS, strict=True)))


PEARSON = Probe(
    name="pearson",
    title="Pearson correlation",
    family="number_quality",
    estimator="correlation of the predicted numbers with the labels",
    range="-1 to 1; 1 where one is a straight line of the other",
    bounds=(-1, 1),
    better="higher",
    higher_is="better predicted",
    unchanged_by=("a constant added to all numbers", "a common factor", "order"),
    needs=("predicted numbers", "labels of the head"),
    tolerance=0.01,
    default=True,
    interval=LARGE,
    measure=lambda run: _measured(run.reps, run.sample),
)
SPEARMAN = replace(
    PEARSON,
    name="spearman",
    title="Spearman correlation",
    estimator="correlation of the ranks of the predicted numbers with those of the labels",
    range="-1 to 1; 1 where both are in the same order",
    unchanged_by=(*PEARSON.unchanged_by[:2], "what keeps the order of the numbers", "order"),
    tolerance=None,
)
SQUARED_ERROR = replace(
    PEARSON,
    name="squared_error",
    title="squared error",
    estimator="mean squared difference of the predicted numbers from the labels",
    range="0 to infinity, in squares of what labels are in",
    bounds=(0, np.inf),
    better="lower",
    higher_is="worse predicted",
    unchanged_by=("order",),
    tolerance=None,
)
NUMBER_QUALITY = (PEARSON, SPEARMAN, SQUARED_ERROR)
_STATISTICS = (pearson, spearman, squared_error)
