"""A table from wherever it lies -> a pandas frame: a file, a data set, a name on the hub."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import datasets
import pandas as pd

from probes.errors import InputError

REQUIRED = ("id", "language", "text")


def read_table(
    source: str | Path | pd.DataFrame | datasets.Dataset, split: str | None = None
) -> tuple[pd.DataFrame, str]:
    """Return the rows of a source as they are, and what messages call it.

    Args:
        source: as `load_corpus` takes it.
        split: of a data set on the hub.

    Raises:
        InputError: there is no such source; it is not what its name says; it cannot be read as a
            table.

    Example:
        >>> frame, name = read_table(pd.DataFrame({"id": ["1"], "language": ["en"], "text": ["a text"]}))
        >>> name, len(frame)
        ('the frame', 1)
    """
    frame, name = _read(source, split)
    if isinstance(frame.columns, pd.MultiIndex):
        raise InputError(
            f"{name}: expected columns with one name each, found names of {frame.columns.nlevels} levels. "
            "Set them with frame.columns = [...]"
        )
    return frame.reset_index(drop=True), name  # so that messages give the rows as they were given


def is_hub_name(source: object) -> bool:
    """Whether a source is `name` or `owner/name` without a file's ending, and no path here."""
    if not isinstance(source, str) or source == "bundled" or Path(source).exists():
        return False
    return Path(source).suffix.lower() not in _READERS and source.count("/") <= 1 and not source.startswith((".", "/"))


def to_frame(corpus: datasets.Dataset) -> pd.DataFrame:
    """Return the rows of a data set, with the names of its classes in place of their numbers."""
    frame = corpus.with_format(None).to_pandas()
    for name, feature in corpus.features.items():
        if isinstance(feature, datasets.ClassLabel):
            frame[name] = [None if v is None or pd.isna(v) or v < 0 else feature.int2str(int(v)) for v in frame[name]]
    return frame


def _read(source: str | Path | pd.DataFrame | datasets.Dataset, split: str | None) -> tuple[pd.DataFrame, str]:
    if isinstance(source, pd.DataFrame):
        return source, "the frame"
    if isinstance(source, datasets.Dataset):
        return to_frame(source), "the data set"
    if isinstance(source, datasets.DatasetDict):
        raise InputError(f"expected one data set, found a dictionary of {', '.join(source)}. Pass one of them")
    if source == "bundled":
        with resources.as_file(resources.files("probes.data") / "corpus.tsv") as path:
            return _read_file(path)
    if not isinstance(source, str | Path):
        raise InputError(
            "expected 'bundled', a path, a pandas frame, a datasets.Dataset or a hub name; "
            f"found {type(source).__name__}"
        )
    if is_hub_name(source):
        return _read_hub(str(source), split)
    return _read_file(Path(source))


def _read_hub(name: str, split: str | None) -> tuple[pd.DataFrame, str]:
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub's client raises many kinds; each means that there is no data set to use
        raise InputError(
            f"{name!r} is neither a file here nor a data set that could be loaded from the hub "
            f"({type(error).__name__}: {_first_line(error)}). Check the path or the name"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        raise InputError(f"{name!r} has the splits {', '.join(loaded)}. Choose one with split=...")
    return to_frame(loaded), name


def _read_csv(path: Path, separator: str) -> pd.DataFrame:
    with path.open("rb") as file:
        if b"\0" in (head := file.read(4096)) or head[:4] == b"PAR1":
            raise ValueError("binary content")
    how: dict[str, Any] = {
        "sep": separator,
        "dtype": str,
        # Only an empty cell is null: "NA" and "null" are words, and "no" and "nan" are language codes.
        "keep_default_na": False,
        "na_values": [""],
        "encoding": "utf-8",
        # Tab-separated text is not quoted: a quotation mark is one.
        "quoting": csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL,
    }
    frame = pd.read_csv(path, **how)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas would take the first cells of longer rows for names of rows
        raise ValueError("rows have more cells than the header; a text that holds the separator needs quotes")
    # The names as they are: pandas has numbered those that come twice.
    header = pd.read_csv(path, header=None, nrows=1, **how).iloc[0]
    frame.columns = pd.Index([own if pd.isna(h) else h for own, h in zip(frame.columns, header, strict=True)])
    return frame


def _read_jsonl(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig") as lines:
        rows = [json.loads(line, object_pairs_hook=_once) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one object a line")
    # As they are: numbers beyond 64 bits, and texts that are none, are for `load_corpus` to judge.
    return pd.DataFrame(
        rows, columns=pd.Index(dict.fromkeys(k for row in rows for k in row), dtype=object), dtype=object
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys are each there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise ValueError(f"an object has the key {twice!r} twice")
    return found


_READERS: dict[str, tuple[str, Callable[[Path], pd.DataFrame]]] = {
    ".csv": ("a comma-separated table", lambda path: _read_csv(path, ",")),
    ".tsv": ("a tab-separated table", lambda path: _read_csv(path, "\t")),
    ".parquet": ("a Parquet file", pd.read_parquet),
    ".jsonl": ("a file of JSON lines", _read_jsonl),
    ".json": ("a file of JSON lines", _read_jsonl),
}


def _read_file(path: Path) -> tuple[pd.DataFrame, str]:
    if path.suffix.lower() not in _READERS:
        raise InputError(
            f"{path}: expected a file ending in {', '.join(_READERS)}, found {path.suffix or 'no ending'!r}. "
            "Convert it, or pass a pandas frame"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the path")
    kind, read = _READERS[path.suffix.lower()]
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty. Expected {kind} with the columns {', '.join(REQUIRED)}")
    try:
        return read(path), str(path)
    except Exception as error:  # each reader raises its own kinds; all of them mean the same to the user
        if isinstance(error, OSError) and error.errno:  # of the disk, and not of what is in the file
            raise InputError(f"{path} cannot be read ({error.strerror}). Check its permissions and the disk") from error
        raise InputError(
            f"{path} is not {kind}, as its name says ({type(error).__name__}: {_first_line(error)}). "
            "Give the file the ending of what it is"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
