"""Drift: how far a compressed model has moved from its original, sentence by sentence."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr

from probes.measures.probe import LARGE, Probe, Run
from probes.results.draws import Sample, sample, weighted_means
from probes.results.result import result, stack_measures
from probes.states.depth import side_by_side
from probes.states.representations import BLOCK, states

# What all of them say: how much of the original is left, the more the better.
_preserved = partial(
    Probe,
    better="higher",
    higher_is="better preserved",
    family="drift",
    needs=("another model", "models of one width"),
    compares=True,
    default=True,
    interval=LARGE,
)


def drift(base: xr.Dataset, other: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how far each layer of a compressed model has moved from that of its original.

    Sentence by sentence, without any fitting: a model whose states are turned as a whole has
    drifted, though `similarity` finds it unchanged.

    Args:
        base: Representations of the original.
        other: Representations of the compressed model on the same sentences, aligned by id and
            language.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, layer, language)`, all languages together as `pooled`, on the
        layers of `other`, each beside one of `base` (`baseline_layers`: the same number in equally
        deep models, else what was kept, else the same share of the depth). The measures:
        `cosine_to_baseline` (-1 to 1, higher is better preserved), `signal_to_error` (in dB, higher
        is better preserved, infinite where nothing has changed), `norm_ratio` (1 where lengths are
        kept).

    Raises:
        InputError: the two hold different sentences, or differ in width.

    Notes:
        Relative error in dB is the signal to quantisation noise ratio: 20 dB is a change of a tenth
        of the states' length. Memory grows by a few numbers a sentence.

    See also:
        `similarity`, `loyalty`, `module_error`.

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> moved = drift(probes.from_arrays(x), probes.from_arrays(1.1 * x))
        >>> moved.value.sel(layer=0, language="pooled").round(6).values.tolist()
        [1.0, 20.0, 1.1]
    """
    return _measured(base, other, sample(base, draws=draws, seed=seed))


def _measured(base: xr.Dataset, other: xr.Dataset, drawn: Sample) -> xr.Dataset:
    base, moved = side_by_side(base, other, "drift")
    layers = moved["layer"].values.tolist()
    step = max(1, _NUMBERS // base.sizes["example"])
    parts = [
        {name: weighted_means(drawn, values) for name, values in _sums(base, moved, slice(at, at + step)).items()}
        for at in range(0, len(layers), step)
    ]
    means = {
        name: {group: np.concatenate([part[name][group] for part in parts], axis=1) for group in parts[0][name]}
        for name in parts[0]
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        measures = [
            means["cosine"],
            {g: 10 * np.log10(means["squares"][g] / change) for g, change in means["change"].items()},
            {g: norm / means["norm"][g] for g, norm in means["norm of other"].items()},
        ]

    def missing(at: tuple[int, ...], language: str) -> str:
        rows = drawn.group(language)
        for reps in (base, moved):
            bad = int((~np.isfinite(states(reps, at[0], rows)).all(axis=1)).sum())
            if bad:
                return f"layer {layers[at[0]]}: {bad} rows of model {reps.attrs.get('model', '?')} are not finite"
        return f"layer {layers[at[0]]}: undefined (0/0), as for states that are all zero"

    results = []
    for about, values in zip(DRIFT, measures, strict=True):
        out = result(
            moved,
            drawn,
            {g: np.where(np.isposinf(v), _NO_ERROR, v) if about is _ERROR else v for g, v in values.items()},
            about.about() | {"other_model": base.attrs.get("model", "?")},
            bounds=about.bounds,
            missing=missing,
        )
        results.append(out.map(lambda v: v.where(v != _NO_ERROR, np.inf)) if about is _ERROR else out)
    return stack_measures(results)


def _of_run(run: Run) -> xr.Dataset:
    assert run.base is not None  # it needs another model
    return _measured(run.base, run.reps, run.sample)


_NUMBERS = 2**21  # of each sum that are kept at a time: (example, layer)
# Stands for infinitely many dB while quantiles are taken.
_NO_ERROR = 1e300


def _sums(base: xr.Dataset, other: xr.Dataset, layers: slice) -> dict[str, np.ndarray]:
    """What the measures are means of in some layers: (example, layer) each."""
    every = range(base.sizes["layer"])[layers]
    shape = (base.sizes["example"], len(every))
    out = {k: np.empty(shape) for k in ("cosine", "squares", "change", "norm", "norm of other")}
    for layer, number in enumerate(every):
        for start in range(0, shape[0], BLOCK):
            rows = slice(start, start + BLOCK)
            x, y = states(base, number, rows), states(other, number, rows)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
                out["cosine"][rows, layer] = np.einsum("ij,ij->i", x, y) / norms[0] / norms[1]
                out["squares"][rows, layer] = norms[0] ** 2
                out["change"][rows, layer] = np.square(y - x).sum(axis=1)
            out["norm"][rows, layer], out["norm of other"][rows, layer] = norms
    return out


_COSINE = _preserved(
    name="cosine_to_baseline",
    title="cosine to the baseline",
    estimator="mean cosine of a sentence's states in both models",
    range="-1 to 1; 1 where no direction has changed",
    bounds=(-1, 1),
    unchanged_by=("rotation", "common scale of either", "length of each vector of either", "order"),
    measure=_of_run,
)
_ERROR = replace(
    _COSINE,
    name="signal_to_error",
    title="signal to error (dB)",
    estimator="10 log10 (sum of squares of the baseline's states / sum of squares of what has changed), in dB",
    range="-infinity to infinity; 0 where the change is as large as the states, infinity where there is none",
    bounds=(-np.inf, np.inf),
    unchanged_by=("rotation", "common scale", "order"),
    paper="signal to quantisation noise ratio; no single source",
    unchanged=np.inf,
)
_NORM = replace(
    _COSINE,
    name="norm_ratio",
    title="length, to the baseline's",
    estimator="mean length of the states over mean length of the baseline's",
    range="0 to infinity; 1 where lengths have not changed",
    bounds=(0, np.inf),
    better="",
    higher_is="longer vectors",
    unchanged_by=("rotation of either", "common scale", "order"),
)
DRIFT = (_COSINE, _ERROR, _NORM)
