"""The numbers of a model of the study of a real encoder as a row a language: what is kept in the repository."""

from __future__ import annotations

import numpy as np
import pandas as pd

# Measures without labels, and how what they say becomes a damage: less of it is more damage, it says how far it moved
# from the original, or how far from the value of what has not changed.
LESS = ("cosine_to_baseline", "signal_to_error", "cka", "probability_loyalty", "label_loyalty", "alignment_gap")
MOVED = (
    "mean_cosine_of_pairs",
    "iso_score",
    "effective_rank",
    "participation_ratio",
    "intrinsic_dimension",
    "norm",
    "largest_feature_share",
)
RATIO = ("norm_ratio",)


def middle_of(layers: int) -> int:
    """The layer in the middle of a model of so many."""
    return (layers + 1) // 2


def wide(rows: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """Make of rows by probe, layer and language a row a language: what is measured at the end.

    Measures without labels are there twice, as "cka, end" and "cka, middle".

    Args:
        rows: probe, layer, language, value, of one model or of several.
        by: the column that says which model.
    """
    last = rows["layer"].max() if by is None else rows.groupby(by)["layer"].transform("max")
    end = (rows["layer"] == last) | (rows["layer"] == -1)
    middle = rows["layer"] == (last + 1) // 2
    twice = rows["probe"].isin([*LESS, *MOVED, *RATIO])
    place = pd.Series(np.where(end, ", end", ", middle"), index=rows.index)
    column = rows["probe"].where(~twice, rows["probe"] + place)
    kept = rows.assign(column=column)[end | (middle & twice)]
    keys = ["language"] if by is None else [by, "language"]
    out = kept.pivot_table("value", keys, "column", sort=False).reset_index()
    return out.rename_axis(columns=None)
