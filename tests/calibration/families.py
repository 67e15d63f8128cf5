"""How often does a family of differences show one where there is none?

    PYTHONPATH=tests python -m calibration.families [FOLDER]      # on the bundled model's states, or an encoder's

Two copies of a model have changed places by a coin for each sentence. Counted is how often a family has a difference
with p below 0.05, for every family that p is adjusted over; and how often any of all families has one.
"""

from __future__ import annotations

import os
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
from calibration import real
from calibration.sampled import DRAWS, NEAREST, Models, Population, swapped

import probes
from probes.results.difference import FAMILIES

EVERY = (*([name] for name in FAMILIES), ["layer", "language"], ["layer", "language", "probe"])
SETS = 200


def rejections(models: Models, names: list[str], seed: int) -> pd.Series:
    """Give the share of families with a p below 0.05 between copies that do not differ, and whether there is any.

    Args:
        models: a baseline and two copies of it, which change places by a coin for each sentence.
        names: of the probes.
        seed: of the coins and the draws.

    Returns:
        By what the families are over ("alone" where p is of each difference alone): `share` and `any`.
    """
    one, two = swapped(models[1], models[2], np.random.default_rng([seed, 1]))
    pivot = str(models[0].language.values[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", probes.LayerscopeWarning)
        compared = probes.compare(
            {"base": models[0], "one": one, "two": two},
            pivot=pivot,
            probes=names,
            draws=DRAWS,
            seed=seed,
            progress=False,
        )
    out = {}
    for over in EVERY:
        found = compared.difference("two", "one", over=over).dropna(subset="p")
        varying = {column for name in over for column in FAMILIES[name]}
        apart = [c for c in ("probe", "language", "layer") if c not in varying]
        small = found["p_adjusted"] < 0.05
        by_family = small.groupby([found[c] for c in apart], dropna=False).any() if apart else pd.Series([small.any()])
        out[" and ".join(over)] = {"share": by_family.mean(), "any": by_family.any()}
        out["alone"] = {"share": (found["p"] < 0.05).mean(), "any": (found["p"] < 0.05).any()}
    return pd.DataFrame(out).astype(float).stack()


def over_samples(population: Population, names: list[str], ids: int, sets: int, processes: int = 1) -> pd.DataFrame:
    """Give `rejections` on average over samples of a population."""

    def one(seed: int) -> pd.Series:
        models, _ = population.draw(np.random.default_rng(1000 + seed), ids, 1)
        return rejections(models, names, seed)

    found = joblib.Parallel(n_jobs=processes)(joblib.delayed(one)(seed) for seed in range(sets))
    return pd.concat(found, axis=1).mean(axis=1).unstack(0)


def main(model: str) -> None:
    """Count on the states of a model, and print."""
    os.nice(10)
    real.prepare(model)
    (population,) = (p for p in real.populations([model]) if p.model == model and not p.trained)
    for ids in (60, 150):
        names = [name for name in population.names if name not in NEAREST]  # see there
        found = over_samples(population, names, ids, SETS, processes=2)
        print(f"{population.words}, {ids} sentences, {len(names)} probes\n{found.round(3).to_string()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["bundled"])
