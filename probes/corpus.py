"""Labelled, parallel text: load it, check it, describe it.

A corpus is a `datasets.Dataset` with the text columns `id` (the same id = translations of one
sentence), `language`, `text` and, where the task has them, `label`, `text_pair`, `split`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import weakref
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from probes.errors import InputError

REQUIRED = ("id", "language", "text")


def load_corpus(
    source: str | Path | pd.DataFrame | datasets.Dataset,
    *,
    split: str | None = None,
    languages: Sequence[str] | None = None,
    id: str = "id",
    language: str = "language",
    text: str = "text",
    label: str = "label",
    text_pair: str = "text_pair",
) -> datasets.Dataset:
    """Load labelled, parallel text: "bundled", a file, a frame, a data set or a hub name.

    Args:
        source: "bundled"; a path ending in .csv, .tsv (not quoted), .parquet, .jsonl or .json (JSON
            lines); a frame; a data set; or the name of a data set on the Hugging Face hub.
        split: keep the rows of this split only (for a hub name: the split that is loaded).
        languages: keep these languages only, in this order.
        id, language, text, label, text_pair: the names of the columns in the source, where they
            differ from these.

    Returns:
        A `datasets.Dataset` with the string columns `id, language, text` and, where the source has
        them, `label`, `text_pair` and `split`. Other columns are dropped. A label column of empty
        strings counts as no labels.

    Raises:
        InputError: a column is missing; an id, language, text or label is null or empty; the same
            (id, language) comes twice; the table is empty; a language or split is unknown; the file
            is not what its name says.

    Example:
        >>> corpus = load_corpus("bundled", split="test", languages=["en", "ar"])
        >>> sorted(corpus.column_names)
        ['id', 'label', 'language', 'split', 'text']
        >>> sorted(set(corpus["language"]))
        ['ar', 'en']
    """
    frame, name = _read(source, split)
    frame = frame.reset_index(drop=True)  # so that messages give the rows as they were given
    if isinstance(languages, str):
        raise InputError(f"languages={languages!r}: expected a list of language codes, found one string")
    given_names = [id, language, text, *(c for c in (label, text_pair, "split") if c in frame)]
    for column in given_names:
        if given_names.count(column) > 1 or (column in frame and list(frame).count(column) > 1):
            raise InputError(f"{name}: column {column!r} stands for more than one thing. Give each its own column")
    columns = {id: "id", language: "language", text: "text", label: "label", text_pair: "text_pair"}
    for given, meant in columns.items():
        required = meant in REQUIRED
        if given not in frame and (required or given != meant):
            raise InputError(
                f"{name}: no column {given!r} for {meant!r}; the columns are {', '.join(map(repr, frame))}. "
                f"Name the right one with {meant}=..., or add it"
            )
    frame = frame[[c for c in (*columns, "split") if c in frame]].rename(columns=columns)
    if split is not None and "split" in frame:
        frame = _keep(frame, "split", [split], name)
    elif split is not None and not _is_hub_name(source):
        raise InputError(f"{name}: split={split!r} was asked for, but there is no column 'split'. Leave split out")
    if languages is not None:
        if len(set(languages)) < len(languages):
            raise InputError(f"{name}: languages={list(languages)!r} names one twice. Give each once")
        frame = _keep(frame, "language", list(languages), name)
        frame = frame.iloc[np.argsort(pd.Categorical(frame["language"], list(languages)).codes, kind="stable")]
    frame = _checked(frame, name)
    out = datasets.Dataset.from_pandas(frame.reset_index(drop=True), preserve_index=False)
    _CHECKED.add(out)
    return out


def describe(corpus: datasets.Dataset) -> None:
    """Print the counts of a corpus by language, label and split, and its `cautions`.

    Example:
        >>> corpus = load_corpus("bundled", split="dev", languages=["en", "fr"])
        >>> describe(corpus)  # doctest: +ELLIPSIS
        480 rows, 240 ids, 2 languages...
    """
    frame = _frame(corpus)
    print(f"{len(frame):,} rows, {frame['id'].nunique():,} ids, {frame['language'].nunique()} languages")
    for column in ("split", "label"):
        if column in frame:
            print("\n" + pd.crosstab(frame["language"], frame[column], margins=True, margins_name="(all)").to_string())
    if "label" not in frame:
        print("\n" + frame["language"].value_counts(sort=False).to_string())
    found = cautions(corpus)
    print("\n" + "\n".join(f"caution: {c}" for c in found) if found else "\nnothing that is known to mislead was found")


def cautions(corpus: datasets.Dataset) -> list[str]:
    """Say what in a corpus could mislead a probe: a plain sentence each, or an empty list.

    Looked for: rows sorted by label, classes of one example, labels readable from the length of the
    text alone (cross-validated, more than 5 points above the largest class), duplicated texts, ids
    missing in a language, and translations that carry different labels.

    Example:
        >>> cautions(load_corpus("bundled", split="test"))
        []
    """
    frame = _frame(corpus)
    found = []
    sizes = frame.groupby("language", sort=False)["id"].nunique()
    union = frame["id"].nunique()
    missing = {language: union - n for language, n in sizes.items() if n < union}
    if missing and len(sizes) > 1:
        found.append("ids missing in a language: " + ", ".join(f"{k} lacks {n} of {union}" for k, n in missing.items()))
    pairs = [c for c in ("language", "text", "text_pair") if c in frame]
    duplicated = frame[frame.duplicated(pairs, keep=False)].groupby("language", sort=False).size()
    if len(duplicated):
        found.append("duplicated texts: " + ", ".join(f"{n} rows in {k}" for k, n in duplicated.items()))
    if "label" not in frame:
        return found
    if frame.groupby("id")["label"].nunique().max() > 1:
        n = int((frame.groupby("id")["label"].nunique() > 1).sum())
        found.append(f"translations of one sentence carry different labels: {n} ids")
    ordered, lonely = [], []
    for language, rows in frame.groupby("language", sort=False):
        labels = rows["label"]
        counts = labels.value_counts()
        if 1 < len(counts) < len(labels) / 2 and (labels.to_numpy()[1:] != labels.to_numpy()[:-1]).sum() < len(counts):
            ordered.append(str(language))
        if (counts == 1).any():
            lonely.append(f"{', '.join(map(repr, counts.index[counts == 1]))} in {language}")
        accuracy, majority = _accuracy_from_length(rows)
        if accuracy > majority + 0.05:
            found.append(
                f"label readable from text length alone in {language}: accuracy {accuracy:.2f}, "
                f"largest class {majority:.2f}"
            )
    if ordered:
        found.append(f"rows sorted by label in {', '.join(ordered)}: never take the first n rows")
    if lonely:
        found.append(f"classes of one example: {'; '.join(lonely)}")
    return found


def corpus_fingerprint(corpus: datasets.Dataset) -> str:
    """Return a hash of everything in a corpus that a result depends on: its columns and all their
    values, in order.
    """
    digest = hashlib.sha256()
    frame = _frame(corpus)
    for column in sorted(frame):
        digest.update(json.dumps([column, frame[column].tolist()], ensure_ascii=False).encode())
    return digest.hexdigest()[:16]


# What `load_corpus` gave: it is checked once, at the first door that it comes through.
_CHECKED: weakref.WeakSet[datasets.Dataset] = weakref.WeakSet()


def check_corpus(corpus: datasets.Dataset) -> datasets.Dataset:
    """Return the corpus, checked as `load_corpus` checks it, so that one built by hand fails as
    early.
    """
    if not isinstance(corpus, datasets.Dataset):
        raise InputError(
            f"expected a datasets.Dataset, found {type(corpus).__name__}. Load it with probes.load_corpus(...)"
        )
    if corpus in _CHECKED and corpus.format["type"] is None and corpus.format["columns"] == corpus.column_names:
        return corpus
    return load_corpus(corpus)


def _read(source: str | Path | pd.DataFrame | datasets.Dataset, split: str | None) -> tuple[pd.DataFrame, str]:
    if isinstance(source, pd.DataFrame):
        return source, "the frame"
    if isinstance(source, datasets.Dataset):
        return _frame(source), "the data set"
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
    if _is_hub_name(source):
        return _read_hub(str(source), split)
    return _read_file(Path(source))


def _is_hub_name(source: object) -> bool:
    """A hub name is `name` or `owner/name` without a file's ending that is no path on this disk."""
    if not isinstance(source, str) or source == "bundled" or Path(source).exists():
        return False
    return Path(source).suffix.lower() not in _READERS and source.count("/") <= 1 and not source.startswith((".", "/"))


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
    return _frame(loaded), name


