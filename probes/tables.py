"""A table from wherever it lies -> a pandas frame: files, a data set, a name on the hub."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
from collections.abc import Callable
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import datasets
import pandas as pd
import pyarrow

from probes.errors import InputError, needed

REQUIRED = ("id", "language", "text")


def read_table(
    source: str | Path | pd.DataFrame | datasets.Dataset, split: str | None = None
) -> tuple[pd.DataFrame, str, list[str]]:
    """Return the rows of a source as they are, what messages call it, and how it was read where
    that is not what its name says.

    Args:
        source: as `load_corpus` takes it.
        split: of a data set on the hub.

    Raises:
        InputError: there is no such source; it is not what its name says; it cannot be read as a
            table; files of one pattern have other columns.
        DependencyError: an Excel file, and openpyxl is not installed.

    Example:
        >>> frame, name, notes = read_table(pd.DataFrame({"id": ["1"], "text": ["a text"]}))
        >>> name, len(frame), notes
        ('the frame', 1, [])
    """
    notes: list[str] = []
    frame, name = _read(source, split, notes)
    if isinstance(frame.columns, pd.MultiIndex):
        raise InputError(
            f"{name}: expected columns with one name each, found names of {frame.columns.nlevels} levels. "
            "Set them with frame.columns = [...]"
        )
    # So that messages give the rows as they were given.
    return _decoded(frame.reset_index(drop=True)), name, notes


def is_hub_name(source: object) -> bool:
    """Whether a source is `name` or `owner/name` without a file's ending, and no path here."""
    if not isinstance(source, str) or source == "bundled" or Path(source).exists():
        return False
    return (
        _ending(Path(source)) not in _READERS
        and source.count("/") <= 1
        and not source.startswith((".", "/"))
        and not glob.has_magic(source)
    )


def to_frame(corpus: datasets.Dataset) -> pd.DataFrame:
    """Return the rows of a data set, with the names of its classes in place of their numbers."""
    frame = corpus.with_format(None).to_pandas()
    for name, feature in corpus.features.items():
        if isinstance(feature, datasets.ClassLabel):
            frame[name] = [None if v is None or pd.isna(v) or v < 0 else feature.int2str(int(v)) for v in frame[name]]
    return frame


