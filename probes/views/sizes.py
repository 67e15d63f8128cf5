"""What models cost, in words: bytes and time beside those of the baseline."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probes.files import in_words
from probes.printing import two_digits
from probes.results.table import Table

SIMULATED = ("integers", "codebooks")  # what is timed is not what would be stored so
_HOW = {"packed": ", packed", "integers": " as integers", "codebooks": " as codebooks"}
_ALIKE = 0.1  # of the time: what is no difference to speak of
_MOST = 0.5  # from where on embeddings are said to be most of a model


class Size(NamedTuple):
    """What is said of a model: its bytes, its time, and where most of it lies."""

    stored: str = ""
    speed: str = ""
    embeddings: str = ""


def sizes(table: Table) -> dict[str, Size]:
    """Return what is said of each model of a comparison; nothing of what was not measured."""
    models = table.models
    if "stored_bytes" not in models:
        return {}
    rows = models.set_index("model").to_dict("index")
    base = rows.get(table.baseline, {}).get("stored_bytes", np.nan)
    return {str(name): _of_model(row, float(base), name == table.baseline) for name, row in rows.items()}


def _of_model(row: dict[str, float | str], base: float, itself: bool) -> Size:
    size, how = float(row["stored_bytes"]), str(row["stored_as"])
    if np.isnan(size):
        return Size()
    share = "" if itself or np.isnan(base) else f" ({two_digits(100 * size / base)} %)"
    # Said where it explains why a model did not get much smaller.
    heavy = float(row["embeddings"]) / float(row["parameters"]) if not itself and size > _MOST * base else 0.0
    return Size(
        f"{in_words(size)}{share}{_HOW.get(how, '')}",
        "" if itself or how in SIMULATED else _speed(*(float(row[f"speed_32{end}"]) for end in ("", "_low", "_high"))),
        f"{heavy:.0%} of its parameters are embeddings".replace("%", " %") if heavy > _MOST else "",
    )


def _speed(value: float, low: float, high: float) -> str:
    """How much faster, where that is seen in every round."""
    if np.isnan(value):
        return ""
    if low > 1:
        return f"{two_digits(value)}x faster"
    if high < 1:
        return f"{two_digits(1 / value)}x slower"
    return "as fast" if max(high - 1, 1 / low - 1) < _ALIKE else "speed unsettled"
