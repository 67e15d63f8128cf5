"""A corpus that is never whole in memory: files -> a data set that lies on disk, checked in pieces."""

from __future__ import annotations

import csv
import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from probes.errors import InputError
from probes.tables import REQUIRED, SEPARATORS, separator_of, to_frame

PIECE = 20_000  # rows that are read and checked at a time
_LOADERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json"}


def load_streamed(
    source: object,
    columns: Mapping[str, str],
    further: Sequence[str],
    check: Callable[[pd.DataFrame, str], pd.DataFrame],
    *,
    split: str | None,
    languages: Sequence[str] | None,
) -> datasets.Dataset:
    """Return a corpus that is read from disk where it is needed.

    Args:
        source: as `stream_files` takes it.
        columns: name in the files -> what it stands for.
        further: other columns that are kept, by their own names.
        check: what checks a frame, with the numbers of its rows as index.
        split, languages: what is kept, as of `load_corpus`.
    """
    loaded, name = stream_files(source)
    there = loaded.column_names
    for given, meant in columns.items():
        if given not in there and (meant in REQUIRED or given != meant):
            raise InputError(
                f"{name}: no column {given!r} for {meant!r}; the columns are {', '.join(map(repr, there))}. "
                f"Name the right one with {meant}=..., or add it"
            )
    if split is not None and "split" not in there:
        raise InputError(f"{name}: split={split!r} was asked for, but there is no column 'split'. Leave split out")
    kept = {c: m for c, m in columns.items() if c in there} | {c: c for c in ("split", *further) if c in there}
    out = checked_in_pieces(loaded, name, kept, check)
    for column, wanted in (("split", None if split is None else [split]), ("language", languages)):
        if wanted is not None:
            out = _keep(out, column, list(wanted), name)
    _check_across(out, name)
    return out


def _keep(data: datasets.Dataset, column: str, wanted: list[str], name: str) -> datasets.Dataset:
    """Keep the rows that have one of some values, in the order of these."""
    codes = np.concatenate([pd.Categorical(frame[column], wanted).codes for frame in pieces(data, [column])])
    lost = [value for i, value in enumerate(wanted) if not (codes == i).any()]
    if lost:
        there = sorted({value for frame in pieces(data, [column]) for value in frame[column].unique()})
        raise InputError(
            f"{name}: unknown {column} {', '.join(map(repr, lost))}; there are {', '.join(map(repr, there))}"
        )
    order = np.argsort(codes, kind="stable")
    return data.select(order[(codes < 0).sum() :])


def stream_files(source: object) -> tuple[datasets.Dataset, str]:
    """Return the rows of files as a data set that is read from disk, and what messages call it.

    The files are converted once, by the loaders of `datasets`, into its cache (HF_DATASETS_CACHE).

    Args:
        source: the path of a .parquet, .csv, .tsv or .jsonl file, or a pattern of such files.

    Raises:
        InputError: no such file, or another kind of source; cells are separated by something else
            than the name says; the files cannot be read as one table.
    """
    kinds = ", ".join(_LOADERS)
    if not isinstance(source, str | Path):
        raise InputError(f"streaming=True reads files ending in {kinds}; found {type(source).__name__}. Leave it out")
    paths = sorted(glob.glob(str(source), recursive=True)) if not Path(source).exists() else [str(source)]
    if not paths:
        raise InputError(f"{source}: no such file, and none that fits such a pattern. Check the path")
    endings = {Path(path).suffix.lower() for path in paths}
    if len(endings) > 1 or not endings <= set(_LOADERS):
        raise InputError(
            f"{source}: streaming=True reads files of one kind, ending in {kinds}; found "
            f"{', '.join(sorted(endings))}. Convert them, or leave streaming out"
        )
    (ending,) = endings
    how: dict[str, Any] = {}
    if ending in (".csv", ".tsv"):
        names = [_header(path, ending) for path in paths]
        if any(one != names[0] for one in names):
            raise InputError(
                f"{source}: expected files of the same columns; found {names[0]} and others. Give one table"
            )
        how = {"sep": "\t" if ending == ".tsv" else ",", "keep_default_na": False, "na_values": [""]}
        how |= {"quoting": csv.QUOTE_NONE if ending == ".tsv" else csv.QUOTE_MINIMAL}
        how |= {"features": datasets.Features({name: datasets.Value("string") for name in names[0]})}
    shown = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        files = [str(Path(path).resolve()) for path in paths]
        loaded = datasets.load_dataset(_LOADERS[ending], data_files=files, split="train", **how)
    except Exception as error:  # the loaders raise many kinds; all of them mean the same to the user
        said = (str(error.__cause__ or error).strip().splitlines() or [""])[0]
        raise InputError(
            f"{source}: cannot be read as a table of {ending[1:]} ({type(error).__name__}: {said}). Give files of the "
            "same columns that are what their names say"
        ) from error
    finally:
        if not shown:
            datasets.enable_progress_bars()
    return loaded, str(source)


