"""Made comparisons whose losses are known: what is right of each sentence, language and model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from probes.results.cells import NO_LAYER
from probes.results.draws import POOLED
from probes.results.kept import as_kept
from probes.results.table import Table

ALIKE = 0.5  # correlation of a sentence's difficulty in two languages


def right_answers(
    rng: np.random.Generator, n: int, languages: int, share: float, losses: Sequence[tuple[npt.ArrayLike, float]]
) -> np.ndarray:
    """Whether each model is right (1 + models, n, languages), the baseline in a share of sentences.

    Args:
        losses: of each further model what it loses, one number or one a language, and the share of
            sentences that it gets right in place of others without losing anything by it.
    """

    def difficulty() -> np.ndarray:
        normal = np.sqrt(ALIKE) * rng.normal(size=(n, 1)) + np.sqrt(1 - ALIKE) * rng.normal(size=(n, languages))
        return norm.cdf(normal)

    base = difficulty() < share
    models = [base]
    for loss, exchanged in losses:
        luck = difficulty()
        models.append(np.where(base, luck >= (exchanged + np.asarray(loss)) / share, luck < exchanged / (1 - share)))
    return np.array(models)


def table_of(
    right: np.ndarray, rng: np.random.Generator, draws: int = 200, probe: str = "accuracy", names: Sequence[str] = ()
) -> Table:
    """A comparison of what models (model, n, language) got right, by the output."""
    models, n, languages = right.shape
    pool = np.tile(np.arange(n), draws)
    rng.shuffle(pool)
    weights = np.stack([np.ones(n)] + [np.bincount(row, minlength=n) for row in pool.reshape(draws, n)])
    by_language = weights @ right.astype(float) / n  # (model, 1 + draws, language)
    every = np.concatenate([by_language, by_language.mean(axis=2, keepdims=True)], axis=2)
    called = [*(names or [f"language {i}" for i in range(languages)]), POOLED]
    rows = pd.MultiIndex.from_product([[f"m{i}" for i in range(models)], called], names=["model", "language"])
    table = pd.DataFrame(index=rows).reset_index()
    table["layer"] = NO_LAYER
    table["probe"], table["value"], table["n"] = probe, every[:, 0].ravel(), n
    missing = ["low", "high", "difference", "difference_low", "difference_high", "p", "p_adjusted"]
    table[[*missing, "adjusted_low", "adjusted_high"]] = np.nan
    about = {"title": probe, "better": "higher", "compares": False, "unchanged": None, "tolerance": 0.01, "share": True}
    provenance = {
        "baseline": "m0",
        "draws": draws,
        "models": {f"m{i}": {} for i in range(models)},
        "probes": {probe: about},
    }
    kept = as_kept(np.arange(len(table)), np.zeros(len(table)), every[:, 1:].transpose(0, 2, 1).reshape(-1, draws))
    return Table(table, provenance, kept)
