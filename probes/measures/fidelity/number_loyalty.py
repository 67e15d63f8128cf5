"""Whether a compressed model that predicts a number still says what its original does, right or wrong."""

from __future__ import annotations

from dataclasses import replace

import xarray as xr

from probes.measures.fidelity.number_quality import PEARSON, SQUARED_ERROR, of_numbers, pearson, squared_error
from probes.measures.probe import Run
from probes.results.draws import Sample, sample
from probes.states.predictions import predicted_numbers
from probes.states.representations import aligned


def number_loyalty(base: xr.Dataset, other: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how far a compressed regression's numbers are those of its original, right or wrong.

    Args:
        base: Representations of the original, captured with a head that gives one number a text.
        other: Representations of the compressed model on the same sentences, aligned by id and
            language.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, language)`, all languages together as `pooled`. The measures:
        `pearson_to_baseline`, the correlation of the two models' numbers, -1 to 1, higher is better
        preserved; `squared_error_to_baseline`, the mean of squared differences, 0 to infinity,
        lower is better preserved.

    Raises:
        InputError: one of the two has no predicted numbers, or they have other sentences.

    See also:
        `number_quality`, `loyalty`.

    Example:
        >>> import numpy as np, probes
        >>> reps = probes.from_arrays(np.ones((4, 2)))
        >>> reps = reps.assign(numbers=(("example", "number"), [[1.0], [2.0], [4.0], [5.0]]))
        >>> found = number_loyalty(reps, reps.assign(numbers=reps.numbers + 1))
        >>> found.value.sel(language="pooled").round(3).values.tolist()
        [1.0, 1.0]
    """
    return _measured(base, other, sample(base, draws=draws, seed=seed))


def _measured(base: xr.Dataset, other: xr.Dataset, drawn: Sample) -> xr.Dataset:
    other = aligned(base, other)
    one, two = (predicted_numbers(reps, "number_loyalty") for reps in (base, other))
    of = {"other_model": str(base.attrs.get("model", "?"))}
    measures = list(zip(NUMBER_LOYALTY, (pearson, squared_error), strict=True))
    return of_numbers(other, drawn, two, one, measures, of)


def _of_run(run: Run) -> xr.Dataset:
    assert run.base is not None  # it needs another model
    return _measured(run.base, run.reps, run.sample)


_PEARSON = replace(
    PEARSON,
    name="pearson_to_baseline",
    title="Pearson correlation with the baseline",
    family="number_loyalty",
    estimator="correlation of the numbers that both models predict",
    higher_is="better preserved",
    unchanged_by=("a constant added to all numbers", "a common factor", "order"),
    needs=("predicted numbers", "another model"),
    compares=True,
    tolerance=0.05,
    measure=_of_run,
)
NUMBER_LOYALTY = (
    _PEARSON,
    replace(
        _PEARSON,
        name="squared_error_to_baseline",
        title="squared distance from the baseline",
        estimator="mean squared difference of the numbers that both models predict",
        range=SQUARED_ERROR.range,
        bounds=SQUARED_ERROR.bounds,
        better="lower",
        higher_is="worse preserved",
        unchanged_by=("order",),
        unchanged=0.0,
        tolerance=None,
    ),
)
