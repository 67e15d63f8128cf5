"""What in a corpus could mislead a probe, in plain sentences. A corpus is read in pieces: of each row some numbers
stay in memory, and no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import datasets
import numpy as np
import pandas as pd

from probes.alike import alike, conventions, look_of, quoted
from probes.order import MOST, caution, neighbours_agree, one_hot
from probes.streamed import PIECE, pieces
from probes.tables import to_frame


def cautions(corpus: datasets.Dataset) -> list[str]:
    """Say what in a corpus could mislead a probe: a plain sentence each, or an empty list.

    Looked for: rows sorted by label, classes of one example, labels readable from the length of the
    text alone (cross-validated, more than 5 points above the largest class), duplicated texts, ids
    missing in a language, translations that carry different labels, neighbours that share a label
    far more often than in shuffled orders (without a column `group`), rows that quotation marks
    have swallowed, and languages, labels, splits, ids and groups that look alike: in upper and
    lower case, composed and decomposed, 1 and 1.0.

    Example:
        >>> import probes
        >>> cautions(probes.load_corpus("bundled", split="test"))
        []
    """
    columns = corpus.column_names
    found = [said] if (said := swallowed(corpus)) else []
    for column in ("language", "label", "split", "id", "group"):
        if column in columns:
            found += alike(_look_alike(corpus, column), column)
    languages = list(_values(corpus, "language", _firsts(corpus, "language")))
    found += conventions(pd.Series(languages)) + quoted(pieces(corpus, columns))
    language, ids = _codes(corpus, "language", languages), _hashes(corpus, ["id"])
    rows_of = {name: np.flatnonzero(language == code) for code, name in enumerate(languages)}
    union = len(np.unique(ids))
    missing = {name: union - len(np.unique(ids[rows])) for name, rows in rows_of.items()}
    if any(missing.values()) and len(languages) > 1:
        lacking = (f"{name} lacks {n} of {union}" for name, n in missing.items() if n)
        found.append("ids missing in a language: " + ", ".join(lacking))
    found += _duplicated(_hashes(corpus, [c for c in ("text", "text_pair") if c in columns]), rows_of)
    if "label" not in columns:
        return found
    names = list(_values(corpus, "label", _firsts(corpus, "label")))
    codes = _codes(corpus, "label", names)
    if n := _several_labels(ids, codes):
        found.append(f"translations of one sentence carry different labels: {n} ids")
    return found + _of_labels(corpus, codes, np.array(names, dtype=object), rows_of)


def swallowed(table: pd.DataFrame | datasets.Dataset) -> str:
    """Say where a cell holds what looks like rows of a table, which quotation marks make; else "".

    Args:
        table: columns of texts, with `language`.

    Example:
        >>> rows = pd.DataFrame({"id": ["1"], "language": ["en"], "text": ["A cat\\n2,en,A dog\\n3,en,A bird"]})
        >>> swallowed(rows)  # doctest: +ELLIPSIS
        'text in row 0 holds line breaks and, after them, as many separators as rows of the table: did two ...
    """
    columns = list(table) if isinstance(table, pd.DataFrame) else table.column_names
    languages = {value for cells in _cells(table, "language") for value in cells.unique()}
    for column in columns:
        for cells in _cells(table, column):
            for row, text in cells[cells.str.contains("[\r\n]")].items():
                for separator in ",;\t":
                    if text.count(separator) < len(columns) - 1:
                        continue
                    parts = [part.strip('"') for line in text.splitlines() for part in line.split(separator)]
                    if any(part in languages or _CODE.fullmatch(part) for part in parts):
                        lines = len(text.splitlines()) - 1
                        return (
                            f"{column} in row {row} holds line breaks and, after them, as many separators as rows of "
                            f"the table: did two quotation marks swallow {lines} row{'s' if lines > 1 else ''}? A "
                            "quotation mark within a cell is written twice"
                        )
    return ""


# A language as codes are written, with a separator of cells on both sides.
_CODE = re.compile(r"[a-z]{2}([-_]\w+)*")


def _cells(table: pd.DataFrame | datasets.Dataset, column: str) -> Iterator[pd.Series]:
    """A column, some rows at a time, by the numbers of the rows."""
    if isinstance(table, pd.DataFrame):
        yield table[column]
        return
    for number, frame in enumerate(pieces(table, [column])):
        yield frame[column].set_axis(pd.RangeIndex(number * PIECE, number * PIECE + len(frame)))


def _hashes(corpus: datasets.Dataset, columns: Sequence[str]) -> np.ndarray:
    """A number of 64 bits for what each row has in some columns, (row,): of different texts another, but for one case
    in 10^19 pairs.
    """
    cells = ([frame[c].tolist() for c in columns] for frame in pieces(corpus, columns))
    return np.fromiter((hash(row) for of in cells for row in zip(*of, strict=True)), np.int64, len(corpus))


def _firsts(corpus: datasets.Dataset, column: str) -> np.ndarray:
    """The first row of each different value, in order."""
    return np.sort(np.unique(_hashes(corpus, [column]), return_index=True)[1])


def _values(corpus: datasets.Dataset, column: str, rows: np.ndarray) -> Iterator[str]:
    """What some rows have in a column."""
    some = corpus.select_columns([column])
    for start in range(0, len(rows), PIECE):
        yield from to_frame(some.select(rows[start : start + PIECE]))[column].tolist()


def _codes(corpus: datasets.Dataset, column: str, names: Sequence[str]) -> np.ndarray:
    """Which of some names each row has, (row,)."""
    return np.concatenate([pd.Categorical(frame[column], names).codes for frame in pieces(corpus, [column])])


def _look_alike(corpus: datasets.Dataset, column: str) -> Iterator[str]:
    """The values of a column that look as another one does, in order."""
    rows = _firsts(corpus, column)
    looks = np.fromiter((hash(look_of(v, column)) for v in _values(corpus, column, rows)), np.int64, len(rows))
    _, of, counts = np.unique(looks, return_inverse=True, return_counts=True)
    return _values(corpus, column, rows[counts[of] > 1])


def _duplicated(texts: np.ndarray, rows_of: dict[str, np.ndarray]) -> list[str]:
    """Say how many texts of a language are there more than once."""
    found = []
    for name, rows in rows_of.items():
        _, of, counts = np.unique(texts[rows], return_inverse=True, return_counts=True)
        twice = np.flatnonzero(counts[of] > 1)
        if len(twice):
            found.append((rows[twice[0]], f"{len(twice)} rows in {name}"))
    return ["duplicated texts: " + ", ".join(said for _, said in sorted(found))] if found else []


def _several_labels(ids: np.ndarray, labels: np.ndarray) -> int:
    """How many ids have more than one label."""
    order = np.lexsort((labels, ids))
    ids, labels = ids[order], labels[order]
    changes = (ids[1:] == ids[:-1]) & (labels[1:] != labels[:-1])
    return len(np.unique(ids[1:][changes]))


def _of_labels(
    corpus: datasets.Dataset, codes: np.ndarray, names: np.ndarray, rows_of: dict[str, np.ndarray]
) -> list[str]:
    """What labels could mislead by, in every language."""
    sizes = [[(len(text), len(text.split())) for text in frame["text"].tolist()] for frame in pieces(corpus, ["text"])]
    lengths = np.concatenate([np.array(of, np.int32).reshape(-1, 2) for of in sizes])
    found, ordered, lonely, sharing = [], [], [], []
    for language, rows in rows_of.items():
        labels = pd.Series(names[codes[rows]])
        counts = labels.value_counts()
        if 1 < len(counts) < len(labels) / 2 and (np.diff(codes[rows]) != 0).sum() < len(counts):
            ordered.append(language)
        elif "group" not in corpus.column_names and neighbours_agree(one_hot(labels[:MOST])):
            sharing.append(language)
        if (counts == 1).any():
            lonely.append(f"{', '.join(map(repr, counts.index[counts == 1]))} in {language}")
        accuracy, majority = _accuracy_from_length(labels, lengths[rows])
        if accuracy > majority + 0.05:
            found.append(
                f"label readable from text length alone in {language}: accuracy {accuracy:.2f}, "
                f"largest class {majority:.2f}"
            )
    if ordered:
        found.append(f"rows sorted by label in {', '.join(ordered)}: never take the first n rows")
    if sharing:
        found.append(caution(sharing, "labels"))
    if lonely:
        found.append(f"classes of one example: {'; '.join(lonely)}")
    return found


def _accuracy_from_length(labels: pd.Series, lengths: np.ndarray) -> tuple[float, float]:
    """Cross-validated accuracy of a small tree on lengths alone, and the share of the largest
    class.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    counts = labels.value_counts()
    kept = labels.isin(counts.index[counts >= 5])
    labels, lengths = labels[kept], lengths[kept.to_numpy()]
    if labels.nunique() < 2 or len(labels) < 50:
        return 0.0, 1.0
    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    accuracy = cross_val_score(tree, lengths, labels, cv=folds).mean()
    return float(accuracy), float(counts.max() / counts.sum())