def _read_csv(path: Path, separator: str) -> pd.DataFrame:
    with path.open("rb") as file:
        if b"\0" in (head := file.read(4096)) or head[:4] == b"PAR1":
            raise ValueError("binary content")
    frame = pd.read_csv(
        path,
        sep=separator,
        dtype=str,
        # Only an empty cell is null: "NA" and "null" are words, and "no" and "nan" are language codes.
        keep_default_na=False,
        na_values=[""],
        encoding="utf-8",
        # Tab-separated text is not quoted: a quotation mark is one.
        quoting=csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL,
    )
    if not isinstance(frame.index, pd.RangeIndex):  # pandas would take the first cells of longer rows for names of rows
        raise ValueError("rows have more cells than the header; a text that holds the separator needs quotes")
    return frame


def _read_jsonl(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one object a line")
    return pd.DataFrame(rows)


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
        raise InputError(
            f"{path} is not {kind}, as its name says ({type(error).__name__}: {_first_line(error)}). "
            "Give the file the ending of what it is"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _frame(corpus: datasets.Dataset) -> pd.DataFrame:
    frame = corpus.with_format(None).to_pandas()
    for name, feature in corpus.features.items():
        if isinstance(feature, datasets.ClassLabel):
            frame[name] = [None if v is None or pd.isna(v) or v < 0 else feature.int2str(int(v)) for v in frame[name]]
    return frame


def _keep(frame: pd.DataFrame, column: str, wanted: list[str], name: str) -> pd.DataFrame:
    there = list(dict.fromkeys(frame[column].astype(str)))
    unknown = [w for w in wanted if w not in there]
    if unknown:
        raise InputError(
            f"{name}: unknown {column} {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, there))}"
        )
    return frame[frame[column].astype(str).isin(wanted)]


def _checked(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    if not len(frame):
        raise InputError(f"{name}: expected at least one row, found none. Check the file, the split and the languages")
    if "label" in frame and (frame["label"].isna() | (frame["label"].astype(str) == "")).all():
        frame = frame.drop(columns="label")
    frame = frame.copy()
    for column in frame:
        null = frame[column].isna()
        if null.any() and column in (*REQUIRED, "label", "text_pair"):
            raise InputError(
                f"{name}: {column} is null in {_rows(null)}. Every row needs one: fill it, or drop the row"
                + (" (or the whole column, for a corpus without labels)" if column == "label" else "")
            )
        frame[column] = _as_text(frame[column])
        empty = frame[column].str.strip() == ""
        if empty.any() and column != "split":
            raise InputError(f"{name}: {column} is empty in {_rows(empty)}. Fill it, or drop the row")
    if (frame["language"] == "pooled").any():
        raise InputError(f"{name}: the language code 'pooled' is kept for all languages together. Rename it")
    twice = frame.duplicated(["id", "language"], keep=False)
    if twice.any():
        first = frame[twice].iloc[0]
        raise InputError(
            f"{name}: id {first['id']!r} occurs more than once in language {first['language']!r} ({_rows(twice)}). "
            "An id stands for one sentence: give each its own, and the same id to its translations only"
        )
    return frame


def _as_text(column: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")  # 3.0 is how a table with a gap stores the label 3
    return column.astype(object).map(str, na_action="ignore").fillna("").astype(object)


def _rows(mask: pd.Series) -> str:
    at = mask.index[mask]
    shown = ", ".join(str(i) for i in at[:5])
    return (
        f"row {shown}" if len(at) == 1 else f"{len(at)} rows (counted from 0: {shown}{', ...' if len(at) > 5 else ''})"
    )


def _accuracy_from_length(rows: pd.DataFrame) -> tuple[float, float]:
    """Cross-validated accuracy of a small tree on lengths alone, and the share of the largest
    class.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    counts = rows["label"].value_counts()
    rows = rows[rows["label"].isin(counts.index[counts >= 5])]
    if rows["label"].nunique() < 2 or len(rows) < 50:
        return 0.0, 1.0
    lengths = np.column_stack([rows["text"].str.len(), rows["text"].str.split().str.len()])
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracy = cross_val_score(tree, lengths, rows["label"], cv=folds).mean()
    return float(accuracy), float(counts.max() / counts.sum())
