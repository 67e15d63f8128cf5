"""Tables from everywhere: names that come twice, files that cannot be read, objects with a key twice."""

import gzip
import json
import sys

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import probes
from probes.errors import DependencyError, InputError, LayerscopeWarning
from probes.tables import is_hub_name, read_table, to_frame


def refused(source, **settings):
    with pytest.raises(InputError) as caught:
        probes.load_corpus(source, **settings)
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_second_column_of_one_name_is_said_where_it_is_needed(tmp_path, separator):
    path = tmp_path / ("c.csv" if separator == "," else "c.tsv")
    path.write_text("\ufeffid,language,text,text,note,note\n1,en,a,b,c,d\n".replace(",", separator))
    assert "column 'text' stands for more than one thing" in refused(path)
    frame, _, _ = read_table(path)
    assert list(frame) == ["id", "language", "text", "text", "note", "note"]
    path.write_text("id,language,text,note,note,\n1,en,a,b,c,d\n".replace(",", separator))
    assert probes.load_corpus(path)["text"][:] == ["a"]


def test_an_object_with_a_key_twice_is_refused(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "1", "language": "en", "text": "a", "text": "b"}\n')
    assert "an object has the key 'text' twice" in refused(path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("\ufeff" + json.dumps({"id": 1, "language": "en", "text": "a"}))
    assert probes.load_corpus(path)["id"][:] == ["1"]


def test_whole_numbers_of_json_are_exact(tmp_path):
    path = tmp_path / "c.jsonl"
    ids = [2**53 + 1, 2**53, 10**30]
    path.write_text("".join(json.dumps({"id": i, "language": "en", "text": "a", "label": 1.0}) + "\n" for i in ids))
    corpus = probes.load_corpus(path)
    assert corpus["id"][:] == [str(i) for i in ids]
    assert set(corpus["label"]) == {"1"}


def test_columns_of_several_levels_are_refused_in_words():
    frame = pd.DataFrame([["1", "en", "a"]], columns=pd.MultiIndex.from_product([["id", "language", "text"], ["x"]]))
    assert refused(frame).startswith("the frame: expected columns with one name each, found names of 2 levels")


def test_a_file_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    path = tmp_path / "c.parquet"
    path.write_text("x")

    def read(_path, _notes):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(read_table.__globals__["_READERS"], ".parquet", ("a Parquet file", read))
    assert refused(path) == f"{path} cannot be read (Permission denied). Check its permissions and the disk"


def test_paths_and_names_of_the_hub(tmp_path):
    assert is_hub_name("owner/name")
    assert not any(map(is_hub_name, ["bundled", "./name", "/name", "a/b/c", "name.csv", str(tmp_path), tmp_path]))
    assert "no such file" in refused("a\0b.csv")


def test_classes_have_their_names():
    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    frame = to_frame(datasets.Dataset.from_dict({"label": [1, 0, None]}, features))
    assert frame["label"].fillna("none").tolist() == ["yes", "no", "none"]


ROWS = pd.DataFrame(
    {"id": ["1", "2"], "language": ["fr", "fr"], "text": ["un été", "une nuit, longue"], "label": ["1.5", "2"]}
)
CSV = ROWS.to_csv(index=False).encode()


def packed(content, ending):
    if ending == ".gz":
        return gzip.compress(content)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["c.csv", "c.tsv", "c.jsonl", "c.json"])
def test_packed_tables_give_the_rows_that_were_written(tmp_path, name, ending):
    content = {
        "c.csv": CSV,
        "c.tsv": ROWS.to_csv(index=False, sep="\t").encode(),
        "c.jsonl": ROWS.to_json(orient="records", lines=True).encode(),
        "c.json": ROWS.to_json(orient="records", indent=1).encode(),  # one list
    }[name]
    path = tmp_path / (name + ending)
    path.write_bytes(packed(b"\xef\xbb\xbf" + content, ending))
    assert probes.load_corpus(path).to_dict() == ROWS.to_dict("list")


def test_several_files_by_a_pattern_are_one_table(tmp_path):
    for i in (2, 1):
        ROWS.assign(id=[f"{i}a", f"{i}b"])[::-1].to_parquet(tmp_path / f"{i}.parquet")
    corpus = probes.load_corpus(str(tmp_path / "*.parquet"))
    assert corpus["id"][:] == ["1b", "1a", "2b", "2a"]
    pattern = tmp_path / "[3-4].csv"
    assert refused(pattern) == f"{pattern}: no file fits the pattern. Check the path"
    for i in (3, 4):
        (tmp_path / f"{i}.csv").write_bytes(CSV)
    assert refused(pattern).startswith(f"{pattern} (2 files, their rows counted through): id '1' occurs more than once")
    (tmp_path / "4.csv").write_text("id,language,words\n1,fr,a\n")
    assert "4.csv and " in (said := refused(pattern))
    assert "differ in 'label', 'text', 'words'" in said
    assert not is_hub_name("data/*")


