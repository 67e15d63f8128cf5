"""How often do intervals of `sparse_probe` hold what the probes, as they are trained, say of all other sentences?

    PYTHONPATH=tests python -m calibration.supports [samples]

Probes are trained once, on planted classes, and tested on many samples of other sentences; their truth is that of all
of these. And of the gain of one trained classifier over another, which alone is right, or wrong, by a coin. Printed are
the rows of the tables on the reference pages of `probes.sparse_probe` and `probes.kernel_probe`.
"""

from __future__ import annotations

import os
import sys

import numpy as np
from planted import planted

import probes
from probes.measures.classes import kernel_probe, sparse_probe
from probes.measures.classes.folds import folds_of
from probes.measures.classes.trained import weighed
from probes.measures.probe import Run
from probes.results.draws import sample
from probes.results.result import result

TRAIN, TRAININGS = 120, 4
NAMES = ("sparse_probe_in_language", "sparse_probe_features")


def counted(distance: float, ids: int, samples: int) -> list[float]:
    """Give of each of `NAMES` the mean truth, the share of samples whose interval holds it, and the interval's width
    over 3.92 standard deviations of the values.
    """
    many = samples // TRAININGS * ids
    rng = np.random.default_rng(int(10 * distance))
    reps = planted(rng, ids=TRAIN + many, languages=1, layers=TRAININGS, distance=distance)
    split = np.where(np.arange(TRAIN + many) < TRAIN, "train", "test").astype(object)
    reps = reps.assign_coords(split=("example", split))
    # Ids are in the order of their numbers, as rows are.
    reps = reps.assign_coords(id=("example", [f"s{i:06d}" for i in range(TRAIN + many)]))
    whole = Run(reps, sample(reps, draws=2, seed=0), progress=False)
    folds, found = sparse_probe._trained(whole, "l0")
    truth = sparse_probe._results(reps, whole.sample, "l0", folds, found).sel(language="l0", measure=list(NAMES)).value
    cells = []
    for start in range(TRAIN, TRAIN + many, ids):
        rows = np.r_[:TRAIN, start : start + ids]
        some = reps.isel(example=rows)
        drawn = sample(some, draws=200, seed=start)
        own = [{"l0": _of(layer["l0"], slice(start - TRAIN, start - TRAIN + ids))} for layer in found]
        out = sparse_probe._results(some, drawn, "l0", folds_of(drawn, "l0", 0, some), own)
        one = out.sel(language="l0", measure=list(NAMES))
        cells.append(np.stack([one["value"], one["low"], one["high"]]))
    value, low, high = np.moveaxis(np.array(cells), 1, 0)  # (sample, measure, training)
    holds = ((low <= truth.values) & (truth.values <= high)).mean(axis=(0, 2))
    width = (high - low).mean(axis=(0, 2)) / (3.92 * np.sqrt(np.square(value - truth.values).mean(axis=(0, 2))))
    return np.stack([truth.values.mean(axis=1), holds, width], axis=1).ravel().tolist()


def of_gain(ids: int, better: float, worse: float, samples: int) -> list[float]:
    """Give the mean gain of a classifier that alone is right of a share of sentences and alone wrong of another, the
    share of samples whose interval holds it, and the interval's width over 3.92 standard deviations of the values.
    """
    reps = probes.from_arrays(np.zeros((ids, 1)))
    drawn = sample(reps, draws=200, seed=0)
    apart = np.random.default_rng(ids).choice(
        [-1.0, 0.0, 1.0], p=[worse, 1 - worse - better, better], size=(ids, samples)
    )
    statistics = {"und": weighed(apart, drawn.ids, drawn.weights, drawn.units, (-1, 1))}
    about = {"probe": "gain_over_linear", "interval": ""}
    found = kernel_probe.of_gains(result(reps, drawn, statistics, about, over={"sample": np.arange(samples)}))
    truth = better - worse
    holds = float(((found.low <= truth) & (found.high >= truth)).mean())
    return [truth, holds, float((found.high - found.low).mean() / (3.92 * found.value.std()))]


def _of(one: sparse_probe._Language, rows: slice) -> sparse_probe._Language:
    return sparse_probe._Language(one.right[rows], one.path[rows], one.sizes, one.stability, one.overlap, one.residual)


if __name__ == "__main__":
    os.nice(10)
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for apart in (1.0, 2.5):
        for count in (60, 150):
            figures = " | ".join(f"{x:.2f}" for x in counted(apart, count, total))
            print(f"| {apart:g} | {count} | {total} | {figures} |", flush=True)
    for count in (60, 150):
        for more, less in ((0.15, 0.03), (0.02, 0.02), (0.01, 0.0)):
            figures = " | ".join(f"{x:.2f}" for x in of_gain(count, more, less, 2000))
            print(f"| {more:g} | {less:g} | {count} | 2000 | {figures} |", flush=True)
