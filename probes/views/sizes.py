"""What models cost, in words: bytes and time beside those of the baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

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
    share = "" if itself or np.isnan(base) else f" ({100 * size / base:.3g} %)"
    heavy = float(row["embeddings"]) / float(row["parameters"])
    return Size(
        f"{bytes_in_words(size)}{share}{_HOW.get(how, '')}",
        "" if itself or how in SIMULATED else _speed(*(float(row[f"speed_32{end}"]) for end in ("", "_low", "_high"))),
        f"{heavy:.0%} of its parameters are embeddings".replace("%", " %") if heavy > _MOST else "",
    )


def _speed(value: float, low: float, high: float) -> str:
    """How much faster, where that is seen in every round."""
    if np.isnan(value):
        return ""
    if low > 1:
        return f"{value:.2g}x faster"
    if high < 1:
        return f"{1 / value:.2g}x slower"
    return "as fast" if max(high - 1, 1 / low - 1) < _ALIKE else "speed unsettled"


def bytes_in_words(count: float) -> str:
    """Return a number of bytes to three digits.

    Example:
        >>> bytes_in_words(118_732_416), bytes_in_words(6_922_272), bytes_in_words(1_390)
        ('119 MB', '6.92 MB', '1.39 kB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * scale:
            return f"{float(f'{count / scale:.3g}'):g} {unit}"
    return f"{count:.0f} bytes"


def seconds_in_words(seconds: float) -> str:
    """Return a time to two digits.

    Example:
        >>> seconds_in_words(0.0312), seconds_in_words(2.31)
        ('31 ms', '2.3 s')
    """
    return f"{float(f'{1000 * seconds:.2g}'):g} ms" if seconds < 0.995 else f"{float(f'{seconds:.2g}'):g} s"


def as_rows(models: pd.DataFrame) -> list[dict[str, str]]:
    """Return a table of what models cost as texts, a row a model: of the columns that have values,
    in the words of its head.
    """
    names: dict[str, tuple[str, Callable[[Any], str]]] = {
        "stored_bytes": ("stored", bytes_in_words),
        "stored_as": ("stored as", str),
        "bytes": ("file", bytes_in_words),
        "parameters": ("parameters", lambda n: f"{n:,.0f}"),
        "nonzero": ("not zero", lambda n: f"{n:,.0f}"),
        "embeddings": ("in embeddings", lambda n: f"{n:,.0f}"),
        "operations": ("operations, 32 texts", lambda n: f"{n:.3g}"),
        "seconds_1": ("time, 1 text", seconds_in_words),
        "seconds_32": ("time, 32 texts", seconds_in_words),
        "speed_1": ("times as fast, 1 text", lambda x: f"{x:.2g}"),
        "speed_32": ("times as fast, 32 texts", lambda x: f"{x:.2g}"),
    }
    there = [name for name in names if name in models and (models[name].notna() & (models[name] != "")).any()]
    out = []
    for row in models.to_dict("records"):
        cells = {names[n][0]: "" if pd.isna(row[n]) else names[n][1](row[n]) for n in there}
        for count in (1, 32):
            if (low := row.get(f"speed_{count}_low")) is not None and not pd.isna(low):
                ends = f" [{low:.2g}, {row[f'speed_{count}_high']:.2g}]"
                cells[names[f"speed_{count}"][0]] += ends
        out.append({"model": str(row["model"]), **cells})
    return out