def _decoded(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose bytes are texts, where all of a column are UTF-8: older writers of Parquet do
    not say so.
    """
    changed = {}
    for i in range(frame.shape[1]):  # by place: names may come twice
        values = frame.iloc[:, i]
        there = values.dropna()
        if len(there) and isinstance(there.iloc[0], bytes) and all(isinstance(v, bytes) for v in there):
            try:
                changed[i] = values.map(bytes.decode, na_action="ignore")
            except UnicodeDecodeError:  # no text: refused where it is needed as one
                continue
    if not changed:
        return frame
    out = pd.concat([changed.get(i, frame.iloc[:, i]) for i in range(frame.shape[1])], axis=1)
    out.columns = frame.columns
    return out


def _read(
    source: str | Path | pd.DataFrame | datasets.Dataset, split: str | None, notes: list[str]
) -> tuple[pd.DataFrame, str]:
    if isinstance(source, pd.DataFrame):
        return source, "the frame"
    if isinstance(source, datasets.Dataset):
        return to_frame(source), "the data set"
    if isinstance(source, datasets.DatasetDict):
        raise InputError(f"expected one data set, found a dictionary of {', '.join(source)}. Pass one of them")
    if source == "bundled":
        with resources.as_file(resources.files("probes.data") / "corpus.tsv") as path:
            return _read_file(path, notes)
    if not isinstance(source, str | Path):
        raise InputError(
            "expected 'bundled', a path, a pandas frame, a datasets.Dataset or a hub name; "
            f"found {type(source).__name__}"
        )
    if is_hub_name(source):
        return _read_hub(str(source), split)
    if glob.has_magic(str(source)) and not Path(source).exists():
        return _read_files(str(source), notes)
    return _read_file(Path(source), notes)


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


# What unpacks a file, by the ending that stands after that of a table.
_PACKERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".zst": lambda path: pyarrow.input_stream(str(path), compression="zstd"),
}


def _opened(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where its name says that it is packed."""
    return cast(BinaryIO, _PACKERS.get(path.suffix.lower(), lambda path: path.open("rb"))(path))


def _read_csv(path: Path, separator: str, notes: list[str]) -> pd.DataFrame:
    with _opened(path) as file:
        head = file.read(4096)
    if b"\0" in head or head[:4] == b"PAR1":
        raise ValueError("binary content")
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    if separator == ",":
        separator = separator_of(head)
        if separator != ",":
            notes.append(f"{path}: cells are separated by {SEPARATORS[separator]}, not by commas, and are read so")
    how: dict[str, Any] = {
        "sep": separator,
        "dtype": str,
        # Only an empty cell is null: "NA" and "null" are words, and "no" and "nan" are language codes.
        "keep_default_na": False,
        "na_values": [""],
        "encoding": "utf-8",
        # Tab-separated text is not quoted: a quotation mark is one.
        "quoting": quoting,
    }
    with _opened(path) as file:
        frame = pd.read_csv(file, **how)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas would take the first cells of longer rows for names of rows
        raise ValueError("rows have more cells than the header; a text that holds the separator needs quotes")
    # The names as they are: pandas has numbered those that come twice.
    with _opened(path) as file:
        header = pd.read_csv(file, header=None, nrows=1, **how).iloc[0]
    frame.columns = pd.Index([own if pd.isna(h) else h for own, h in zip(frame.columns, header, strict=True)])
    return _with_points(frame, path, notes) if separator == ";" else frame


SEPARATORS = {";": "semicolons", "\t": "tabs"}


def separator_of(head: bytes) -> str:
    """Return what separates the cells of a table that is called comma-separated, from its first line.

    Example:
        >>> separator_of(b"id;language;text"), separator_of(b"id,language,text;more")
        (';', ',')
    """
    line = head.decode("utf-8-sig", errors="replace").splitlines()[:1]
    cells = {by: len(next(csv.reader(line, delimiter=by), [])) for by in (",", *SEPARATORS)}
    most = max(cells, key=lambda by: cells[by])  # of equals the first
    return most if cells[","] < len(REQUIRED) <= cells[most] else ","


def _with_points(frame: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    """Columns of numbers with decimal commas, which go with semicolons, have points."""
    for i, column in enumerate(frame.columns):
        there = frame.iloc[:, i].dropna()
        commas = there.str.fullmatch(r"[+-]?\d+,\d+")
        if len(there) and commas.any() and (commas | there.str.fullmatch(r"[+-]?\d+")).all():
            frame.isetitem(i, frame.iloc[:, i].str.replace(",", "."))
            notes.append(f"{path}: {column} holds numbers with decimal commas; they are read with points")
    return frame


def _read_jsonl(path: Path, notes: list[str]) -> pd.DataFrame:
    with io.TextIOWrapper(_opened(path), encoding="utf-8-sig") as lines:
        first = next((line for line in lines if line.strip()), "")
        if first.lstrip().startswith("["):  # one list of objects
            rows = json.loads(first + lines.read(), object_pairs_hook=_once)
        else:
            rows = [json.loads(line, object_pairs_hook=_once) for line in chain([first], lines) if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one object a line")
    # As they are: numbers beyond 64 bits, and texts that are none, are for `load_corpus` to judge.
    return pd.DataFrame(
        rows, columns=pd.Index(dict.fromkeys(k for row in rows for k in row), dtype=object), dtype=object
    )


def _read_excel(path: Path, notes: list[str]) -> pd.DataFrame:
    with pd.ExcelFile(path, engine="openpyxl") as book:
        if len(book.sheet_names) > 1:
            notes.append(f"{path}: read from the first of its {len(book.sheet_names)} sheets, {book.sheet_names[0]!r}")
        return pd.read_excel(book, sheet_name=0, dtype=object, keep_default_na=False, na_values=[""])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys are each there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise ValueError(f"an object has the key {twice!r} twice")
    return found


_READERS: dict[str, tuple[str, Callable[[Path, list[str]], pd.DataFrame]]] = {
    ".csv": ("a comma-separated table", lambda path, notes: _read_csv(path, ",", notes)),
    ".tsv": ("a tab-separated table", lambda path, notes: _read_csv(path, "\t", notes)),
    ".parquet": ("a Parquet file", lambda path, notes: pd.read_parquet(path)),
    ".jsonl": ("a file of JSON lines", _read_jsonl),
    ".json": ("a file of JSON lines", _read_jsonl),
    ".xlsx": ("an Excel file", _read_excel),
}
_PACKED = (".csv", ".tsv", ".jsonl", ".json")  # what may have an ending of `_PACKERS` behind


def _ending(path: Path) -> str:
    """The ending that says what a file is: of c.csv.gz that of c.csv."""
    last = path.suffix.lower()
    before = path.with_suffix("").suffix.lower() if last in _PACKERS else ""
    return before if before in _PACKED else last


def _read_files(pattern: str, notes: list[str]) -> tuple[pd.DataFrame, str]:
    """All files that a pattern fits, in the order of their names, as one table."""
    paths = [Path(found) for found in sorted(glob.glob(pattern, recursive=True))]
    if not paths:
        raise InputError(f"{pattern}: no file fits the pattern. Check the path")
    frames = [_read_file(path, notes)[0] for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        other = sorted(map(str, set(frame).symmetric_difference(frames[0])))
        if other or len(frame.columns) != len(frames[0].columns):
            raise InputError(
                f"{pattern}: expected files of the same columns; {path} and {paths[0]} differ in "
                f"{', '.join(map(repr, other)) or 'columns that come twice'}. Give files of one table"
            )
    name = pattern if len(paths) == 1 else f"{pattern} ({len(paths)} files, their rows counted through)"
    return pd.concat(frames, ignore_index=True), name


def _read_file(path: Path, notes: list[str]) -> tuple[pd.DataFrame, str]:
    ending = _ending(path)
    if ending not in _READERS:
        raise InputError(
            f"{path}: expected a file ending in {', '.join(_READERS)}, found {path.suffix or 'no ending'!r}. "
            f"Convert it, or pass a pandas frame ({', '.join(_PACKED)} may be packed: {', '.join(_PACKERS)})"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the path")
    kind, read = _READERS[ending]
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty. Expected {kind} with the columns {', '.join(REQUIRED)}")
    if ending == ".xlsx":
        needed("openpyxl", f"{path}: {kind}", extra="excel")
    try:
        return read(path, notes), str(path)
    except Exception as error:  # each reader raises its own kinds; all of them mean the same to the user
        if isinstance(error, OSError) and error.errno:  # of the disk, and not of what is in the file
            raise InputError(f"{path} cannot be read ({error.strerror}). Check its permissions and the disk") from error
        if ending in _PACKED and (said := _other_encoding(path, ending)):
            raise InputError(f"{path}: {said}") from error
        raise InputError(
            f"{path} is not {kind}, as its name says ({type(error).__name__}: {_first_line(error)}). "
            "Give the file the ending of what it is"
        ) from error


def _other_encoding(path: Path, ending: str) -> str:
    """Where a file of text is not UTF-8, what it seems to be and what to do; else ""."""
    try:
        with _opened(path) as file:
            head = file.read(2)
            if head in (b"\xff\xfe", b"\xfe\xff"):
                return "expected text in UTF-8, found UTF-16. Save it as UTF-8 ('CSV UTF-8' in a spreadsheet)"
            for number, line in enumerate(file):
                line, head = head + line, b""
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    if b"\0" in line:
                        return ""
                    row = number - (ending in (".csv", ".tsv"))
                    where = f"line {number + 1}" + (f" (row {row})" if row >= 0 else "")
                    said = f"expected text in UTF-8, found the byte {line[error.start]:#x} in {where}"
                    near = line[max(0, error.start - 20) : error.start + 20]
                    try:
                        shown = repr(near.decode("cp1252").strip())
                    except UnicodeDecodeError:
                        return f"{said}. Save it as UTF-8 with the program that it is from"
                    return (
                        f"{said}: in Windows-1252, in which spreadsheets save, it would read {shown}. Save it as UTF-8 "
                        "('CSV UTF-8' in a spreadsheet; or iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW)"
                    )
    except Exception:  # it cannot be unpacked: the first error says so
        return ""
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
