"""Cells of a table as text and back: exact, and inert where a spreadsheet opens them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import IO, Any

import pandas as pd

from probes.errors import InputError

COLUMNS = [
    "model",
    "layer",
    "language",
    "probe",
    "value",
    "low",
    "high",
    "n",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_adjusted",
    "adjusted_low",
    "adjusted_high",
]
# What a number is from, where the corpus has groups or the model has replicates.
COUNTS = ["groups", "design_effect", "replicates", "between"]
# Which layer of the baseline stands beside one, where that is not the one of the same number.
BESIDE = "baseline_layer"
# What stands in a column of layers where there is none, as at the output: a whole number, since seaborn takes no
# nullable ones, and a missing one makes fractions of all others wherever the file is read.
NO_LAYER = -1
# Where a probe needs more than layer and language to say where a number is from.
FURTHER = ["other_layer", "module", "other_language"]
LAYERS = ("layer", BESIDE, "other_layer")
_TEXTS = ("model", "language", "probe", "module", "other_language")
# What a spreadsheet takes for a formula where a cell begins with it, wide forms included.
_RUNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as text.

    Names that a spreadsheet would run, or that begin with an apostrophe, have one more before them,
    which `from_csv` takes off.

    Example:
        >>> print(to_csv(pd.DataFrame({"model": ["=1+1"], "value": [-0.5]})), end="")
        model,value
        '=1+1,-0.5
    """

    def inert(value: Any) -> Any:
        risky = isinstance(value, str) and (value.startswith((*_RUNS, "'")) or not value)
        return f"'{value}" if risky else value

    texts = {c: table[c].astype(object).map(inert) for c in _TEXTS if c in table}
    # Quoted, a carriage return within a name is one and ends no line.
    returns = any(isinstance(v, str) and "\r" in v for column in texts.values() for v in column)
    return table.assign(**texts).to_csv(
        index=False, quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL, lineterminator="\n"
    )


def from_csv(file: Path | IO[bytes], name: object = None) -> pd.DataFrame:
    """Return the table that `to_csv` made a text of; raise `InputError` where it is no such table.

    Args:
        file: a path, or a file that is open.
        name: what messages call it; by default the path.
    """
    types: dict[str, Any] = dict.fromkeys(_TEXTS, str) | dict.fromkeys((*LAYERS, "groups", "replicates"), "Int64")
    # Numbers are read as text, and made of it by Python: pandas before 3.1 rounds some of them.
    numbers = [c for c in (*COLUMNS[4:], "design_effect", "between") if c != "n"]
    types |= dict.fromkeys(numbers, object)
    try:
        table = pd.read_csv(file, dtype=types, keep_default_na=False, na_values=[""], encoding="utf-8")
        missing = [c for c in COLUMNS if c not in table]
        if missing:
            raise ValueError(f"no column {missing[0]!r}")
        table = table.assign(**{c: table[c].to_numpy(object).astype(float) for c in numbers if c in table})
        if not pd.api.types.is_numeric_dtype(table["n"]):
            raise ValueError("column 'n' holds what is no number")
    except (ValueError, OverflowError) as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise InputError(
            f"{name or file}: expected the table that Comparison.save writes, found another ({said}). Save it again"
        ) from error
    for column in (c for c in _TEXTS if c in table):
        table[column] = table[column].str.removeprefix("'")
    return plain_layers(table)


def plain_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose layers are whole numbers, `NO_LAYER` where there is none.

    Example:
        >>> plain_layers(pd.DataFrame({"layer": [3, None]}))["layer"].tolist()
        [3, -1]
    """
    return table.assign(**{c: table[c].fillna(NO_LAYER).astype("int64") for c in LAYERS if c in table})


def costs_from_csv(file: Path | IO[bytes], name: object = None) -> pd.DataFrame:
    """Return the table of what models cost that `to_csv` made a text of; raise `InputError` where
    it is no such table.

    Args:
        file: a path, or a file that is open.
        name: what messages call it; by default the path.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8")
        if "model" not in table:
            raise ValueError("no column 'model'")
        for column in table.columns.difference(["model", "stored_as"]):
            table[column] = table[column].replace("", "nan").astype(float)
    except ValueError as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"{name or file}: expected the table of models that Comparison.save writes, found another ({said}). Save "
            "it again"
        ) from error
    table["model"] = table["model"].str.removeprefix("'")
    return table
