"""Replicates of one model: how often intervals hold the mean over all seeds and sentences, how wide they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm as normal

from probes.results.replicates import over_replicates

PAGE = "probes.comparison"
REPLICATES = (2, 3, 5, 10)
# The variance by seeds, by sentences (the same for all seeds), and by what sentences do in one seed alone.
SHARES = {
    "sentences alone": (0.0, 1.0, 0.0),
    "seeds alone": (1.0, 0.0, 0.0),
    "sentences, differently by seed": (0.0, 0.0, 1.0),
    "all three alike": (1.0, 1.0, 1.0),
    "a third by seeds": (0.3, 1.0, 1.0),
    "ten times as much by seeds": (10.0, 1.0, 1.0),
}
SETS = 4000
KEY = ["replicates", "what varies", "data sets"]


def simulated(
    rng: np.random.Generator, k: int, shares: tuple[float, float, float], sets: int, draws: int = 200
) -> list[xr.Dataset]:
    """Results of k replicates, each data set a layer, whose value over all seeds and sentences is 0.

    The draws of sentences spread as their values do, the same way in all replicates where sentences do.
    """
    seeds, ids, both = np.sqrt(shares)
    value = ids * rng.normal(size=sets) + both * rng.normal(size=(k, sets)) + seeds * rng.normal(size=(k, sets))
    moved = ids * rng.normal(size=(1, draws, sets)) + both * rng.normal(size=(k, draws, sets))
    return results_of(value, value[:, None] + moved)


def results_of(value: Any, draws: Any, **attributes: str) -> list[xr.Dataset]:
    """A result (layer, language) a replicate, of values (replicate, layer) and draws (replicate, draw, layer)."""
    out = []
    for v, d in zip(np.asarray(value, float), np.asarray(draws, float), strict=True):
        found: dict[str, Any] = {
            "value": (("layer", "language"), v[:, None]),
            "draws": (("draw", "layer", "language"), d[..., None]),
        }
        found |= {
            "low": found["value"],
            "high": found["value"],
            "n": ("language", [150]),
            "unseen": ("language", [0.0]),
        }
        about = {"probe": "norm", "model": "m", "interval": "of draws", "resampling": "x"} | attributes
        out.append(xr.Dataset(found, {"layer": np.arange(len(v)), "language": ["pooled"]}, about))
    return out


def expected() -> pd.DataFrame:
    """Give the rows of the table without its results."""
    return pd.DataFrame([(k, words, SETS) for k in REPLICATES for words in SHARES], columns=KEY)


def row(k: int, words: str, sets: int = SETS) -> dict[str, Any]:
    """Simulate so many replicates: one row. The width is over that of the interval of a known variance."""
    shares = SHARES[words]
    rng = np.random.default_rng([k, list(SHARES).index(words)])
    out = over_replicates(simulated(rng, k, shares, sets), "m", seed=0)
    seeds, ids, both = shares
    wide = 2 * normal.ppf(0.975) * np.sqrt(ids + (seeds + both) / k)
    holds = float(((out.low <= 0) & (out.high >= 0)).mean())
    width = float((out.high - out.low).median()) / wide
    return dict(zip(KEY, (k, words, sets), strict=True)) | {"holds": round(holds, 3), "width": round(width, 2)}
