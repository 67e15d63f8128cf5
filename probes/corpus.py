"""Labelled, parallel text: load it, check it, describe it.

A corpus is a `datasets.Dataset` with the text columns `id` (the same id = translations of one
sentence), `language`, `text` and, where the task has them, `label`, `text_pair`, `split`, `group`
(sentences that are not independent: one article, document, template), `labels` (several of a text)
and `tags` (one of each of its words), both separated by spaces.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from probes.errors import InputError, LayerscopeWarning
from probes.pitfalls import cautions, swallowed
from probes.printing import printable
from probes.streamed import load_streamed, pieces
from probes.tables import REQUIRED, is_hub_name, read_table, to_frame


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
    group: str = "group",
    streaming: bool = False,
) -> datasets.Dataset:
    """Load labelled, parallel text: "bundled", a file, a frame, a data set or a hub name.

    Args:
        source: "bundled"; a path ending in .csv (also with semicolons or tabs), .tsv (not quoted),
            .jsonl or .json (JSON lines, or one list), each also packed (.gz, .zst), .parquet or
            .xlsx; a pattern of such files ("data/*.parquet"); a frame; a data set; or the name of a
            data set on the Hugging Face hub. Text is UTF-8.
        split: keep the rows of this split only (for a hub name: the split that is loaded).
        languages: keep these languages only, in this order.
        id, language, text, label, text_pair, group: the names of the columns in the source, where
            they differ from these. A group is what sentences share that are not independent (an
            article, a document, a template): error bars and folds keep it together.
        streaming: never hold the corpus in memory: files of parquet, .csv (with commas), .tsv or JSON
            lines are converted once, into the cache of `datasets`, read from there and checked in
            pieces.

    Returns:
        A `datasets.Dataset` with the string columns `id, language, text` and, where the source has
        them, `label`, `text_pair`, `group`, `split`, `labels` and `tags`. Other columns are dropped.
        A column of labels or groups that are all empty strings counts as none. `labels`, none or
        several of a text, and `tags`, one of each word, where words are what spaces separate, are
        names with spaces between; a list of names is joined so, and lists of marks, 0 or 1 for each
        class, become the numbers of those that are marked.

    Raises:
        InputError: a column is missing; an id, language, text, label or group is null or empty; the
            same (id, language) comes twice; an id lies in two groups; the table is empty; a
            language or split is unknown; there are not as many tags as words; the file is not what its
            name says; a value is no text (a list, bytes, half of a surrogate pair) or a number too
            large to be exact.

    Warns:
        LayerscopeWarning: quotation marks seem to have swallowed rows of a file; cells are
            separated by something else than the name says; numbers have decimal commas; a workbook
            has several sheets.

    Example:
        >>> corpus = load_corpus("bundled", split="test", languages=["en", "ar"])
        >>> sorted(corpus.column_names)
        ['id', 'label', 'language', 'split', 'text']
        >>> sorted(set(corpus["language"]))
        ['ar', 'en']
    """
    if isinstance(languages, str):
        raise InputError(f"languages={languages!r}: expected a list of language codes, found one string")
    columns = {id: "id", language: "language", text: "text", label: "label", text_pair: "text_pair", group: "group"}
    if streaming:
        out = load_streamed(source, columns, SEVERAL, _checked, split=split, languages=languages)
        if said := swallowed(out):
            warnings.warn(f"{source}: {said}", LayerscopeWarning, stacklevel=2)
        _CHECKED.add(out)
        return out
    frame, name, notes = read_table(source, split)
    given_names = [id, language, text, *(c for c in (label, text_pair, group, "split") if c in frame)]
    for column in given_names:
        if given_names.count(column) > 1 or (column in frame and list(frame).count(column) > 1):
            raise InputError(f"{name}: column {column!r} stands for more than one thing. Give each its own column")
    for given, meant in columns.items():
        required = meant in REQUIRED
        if given not in frame and (required or given != meant):
            raise InputError(
                f"{name}: no column {given!r} for {meant!r}; the columns are {', '.join(map(repr, frame))}. "
                f"Name the right one with {meant}=..., or add it"
            )
    frame = frame[[c for c in (*columns, "split", *SEVERAL) if c in frame]].rename(columns=columns)
    if split is not None and "split" in frame:
        frame = _keep(frame, "split", [split], name)
    elif split is not None and not is_hub_name(source):
        raise InputError(f"{name}: split={split!r} was asked for, but there is no column 'split'. Leave split out")
    if languages is not None:
        if len(set(languages)) < len(languages):
            raise InputError(f"{name}: languages={list(languages)!r} names one twice. Give each once")
        frame = _keep(frame, "language", list(languages), name)
        frame = frame.iloc[np.argsort(pd.Categorical(frame["language"], list(languages)).codes, kind="stable")]
    frame = _checked(frame, name)
    if (said := swallowed(frame)) and not isinstance(source, datasets.Dataset):
        notes.append(f"{name}: {said}")
    for note in notes:
        warnings.warn(note, LayerscopeWarning, stacklevel=2)
    out = datasets.Dataset.from_pandas(frame.reset_index(drop=True), preserve_index=False)
    _CHECKED.add(out)
    return out


# Columns of several names in one cell, with spaces between: of a text, and of its words.
SEVERAL = ("labels", "tags")


def describe(corpus: datasets.Dataset) -> None:
    """Print the counts of a corpus by language, label and split, and its `cautions`.

    Example:
        >>> corpus = load_corpus("bundled", split="dev", languages=["en", "fr"])
        >>> describe(corpus)  # doctest: +ELLIPSIS
        480 rows, 240 ids, 2 languages...
    """
    frame = to_frame(
        corpus.select_columns([c for c in ("id", "language", "split", "label") if c in corpus.column_names])
    )
    for column in ("language", "split", "label"):
        if column in frame:
            frame[column] = frame[column].map(printable)
    print(f"{len(frame):,} rows, {frame['id'].nunique():,} ids, {frame['language'].nunique()} languages")
    for column in ("split", "label"):
        if column in frame:
            everything = "(all)"
            while everything in {*frame["language"], *frame[column]}:
                everything = f"({everything})"
            counts = pd.crosstab(frame["language"], frame[column], margins=True, margins_name=everything)
            print("\n" + counts.to_string())
    if "label" not in frame:
        print("\n" + frame["language"].value_counts(sort=False).to_string())
    found = cautions(corpus)
    print(
        "\n" + "\n".join(f"caution: {printable(c)}" for c in found)
        if found
        else "\nnothing that is known to mislead was found"
    )


def corpus_fingerprint(corpus: datasets.Dataset) -> str:
    """Return a hash of everything in a corpus that a result depends on: its columns and all their
    values, in order.
    """
    digest = hashlib.sha256()
    for column in sorted(corpus.column_names):  # of each a list of its name and its values, as JSON
        digest.update(json.dumps([column, []], ensure_ascii=False)[:-2].encode())
        for number, frame in enumerate(pieces(corpus, [column])):
            values = json.dumps(frame[column].tolist(), ensure_ascii=False)[1:-1]
            digest.update((", " * (number > 0) + values).encode())
        digest.update(b"]]")
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


def _named(cells: pd.Series) -> pd.Series:
    """Lists of a mark, 0 or 1, for each class as lists of the numbers of those that are marked; other
    cells as they are.
    """
    marks = [list(cell) if isinstance(cell, list | tuple | np.ndarray) else [] for cell in cells]
    kinds = (int, float, np.number, np.bool_)
    if {len(cell) for cell in marks} != {len(marks[0])} or len(marks[0]) < 2:
        return cells
    if any(not isinstance(mark, kinds) or mark not in (0, 1) for cell in marks for mark in cell):
        return cells
    # A name stands once in a cell, and names always in one order.
    if all(len(set(cell)) == len(cell) for cell in marks) and len({tuple(cell) for cell in marks}) == 1:
        return cells
    named = [[str(i) for i, mark in enumerate(cell) if mark] for cell in marks]
    return pd.Series(named, cells.index, dtype=object)


def _joined(cell: Any, column: str, name: str) -> Any:
    """A list of names as one text; other cells as they are."""
    if not isinstance(cell, list | tuple | np.ndarray):
        return cell
    names = [str(part) for part in cell]
    if bad := [part for part in names if len(part.split()) != 1]:
        raise InputError(f"{name}: {column} has the name {bad[0]!r}: expected one without spaces. Write it in one word")
    return " ".join(names)


def _keep(frame: pd.DataFrame, column: str, wanted: list[str], name: str) -> pd.DataFrame:
    texts = [str(v) for v in frame[column]]
    there = dict.fromkeys(texts)
    unknown = [w for w in wanted if w not in there]
    if unknown:
        raise InputError(
            f"{name}: unknown {column} {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, there))}"
        )
    return frame[[text in wanted for text in texts]]


def _checked(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    if not len(frame):
        raise InputError(f"{name}: expected at least one row, found none. Check the file, the split and the languages")
    for column in ("label", "group"):
        if column in frame and all(isinstance(v, str) and v == "" for v in frame[column].dropna()):
            frame = frame.drop(columns=column)
    frame = frame.copy()
    if "labels" in frame:
        frame["labels"] = _named(frame["labels"])
    for column in frame:
        if column in SEVERAL:
            frame[column] = frame[column].map(lambda cell: _joined(cell, column, name))  # noqa: B023
        null = frame[column].isna()
        if null.any() and column in (*REQUIRED, "label", "text_pair", "group", *SEVERAL):
            raise InputError(
                f"{name}: {column} is null in {_rows(null)}. Every row needs one: fill it, or drop the row"
                + _WITHOUT.get(column, "")
            )
        frame[column] = _as_text(frame[column], name)
        empty = frame[column].str.strip() == ""
        if empty.any() and column not in ("split", "labels"):  # a text may have none of the labels
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
    if "tags" in frame:
        cells = zip(frame["text"], frame["tags"], strict=True)
        counts = [(len(text.split()), len(tags.split())) for text, tags in cells]
        wrong = pd.Series([words != tags for words, tags in counts], frame.index)
        if wrong.any():
            words, tags = counts[int(wrong.to_numpy().argmax())]
            raise InputError(
                f"{name}: there are not as many tags as words in {_rows(wrong)}: found {words} words and {tags} tags. "
                "Words are what spaces separate: give each one tag, and text without spaces between words with spaces"
            )
    if "group" in frame:
        check_groups(frame["id"], frame["group"], name)
    return frame


# What else there is to do where a column has gaps.
_WITHOUT = {
    "label": " (or the whole column, for a corpus without labels)",
    "group": " (a sentence that belongs to none is a group of its own: its id will do)",
}


def check_groups(ids: Iterable[object], groups: Iterable[object], name: str) -> None:
    """Raise `InputError` where an id lies in two groups."""
    first: dict[object, object] = {}
    for id, group in zip(ids, groups, strict=True):
        if first.setdefault(id, group) != group:
            raise InputError(
                f"{name}: id {id!r} lies in group {first[id]!r} and in group {group!r}. Translations of one sentence "
                "belong to one group: give all rows of an id the same"
            )


_NO_TEXTS = (list, tuple, dict, set, bytes, np.ndarray)


def _as_text(column: pd.Series, name: str) -> pd.Series:
    """The values of a column as texts, "" where there is none."""
    values = column.astype(object)
    there: Any = values[column.notna()]
    wrong = there.map(lambda v: isinstance(v, _NO_TEXTS)).astype(bool)
    if wrong.any():
        kind = type(there[wrong].iloc[0]).__name__
        kind = "bytes that are no UTF-8" if kind == "bytes" else kind
        raise InputError(
            f"{name}: {column.name} is no text in {_rows(wrong)}: found {kind}. Give one string, or number, a row"
        )
    numbers = there[[isinstance(v, int | float | np.number) and type(v) is not bool for v in there]]
    if len(numbers) and all(v % 1 == 0 for v in numbers if isinstance(v, float | np.floating)):
        # 3.0 is how a table with a gap stores the label 3; 3 and "3" are one where a column has both.
        large: Any = pd.Series(
            [isinstance(v, float | np.floating) and abs(float(v)) > 2**53 for v in there], there.index
        )
        if large.any():
            raise InputError(
                f"{name}: {column.name} is {there[large].iloc[0]!r} in {_rows(large)}: numbers of that size are "
                "rounded, so that different ones can be the same. Give them as text"
            )
        there = pd.concat([there.drop(numbers.index), numbers.map(int).astype(object)])
    # Not by way of pandas' own texts, which take no surrogates.
    texts = pd.Series("", index=values.index, dtype=object)
    texts[there.index] = pd.Series([str(v) for v in there], index=there.index, dtype=object)
    broken = texts.map(lambda text: bool(_SURROGATE.search(text))).astype(bool)
    if broken.any():
        raise InputError(
            f"{name}: {column.name} holds half of a surrogate pair in {_rows(broken)}, which is no character: "
            f"{ascii(texts[broken].iloc[0])[:60]}. Write the text again as UTF-8, or drop the row"
        )
    return texts


_SURROGATE = re.compile("[\ud800-\udfff]")


def _rows(mask: pd.Series) -> str:
    at = mask.index[mask]
    shown = ", ".join(str(i) for i in at[:5])
    return (
        f"row {shown}" if len(at) == 1 else f"{len(at)} rows (counted from 0: {shown}{', ...' if len(at) > 5 else ''})"
    )
