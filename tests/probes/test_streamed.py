"""A corpus read from disk: the same as one in memory, checked piece by piece and across pieces."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

import probes
from probes import streamed
from probes.corpus import corpus_fingerprint

N = 50


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(streamed, "PIECE", 16)


def table(**changed):
    columns = {
        "id": np.tile(np.arange(N), 2),
        "language": np.repeat(["en", "no"], N),
        "text": [f'text "{i}" of NA' for i in range(2 * N)],
        "label": np.tile(np.where(np.arange(N) % 2, 1.0, 2.0), 2),
        "group": np.tile(np.arange(N) // 2, 2),
        "more": 1,
    }
    return pd.DataFrame(columns | changed)


def written(folder, frame, ending):
    """Two files of a table, and the pattern that they fit."""
    for number, part in enumerate((frame[:40], frame[40:])):
        path = folder / f"part{number}.{ending}"
        if ending == "parquet":
            part.to_parquet(path)
        elif ending == "jsonl":
            part.to_json(path, orient="records", lines=True)
        else:
            part.to_csv(path, index=False)
    return str(folder / f"part*.{ending}")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_it_is_the_corpus_that_is_read_whole(ending, tmp_path):
    pattern = written(tmp_path, table(), ending)
    whole, from_disk = probes.load_corpus(pattern), probes.load_corpus(pattern, streaming=True)
    assert from_disk.column_names == ["id", "language", "text", "label", "group"]
    assert from_disk.to_dict() == whole.to_dict()
    assert corpus_fingerprint(from_disk) == corpus_fingerprint(whole)
    assert from_disk.cache_files
    assert not whole.cache_files
    some = {"languages": ["no"], "text": "more", "label": "text"}
    assert (
        probes.load_corpus(pattern, streaming=True, **some).to_dict() == probes.load_corpus(pattern, **some).to_dict()
    )


def test_the_fingerprint_is_one_of_all_values_as_one_list(tmp_path):
    corpus = probes.load_corpus(table(text=["é \U0001f600"] * (2 * N)))
    digest = hashlib.sha256()
    for column in sorted(corpus.column_names):
        digest.update(json.dumps([column, list(corpus[column])], ensure_ascii=False).encode())
    assert corpus_fingerprint(corpus) == digest.hexdigest()[:16]


def test_what_no_piece_shows_is_refused(tmp_path):
    twice = table()
    twice.loc[45, "id"] = 3
    with pytest.raises(probes.InputError, match=r"id '3' occurs more than once in language 'en' \(rows 3, 45, counted"):
        probes.load_corpus(written(tmp_path, twice, "parquet"), streaming=True)
    moved = table()
    moved.loc[2 * N - 1, "group"] = 7
    with pytest.raises(probes.InputError, match=r"id '49' lies in group '(7|24)' and in group '(24|7)'"):
        probes.load_corpus(written(tmp_path, moved, "parquet"), streaming=True)


def test_rows_are_counted_through_all_pieces(tmp_path):
    empty = table()
    empty.loc[70, "text"] = " "
    with pytest.raises(probes.InputError, match="text is empty in row 70"):
        probes.load_corpus(written(tmp_path, empty, "parquet"), streaming=True)


def test_what_cannot_be_streamed_is_said(tmp_path):
    with pytest.raises(probes.InputError, match=r"streaming=True reads files ending in \.parquet.*found DataFrame"):
        probes.load_corpus(table(), streaming=True)
    with pytest.raises(probes.InputError, match=r"nothing\*: no such file"):
        probes.load_corpus(str(tmp_path / "nothing*"), streaming=True)
    pattern = written(tmp_path, table(), "parquet")
    with pytest.raises(probes.InputError, match=r"no column 'sentence' for 'text'"):
        probes.load_corpus(pattern, streaming=True, text="sentence")
    with pytest.raises(probes.InputError, match=r"unknown language 'de'; there are 'en', 'no'"):
        probes.load_corpus(pattern, streaming=True, languages=["de"])
    (tmp_path / "bad.parquet").write_text("no table")
    with pytest.raises(probes.InputError, match="cannot be read as a table of parquet"):
        probes.load_corpus(tmp_path / "bad.parquet", streaming=True)
    (tmp_path / "semicolons.csv").write_text("id;language;text\n1;en;a, b\n")
    said = r"semicolons\.csv: cells are separated by semicolons, not by commas.* or with tabs as \.tsv, or leave stream"
    with pytest.raises(probes.InputError, match=said):
        probes.load_corpus(tmp_path / "semicolons.csv", streaming=True)


def test_rows_that_quotation_marks_swallowed_are_said_once(tmp_path):
    texts = ["the cat", '"a dog', "a bird", 'a fish"', "the end"]
    lines = [f"{i},en,{text}" for i, text in enumerate(texts)]
    (tmp_path / "c.csv").write_text("\n".join(["id,language,text", *lines]))
    said = r"c\.csv: text in row 1 holds line breaks .*did two quotation marks swallow 2 rows"
    with pytest.warns(probes.LayerscopeWarning, match=said) as told:
        corpus = probes.load_corpus(tmp_path / "c.csv", streaming=True)
    assert len(told) == 1
    assert len(corpus) == 3
