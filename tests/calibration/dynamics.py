"""How often do intervals of dynamics hold what the fitted maps say of all other sentences?

    PYTHONPATH=tests python -m calibration.dynamics [samples]

Each sample fits its own maps, and its truth is that of these maps, measured on very many other sentences. Printed are
the rows of the tables on the reference pages of `probes.departure` and of `probes.depth_control`.
"""

from __future__ import annotations

import os
import sys
import warnings
from functools import partial

import numpy as np

import probes
from probes.measures.space.depth_control import corrections
from probes.measures.space.dynamics import folds_of_units, known_dynamics
from probes.results.draws import sample
from probes.states.representations import states

LAYERS, FEATURES, OTHERS = 4, 3, 100_000
TURNS = np.linalg.qr(np.random.default_rng(9).normal(size=(LAYERS - 1, FEATURES, FEATURES)))[0]


def path(
    rng: np.random.Generator, count: int, added: tuple[float, ...], start: np.ndarray | None = None, bent: float = 0.5
) -> np.ndarray:
    """States (layer, example, feature) that turn; each step adds noise, and the last a square."""
    x = [rng.normal(size=(count, FEATURES)) if start is None else start]
    for k, (turn, size) in enumerate(zip(TURNS, added, strict=True)):
        square = bent * (k == 2) * (np.square(x[-1][:, :1]) - 1) * np.eye(FEATURES)[1]
        x.append(x[-1] @ turn + square + size * rng.normal(size=(count, FEATURES)))
    return np.stack(x)


def counted(ids: int, samples: int) -> dict[str, float]:
    """Give shares of samples: what departure and shares hold, and where models of the same dynamics are told apart."""
    rng = np.random.default_rng(ids)
    total = samples * ids + OTHERS
    x = path(rng, total, (0.4, 0.4, 0.4))
    y = path(rng, total, (0.4, 0.7, 0.4), x[0])
    held, share, told = np.zeros(LAYERS - 1), 0, 0
    for number in range(samples):
        at = slice(number * ids, number * ids + ids)
        base, other = probes.from_arrays(x[:, at]), probes.from_arrays(y[:, at])
        same = probes.from_arrays(path(rng, ids, (0.4, 0.4, 0.4), x[0, at]))
        found = probes.depth_dynamics(base, other, steps=0, progress=False).sel(language="und")
        told += int(probes.depth_dynamics(base, same, steps=0, progress=False).leaves.notnull().any())
        apart, one = np.zeros((2, LAYERS - 1)), np.zeros(2)
        for rows, choosing, _ in folds_of_units(sample(base, draws=2, seed=0), 0):
            known = known_dynamics(partial(states, base), LAYERS, rows, choosing)
            z, w = ([known.coordinates(k, m[k, -OTHERS:]) for k in range(LAYERS)] for m in (x, y))
            means = [known.coordinates(k, y[k, at][rows]).mean(axis=0) for k in range(LAYERS)]
            for k in range(LAYERS - 1):
                errors = [np.square(known.step(k, m[k]) - m[k + 1]).mean() for m in (z, w)]
                apart[:, k] += errors[1] - errors[0], np.square(z[k + 1]).mean()
                one += errors[1], np.square(w[k + 1] - means[k + 1]).mean()
        truth = apart[0] / apart[1]
        held += (found.departure_low.values <= truth) & (truth <= found.departure_high.values)
        known_share = found.sel(dynamics="known", horizon=1)
        share += int(known_share.low <= 1 - one[0] / one[1] <= known_share.high)
    return {
        "departure": float(held.mean() / samples),
        "known": share / samples,
        "leaves": told / samples,
    }


def controlled(ids: int, samples: int) -> dict[str, float]:
    """Give shares of samples that hold what `depth_control` says, and mean widths over 3.92 standard deviations of what
    values are off by: of shares to take off, of what each layer does alone, and of what is left.
    """
    rng = np.random.default_rng(ids)
    total = samples * ids + OTHERS
    x = path(rng, total, (0.4, 0.4, 0.4))
    off = 0.5 * rng.normal(size=(total, FEATURES))
    y = path(rng, total, (0.4, 0.7, 0.4), x[0] + off)
    names = ("value", "alone", "left")
    cells: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for number in range(samples):
        at = slice(number * ids, number * ids + ids)
        base, other = probes.from_arrays(x[:, at]), probes.from_arrays(y[:, at])
        found = probes.depth_control(base, other).sel(language="und")
        gram = np.zeros((1, LAYERS, LAYERS))
        for rows, choosing, _ in folds_of_units(sample(base, draws=2, seed=0), 0):
            known = known_dynamics(partial(states, base), LAYERS, rows, choosing)
            apart = [(y[k, -OTHERS:] - x[k, -OTHERS:]) / known.scales[k] for k in range(LAYERS)]
            added = [apart[0]]
            for k in range(1, LAYERS):
                slope = np.eye(FEATURES) + known.maps[k - 1, :-1]
                added = [one @ slope for one in added] + [apart[k] - apart[k - 1] @ slope]
            gram[0] += np.einsum("aef,bef->ab", added, added)
        truth = corrections(gram, np.ones(LAYERS, bool), 0.1)
        for name in names:
            low, high = (
                found["low" if name == "value" else f"{name}_low"],
                found["high" if name == "value" else f"{name}_high"],
            )
            cells[name].append(np.stack([found[name], low, high, truth[name][0]]))
    out = {}
    for name in names:
        value, low, high, truth_of = np.moveaxis(np.array(cells[name]), 1, 0)
        out[f"{name} holds"] = float(((low <= truth_of) & (truth_of <= high)).mean())
        width = (high - low).mean(axis=0) / (3.92 * (value - truth_of).std(axis=0, ddof=1))
        out[f"{name} width"] = float(width.mean())
    return out


if __name__ == "__main__":
    os.nice(10)
    warnings.simplefilter("ignore", probes.LayerscopeWarning)
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for ids in (30, 60, 200):
        found = counted(ids, many)
        print(f"| {ids} | {many} | " + " | ".join(f"{x:.2f}" for x in found.values()) + " |", flush=True)
    for ids in (30, 60, 200):
        found = controlled(ids, many)
        print(f"| {ids} | {many} | " + " | ".join(f"{x:.2f}" for x in found.values()) + " |", flush=True)
