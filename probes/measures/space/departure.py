"""Where a compressed model leaves the dynamics of its baseline: step by step from its own states."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr

from probes.measures.probe import LARGE, Probe, Run
from probes.measures.space.dynamics import check_dynamics, check_ids, folds_of_units, known_dynamics
from probes.results.draws import Sample, sample, weighted_ratios
from probes.results.ratios import of_ratios
from probes.results.result import result
from probes.states.representations import states


def departure(base: xr.Dataset, other: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how much worse than the baseline's own the steps of a compressed model are predicted
    by the baseline's dynamics.

    An affine map from each layer of the baseline to the next is put before the states that the
    compressed model itself feeds that layer, so that damage of earlier layers that is only passed
    on counts nothing, unlike in `drift`.

    Args:
        base: Representations of the baseline.
        other: Representations of the compressed model on the same sentences.
        draws, seed: of the bootstrap by sentence id; the seed is also of the folds.

    Returns:
        `value, low, high (layer, language)`, from the first layer after the embeddings on, all
        languages together as `pooled`: the mean square that is missed of the compressed model minus
        that of the baseline, over the variance of the baseline's states there. 0 where the layer
        does what the baseline's does, 1 where what it adds is as large as the states; below 0 where
        it is predicted better.

    Raises:
        InputError: models of other depth or width, only one layer, fewer than 20 ids (or groups).

    Notes:
        Maps are ridge regressions drawn to the identity, in four folds of ids: each is tested on
        ids that it has not seen. Draws do not fit again; intervals are symmetric bootstrap-t ones,
        since few sentences make much of a sum of squares. What no affine map says of the baseline is
        taken off, as far as the compressed model shares it.

    See also:
        `depth_dynamics`, `drift`, `module_error`.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(3, 200, 4))
        >>> x[1:] += x[:1]
        >>> y = x.copy()
        >>> y[2] += rng.normal(size=(200, 4))
        >>> found = departure(probes.from_arrays(x), probes.from_arrays(y))
        >>> found.value.sel(language="pooled").round(1).values.tolist()
        [0.0, 0.5]
    """
    drawn = sample(base, draws=draws, seed=seed)
    other = check_dynamics(base, other, drawn, 2, "departure")
    return departure_of(base, other, drawn, folds_of_units(drawn, seed))


def departure_of(
    base: xr.Dataset, other: xr.Dataset, drawn: Sample, folds: Sequence[tuple[np.ndarray, ...]]
) -> xr.Dataset:
    """Return `departure` by given folds; the examples of both are in one order."""
    count = base.sizes["layer"] - 1
    missed = np.full((2, len(drawn.ids), count), np.nan)
    whole = np.full((len(drawn.ids), count), np.nan)
    for rows, choosing, test in folds:
        known = known_dynamics(partial(states, base), count + 1, rows, choosing)
        for side, reps in enumerate((base, other)):
            z = known.coordinates(0, states(reps, 0, test))
            for step in range(count):
                then = known.coordinates(step + 1, states(reps, step + 1, test))
                off = then - known.step(step, z)
                missed[side, test, step] = np.einsum("ef,ef->e", off, off)
                if side == 0:
                    whole[test, step] = np.einsum("ef,ef->e", then, then)
                z = then
    layers = base["layer"].values
    parts = [weighted_ratios(drawn, (missed[1] - missed[0])[:, [k]], whole[:, k]) for k in range(count)]
    statistics = {language: np.concatenate([p[language] for p in parts], axis=1) for language in parts[0]}

    def missing(at: tuple[int, ...], language: str) -> str:
        for reps in (base, other):
            for layer in (at[0], at[0] + 1):
                x = states(reps, layer, slice(None))
                bad = int((~np.isfinite(x).all(axis=1)).sum())
                named = f"layer {layers[at[0] + 1]}: of layer {layers[layer]} of model {reps.attrs.get('model', '?')}"
                if bad:
                    return f"{named} {bad} rows are not finite"
                if reps is base and not np.isfinite(known.scales[layer]):
                    return f"{named} all states are equal"
        return ""

    about = DEPARTURE.about() | {"other_model": base.attrs.get("model", "?")}
    out = result(other, drawn, statistics, about, over={"layer": layers[1:]}, missing=missing)
    return of_ratios(out, drawn, missed[1] - missed[0], whole)


def _of_run(run: Run) -> xr.Dataset:
    assert run.base is not None  # it needs another model
    other = check_dynamics(run.base, run.reps, run.sample, 2, "departure")
    return departure_of(run.base, other, run.sample, folds_of_units(run.sample, run.seed))


DEPARTURE = Probe(
    name="departure",
    title="departure from the baseline's dynamics",
    estimator="(mean square missed of the compressed model's steps - of the baseline's) / variance of the baseline's "
    "states, by affine maps from layer to layer of the baseline, on ids not fitted on",
    range="-infinity to infinity; 0 where a layer does what the baseline's does",
    higher_is="more added by the layer itself",
    unchanged_by=("rotation", "shift", "common scale", "order"),
    paper="after Jiahao, Chee, Hsieh 2022, arXiv 2207.09344",
    needs=("another model", "models of one architecture"),
    compares=True,
    unchanged=0.0,
    interval=LARGE,
    measure=_of_run,
    check=lambda run: check_ids(run.sample, "departure"),
)