def _header(path: str, ending: str) -> list[str]:
    if ending == ".csv":
        with open(path, "rb") as head:
            by = separator_of(head.read(4096))
        if by != ",":
            raise InputError(
                f"{path}: cells are separated by {SEPARATORS[by]}, not by commas, and streaming=True reads commas "
                "alone. Write the file with commas, or with tabs as .tsv, or leave streaming out"
            )
    with open(path, encoding="utf-8-sig", newline="") as file:
        cells = csv.reader(file, csv.excel_tab if ending == ".tsv" else csv.excel)
        return next(cells, [])


def checked_in_pieces(
    loaded: datasets.Dataset, name: str, columns: Mapping[str, str], check: Callable[[pd.DataFrame, str], pd.DataFrame]
) -> datasets.Dataset:
    """Return a data set with the columns of a corpus as texts, checked piece by piece, on disk too.

    Args:
        loaded: as `stream_files` gives it.
        name: what messages call it.
        columns: name in the data set -> what it stands for; others are dropped.
        check: what checks a frame, with the numbers of its rows as index.

    Raises:
        InputError: what `check` raises; a column of labels or groups is empty in a part of the rows.
    """
    if not len(loaded):
        raise InputError(f"{name}: expected at least one row, found none. Check the files")
    data = loaded.select_columns(list(columns)).rename_columns({k: v for k, v in columns.items() if k != v})
    empty = [c for c in ("label", "group") if c in data.column_names and _all_empty(data, c)]
    data = data.remove_columns(empty)
    whole = {
        c: _all_whole(data, c)
        for c, kind in data.features.items()
        if str(getattr(kind, "dtype", "")).startswith("float")
    }
    features = datasets.Features({c: datasets.Value("string") for c in data.column_names})

    def of_piece(_: Any, rows: list[int]) -> dict[str, list[str]]:
        frame = to_frame(data.select(range(rows[0], rows[-1] + 1)))
        frame.index = pd.RangeIndex(rows[0], rows[-1] + 1)
        for column, plain in whole.items():
            if not plain:  # 2.0 stays so where another row has 1.5
                frame[column] = frame[column].map(str, na_action="ignore").astype(object)
        out = check(frame, name)
        if lost := [c for c in frame if c not in out]:
            raise InputError(f"{name}: {lost[0]} is empty in rows {rows[0]} to {rows[-1]}. Fill it, or drop the rows")
        return {c: out[c].tolist() for c in out}

    shown = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        out = data.map(
            of_piece,
            with_indices=True,
            batched=True,
            batch_size=PIECE,
            features=features,
            new_fingerprint=f"{data._fingerprint}-layerscope",
        )
    finally:
        if not shown:
            datasets.enable_progress_bars()
    return out


def pieces(data: datasets.Dataset, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Yield some columns of a data set, some rows at a time."""
    some = data.select_columns(list(columns))
    for start in range(0, len(data), PIECE):
        yield to_frame(some.select(range(start, min(start + PIECE, len(data)))))


def _all_empty(data: datasets.Dataset, column: str) -> bool:
    return all((frame[column].isna() | (frame[column] == "")).all() for frame in pieces(data, [column]))


def _all_whole(data: datasets.Dataset, column: str) -> bool:
    return all((frame[column].dropna() % 1 == 0).all() for frame in pieces(data, [column]))


def _check_across(data: datasets.Dataset, name: str) -> None:
    """What no piece shows: rows of one id and language, and ids in two groups."""
    keys = np.concatenate([_hash(frame) for frame in pieces(data, ["id", "language"])])
    for at in _same(keys):
        rows = data[at.tolist()]
        pairs = list(zip(rows["id"], rows["language"], strict=True))
        twice = next((pair for i, pair in enumerate(pairs) if pair in pairs[:i]), None)
        if twice is not None:
            raise InputError(
                f"{name}: id {twice[0]!r} occurs more than once in language {twice[1]!r} (rows "
                f"{', '.join(map(str, at[:5].tolist()))}, counted from 0). An id stands for one sentence: give each "
                "its own, and the same id to its translations only"
            )
    if "group" not in data.column_names:
        return
    ids = np.concatenate([_hash(frame) for frame in pieces(data, ["id"])])
    groups = np.concatenate([_hash(frame) for frame in pieces(data, ["group"])])
    order = np.lexsort((groups, ids))
    for place in np.flatnonzero((np.diff(ids[order]) == 0) & (np.diff(groups[order]) != 0)).tolist():
        one, other = data[int(order[place])], data[int(order[place + 1])]
        if one["id"] == other["id"]:
            raise InputError(
                f"{name}: id {one['id']!r} lies in group {one['group']!r} and in group {other['group']!r}. "
                "Translations of one sentence belong to one group: give all rows of an id the same"
            )


def _hash(frame: pd.DataFrame) -> np.ndarray:
    return pd.util.hash_pandas_object(frame.astype(object), index=False).to_numpy()


def _same(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the places of keys that come more than once, in order."""
    order = np.argsort(keys, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(keys[order]) != 0) + 1, len(keys)]
    sizes = np.diff(ends, prepend=0)
    for stop, size in zip(ends[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        yield order[stop - size : stop]