@pytest.mark.parametrize(("by", "said"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_than_the_name_says_is_read_and_said(tmp_path, by, said):
    path = tmp_path / "c.csv"
    ROWS.to_csv(path, index=False, sep=by)
    with pytest.warns(LayerscopeWarning, match=f"cells are separated by {said}, not by commas, and are read so"):
        assert probes.load_corpus(path).to_dict() == ROWS.to_dict("list")
    # One column of commas too few is no other separator.
    path.write_text("id;language;text\n".replace(";", ",") + "1,fr,a;b;c;d\n")
    assert probes.load_corpus(path)["text"][:] == ["a;b;c;d"]


def test_decimal_commas_are_read_as_points_and_said(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("id;language;text;label\n1;fr;1,5 kg;1,5\n2;fr;2,5;2\n")
    with pytest.warns(LayerscopeWarning) as said:
        corpus = probes.load_corpus(path)
    assert (corpus["label"][:], corpus["text"][:]) == (["1.5", "2"], ["1,5 kg", "2,5"])
    assert [str(w.message) for w in said][1:] == [
        f"{path}: label holds numbers with decimal commas; they are read with points"
    ]


def test_an_excel_file_gives_the_rows_that_were_written(tmp_path, monkeypatch):
    path = tmp_path / "c.xlsx"
    rows = pd.DataFrame({"id": [1, 2], "language": ["no", "no"], "text": ["NA", "x"], "label": [1.0, 2.0]})
    with pd.ExcelWriter(path) as book:
        rows.to_excel(book, sheet_name="first", index=False)
    want = {"id": ["1", "2"], "language": ["no", "no"], "text": ["NA", "x"], "label": ["1", "2"]}
    assert probes.load_corpus(path).to_dict() == want
    with pd.ExcelWriter(path, mode="a") as book:
        rows.to_excel(book, sheet_name="second")
    with pytest.warns(LayerscopeWarning, match="read from the first of its 2 sheets, 'first'"):
        assert probes.load_corpus(path).to_dict() == want
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DependencyError) as caught:
        probes.load_corpus(path)
    assert str(caught.value) == (
        f"{path}: an Excel file needs the package openpyxl, which is not installed: pip install 'layerscope[excel]'"
    )


def test_text_in_another_encoding_is_refused_with_its_row_and_what_helps(tmp_path):
    path = tmp_path / "c.csv"
    path.write_bytes(CSV.decode().encode("cp1252"))
    assert refused(path) == (
        f"{path}: expected text in UTF-8, found the byte 0xe9 in line 2 (row 0): in Windows-1252, in which "
        "spreadsheets save, it would read '1,fr,un été,1.5'. Save it as UTF-8 ('CSV UTF-8' in a spreadsheet; or "
        "iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW)"
    )
    path.write_bytes(CSV.decode().encode("utf-16"))
    assert "found UTF-16. Save it as UTF-8" in refused(path)
    path.write_bytes(b"id,language,text\n1,fr,\x81\n")
    assert "found the byte 0x81 in line 2 (row 0). Save it as UTF-8 with the program" in refused(path)
    path = tmp_path / "c.jsonl"
    path.write_bytes('{"id": "1", "language": "fr", "text": "été"}'.encode("latin-1"))
    assert "found the byte 0xe9 in line 1 (row 0)" in refused(path)


def test_texts_in_bytes_are_decoded_where_they_are_utf8(tmp_path):
    columns = {name: pa.array([v.encode() for v in ROWS[name]], pa.binary()) for name in ("id", "language", "text")}
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table(columns | {"picture": pa.array([b"\xff", None], pa.binary())}), path)
    corpus = probes.load_corpus(path, languages=["fr"])
    assert corpus.to_dict() == ROWS[["id", "language", "text"]].to_dict("list")
    pq.write_table(pa.table(columns | {"text": pa.array([b"\xff", b"a"], pa.binary())}), path)
    assert "text is no text in 2 rows (counted from 0: 0, 1): found bytes that are no UTF-8" in refused(path)


def test_ids_of_mixed_types_are_one_where_they_are_one_number():
    frame = pd.DataFrame(
        {"id": pd.Series(["1", 1, 1.0], dtype=object), "language": ["en", "fr", "de"], "text": ["a", "b", "c"]}
    )
    assert probes.load_corpus(frame)["id"][:] == ["1", "1", "1"]
    assert probes.load_corpus(frame.assign(id=pd.Series([True, 1, "x"], dtype=object)))["id"][:] == ["True", "1", "x"]
    said = refused(frame.assign(id=pd.Series(["1", 1e20, 2], dtype=object)))
    assert "id is 1e+20 in row 1: numbers of that size are rounded" in said


@pytest.mark.parametrize("kind", [pa.float64(), pa.int32(), pa.dictionary(pa.int8(), pa.int64())])
def test_numbers_of_arrow_are_whole_where_they_are(kind):
    label = pd.Categorical([1, 2]) if pa.types.is_dictionary(kind) else pd.array([1, 2], pd.ArrowDtype(kind))
    frame = pd.DataFrame({"id": ["a", "b"], "language": "en", "text": ["one", "two"], "label": label})
    assert probes.load_corpus(frame)["label"][:] == ["1", "2"]


@pytest.mark.parametrize(
    ("column", "value", "kind"), [("text", {"fr": "x"}, "dict"), ("label", ["a", "b"], "list"), ("text", ["a"], "list")]
)
def test_nested_values_are_refused_with_column_row_and_kind(tmp_path, column, value, kind):
    path = tmp_path / "c.jsonl"
    row = {"id": 1, "language": "fr", "text": "x", "label": "a", column: value}
    path.write_text(json.dumps(row))
    assert refused(path).endswith(f"{column} is no text in row 0: found {kind}. Give one string, or number, a row")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "c.parquet")
    kind = kind.replace("list", "ndarray")
    assert f"{column} is no text in row 0: found {kind}" in refused(tmp_path / "c.parquet")
