"""How far estimates of dimensions are from the truth, in 384 features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from calibration.designs import spectrum, states
from scipy import stats

import probes

PAGE = "probes.measures.space.geometry"
DIMENSIONS: dict[str, dict[str, Any]] = {
    "equal variance": {},
    "variance falls as 1 / k^0.5": {"decay": 0.5},
    "variance falls as 1 / k": {"decay": 1.0},
    "variance falls as 1 / k, lengths vary widely": {"decay": 1.0, "lengths": 0.5},
    "equal variance in half of the features, none in the others": {"empty": 0.5},
    "variance falls as 1 / k, pooled with translations that share 0.95": {"decay": 1.0, "languages": 2},
}
SENTENCES = (50, 100, 300)
SETS = 20
KEY = ["design", "sentences", "data sets"]


def expected() -> pd.DataFrame:
    """Give the rows of the table without its results."""
    return pd.DataFrame([(words, n, SETS) for words in DIMENSIONS for n in SENTENCES], columns=KEY)


def row(words: str, ids: int, sets: int = SETS) -> dict[str, Any]:
    """Simulate estimates from so many sentences: one row."""
    found = estimates(DIMENSIONS[words], ids, sets)
    # Of too few sentences there is none.
    cells = {name: "none" if np.isnan(ratio) else f"{ratio:.3f}" for name, ratio in found.items()}
    return dict(zip(KEY, (words, ids, sets), strict=True)) | cells


def estimates(settings: Mapping[str, Any], ids: int, sets: int) -> dict[str, float]:
    """Give mean estimates over the truth: of both ranks, of what the sample's own covariance has, and of TwoNN."""
    reps = states(np.random.default_rng(0), ids=ids, layers=sets, **settings)
    found = probes.geometry(reps, draws=2).value.sel(language="pooled").mean("layer", skipna=False)
    truth = spectrum(**settings)
    plain = [np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2 for x in reps.hidden.values]
    return {
        "effective rank": float(found.sel(measure="effective_rank")) / _effective(truth),
        "effective rank, plain": float(np.mean([_effective(x) for x in plain])) / _effective(truth),
        "participation ratio": float(found.sel(measure="participation_ratio")) / _participation(truth),
        "participation ratio, plain": float(np.mean([_participation(x) for x in plain])) / _participation(truth),
        "intrinsic dimension": float(found.sel(measure="intrinsic_dimension")) / np.count_nonzero(truth),
    }


def _effective(eigenvalues: np.ndarray) -> float:
    return float(np.exp(stats.entropy(eigenvalues / eigenvalues.sum())))


def _participation(eigenvalues: np.ndarray) -> float:
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
