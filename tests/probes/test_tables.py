"""Tables from everywhere: names that come twice, files that cannot be read, objects with a key twice."""

import json

import datasets
import pandas as pd
import pytest

import probes
from probes.errors import InputError
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
    frame, _ = read_table(path)
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

    def read(_path):
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
