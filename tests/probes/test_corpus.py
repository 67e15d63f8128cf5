"""Corpora: every source gives the same rows, and every bad one says what is wrong with it."""

import csv
import json
import re

import datasets
import numpy as np
import pandas as pd
import pytest

import probes
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError, LayerscopeWarning

ROWS = pd.DataFrame(
    {
        "id": ["1", "2", "1", "2"],
        "language": ["no", "no", "nan", "nan"],
        "text": ["god dag", 'han sa "NA", så', "你好", 'مرحبا, "صديق"'],
        "label": ["greeting", "null", "greeting", "null"],
        "split": ["dev", "test", "dev", "test"],
    }
)


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix in (".json", ".jsonl"):
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        unquoted = {"sep": "\t", "quoting": csv.QUOTE_NONE}
        frame.to_csv(path, index=False, **(unquoted if path.suffix == ".tsv" else {}))
    return path


def as_dataset(frame):
    return datasets.Dataset.from_pandas(frame, preserve_index=False)


def with_class_labels(frame):
    names = sorted(set(frame["label"]))
    return as_dataset(frame).cast_column("label", datasets.ClassLabel(names=names))


def many(n=200, language="en", **columns):
    """Rows in which nothing misleads: all texts of one length, the labels in turn."""
    base = {
        "id": np.arange(n),
        "language": language,
        "text": [f"text {i:04}" for i in range(n)],
        "label": list("ab") * (n // 2),
    }
    return pd.DataFrame({**base, **columns})


ENDINGS = [".csv", ".tsv", ".parquet", ".jsonl", ".json"]


# --- sources ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("as_text", [str, lambda path: path])
def test_a_file_of_every_kind_gives_the_rows_that_were_written(tmp_path, ending, as_text):
    path = write(ROWS, tmp_path / f"rows{ending}")
    pd.testing.assert_frame_equal(probes.load_corpus(as_text(path)).to_pandas(), ROWS, check_dtype=False)


@pytest.mark.parametrize("source", [lambda f: f, as_dataset, with_class_labels])
def test_frames_and_data_sets_give_their_rows_and_class_labels_their_names(source):
    corpus = probes.load_corpus(source(ROWS))
    assert isinstance(corpus, datasets.Dataset)
    pd.testing.assert_frame_equal(corpus.to_pandas(), ROWS, check_dtype=False)


def test_the_bundled_corpus_is_parallel_and_labelled():
    corpus = probes.load_corpus("bundled").to_pandas()
    assert list(corpus) == ["id", "language", "text", "label", "split"]
    assert len(corpus) == corpus["id"].nunique() * corpus["language"].nunique()
    assert set(corpus["split"]) == {"train", "dev", "test"}


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "excel.csv"
    ROWS.to_csv(path, index=False, encoding="utf-8-sig")
    assert probes.load_corpus(path)["id"] == list(ROWS["id"])


def test_columns_can_have_other_names_and_others_are_dropped():
    renamed = ROWS.rename(columns={"id": "n", "language": "code", "text": "sentence", "label": "topic"})
    renamed = renamed.assign(text="not this one", text_pair="and this", url="x")
    mapping = {"id": "n", "language": "code", "text": "sentence", "label": "topic"}
    corpus = probes.load_corpus(renamed.drop(columns="text_pair"), **mapping)
    pd.testing.assert_frame_equal(corpus.to_pandas()[list(ROWS)], ROWS, check_dtype=False)
    assert set(corpus.column_names) == set(ROWS)
    assert probes.load_corpus(renamed, **mapping)["text_pair"] == ["and this"] * 4


def test_the_source_frame_is_not_changed():
    before = ROWS.copy()
    probes.load_corpus(ROWS, split="dev", languages=["nan"])
    pd.testing.assert_frame_equal(ROWS, before)


def test_split_and_languages_choose_rows_in_the_order_of_the_languages():
    assert probes.load_corpus(ROWS, split="test")["text"] == list(ROWS["text"][[1, 3]])
    corpus = probes.load_corpus(ROWS, languages=["nan", "no"])
    assert corpus["language"] == ["nan", "nan", "no", "no"]
    assert corpus["text"] == list(ROWS["text"][[2, 3, 0, 1]])
    assert probes.load_corpus(ROWS, languages=["no"])["language"] == ["no", "no"]


@pytest.mark.parametrize("source", [lambda f, p: f, lambda f, p: write(f, p)])
def test_a_label_column_of_empty_strings_counts_as_no_labels(tmp_path, source):
    corpus = probes.load_corpus(source(ROWS.assign(label=""), tmp_path / "rows.csv"))
    assert "label" not in corpus.column_names


@pytest.mark.parametrize("ending", ENDINGS)
def test_whole_numbers_are_the_same_text_from_every_kind_of_file(tmp_path, ending):
    frame = ROWS.assign(id=[1, 2, 1, 2], label=[3.0, 4.0, 3.0, 4.0])
    corpus = probes.load_corpus(frame if ending in (".csv", ".tsv") else write(frame, tmp_path / f"rows{ending}"))
    assert corpus["id"] == ["1", "2", "1", "2"]
    assert corpus["label"] == ["3", "4", "3", "4"]


@pytest.mark.parametrize("code", ["no", "nan", "NA", "null", "None"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_language_codes_that_look_like_nothing_survive_files(tmp_path, code, ending):
    path = write(ROWS.iloc[:2].assign(language=code), tmp_path / f"rows{ending}")
    assert probes.load_corpus(path, languages=[code])["language"] == [code, code]


# --- bad input -------------------------------------------------------------------------------------------------------

NAN = float("nan")
BAD_FRAMES = {
    "missing column": (ROWS.drop(columns="text"), {}, "no column 'text' for 'text'; the columns are 'id', 'language'"),
    "misnamed column": (ROWS, {"text": "sentence"}, "no column 'sentence' for 'text'.*text=..."),
    "misnamed label": (ROWS, {"label": "topic"}, "no column 'topic' for 'label'"),
    "unknown language": (ROWS, {"languages": ["no", "xx"]}, "unknown language 'xx'; there are 'no', 'nan'"),
    "language twice": (ROWS, {"languages": ["no", "no"]}, "languages.*'no'"),
    "no language": (ROWS, {"languages": []}, "at least one row, found none"),
    "unknown split": (ROWS, {"split": "train"}, "unknown split 'train'; there are 'dev', 'test'"),
    "no split": (ROWS.drop(columns="split"), {"split": "dev"}, "split='dev' was asked for.*no column 'split'"),
    "empty text": (ROWS.assign(text=["a", "", "c", "d"]), {}, "text is empty in row 1"),
    "whitespace": (
        ROWS.assign(text=["a", "b", " \n\t", "　"]),
        {},
        r"text is empty in 2 rows \(counted from 0: 2, 3\)",
    ),
    "null text": (ROWS.assign(text=["a", "b", None, "d"]), {}, "text is null in row 2"),
    "empty table": (ROWS.iloc[:0], {}, "expected at least one row, found none"),
    "null id": (ROWS.assign(id=[1, 2, 1, NAN]), {}, "id is null in row 3"),
    "null label": (ROWS.assign(label=[1, NAN, 1, 2]), {}, "label is null in row 1.*drop the row.*whole column"),
    "empty label": (ROWS.assign(label=["x", "", "x", "y"]), {}, "label is empty in row 1"),
    "null language": (ROWS.assign(language=["no", None, "da", "da"]), {}, "language is null in row 1"),
    "null group": (
        ROWS.assign(group=["x", NAN, "x", "y"]),
        {},
        "group is null in row 1.*group of its own: its id will do",
    ),
    "empty group": (ROWS.assign(group=["x", "", "x", "y"]), {}, "group is empty in row 1"),
    "misnamed group": (ROWS, {"group": "article"}, "no column 'article' for 'group'.*group=..."),
    "two groups": (
        ROWS.assign(article=["x", "y", "x", "z"]),
        {"group": "article"},
        "id '2' lies in group 'y' and in group 'z'.*give all rows of an id the same",
    ),
    "null pair": (ROWS.assign(text_pair=["a", None, "c", "d"]), {}, "text_pair is null in row 1"),
    "twice": (
        ROWS.assign(id=["1", "1", "1", "2"]),
        {},
        r"id '1' occurs more than once in language 'no' \(2 rows.*0, 1",
    ),
    "pooled": (
        ROWS.assign(language=["no", "no", "pooled", "pooled"]),
        {},
        "'pooled' is kept for all languages.*Rename",
    ),
}


@pytest.mark.parametrize(("frame", "options", "message"), BAD_FRAMES.values(), ids=BAD_FRAMES)
@pytest.mark.parametrize("source", [lambda f: f, as_dataset], ids=["frame", "data set"])
def test_a_bad_table_is_refused_with_what_where_and_what_to_do(frame, options, message, source):
    with pytest.raises(probes.InputError, match=f"(?s)^the (frame|data set): .*{message}"):
        probes.load_corpus(source(frame), **options)


def test_the_rows_of_a_message_are_those_of_the_source_also_where_some_were_left_out():
    frame = ROWS.assign(text=["a", "b", "c", ""]).set_axis([7, 7, 8, 8])
    with pytest.raises(probes.InputError, match="text is empty in row 3"):
        probes.load_corpus(frame, languages=["nan", "no"], split="test")


def test_an_unlabelled_class_label_is_a_null_label():
    data = with_class_labels(ROWS).to_dict()
    data = datasets.Dataset.from_dict(
        {**data, "label": [0, -1, 0, 1]}, features=datasets.Features(with_class_labels(ROWS).features)
    )
    with pytest.raises(probes.InputError, match="label is null in row 1"):
        probes.load_corpus(data)


PARQUET = ("PAR1" + "\0" * 20).encode()
BAD_FILES = {
    "parquet as csv": ("x.csv", PARQUET, "x.csv is not a comma-separated table, as its name says .*binary content"),
    "parquet as tsv": ("x.tsv", PARQUET, "x.tsv is not a tab-separated table, as its name says .*binary content"),
    "csv as parquet": ("x.parquet", b"id,language,text\n1,en,x\n", "x.parquet is not a Parquet file, as its name says"),
    "csv as jsonl": ("x.jsonl", b"id,language,text\n1,en,x\n", "x.jsonl is not a file of JSON lines, as its name says"),
    "number in json": ("x.json", b"3\n", "not a file of JSON lines.*one object a line"),
    "latin 1": (
        "x.csv",
        "id,language,text\n1,de,süß\n".encode("latin-1"),
        r"expected text in UTF-8, found the byte 0xfc",
    ),
    "text unquoted": (
        "x.csv",
        b"id,language,text\n1,en,Hello, you\n2,en,Hi, all\n",
        "not a comma-separated table.*cells",
    ),
    "rows too long": ("x.csv", b"id,language,text\n1,en,Hello\n2,en,Hi, all\n", "not a comma-separated table.*line 3"),
    "header only": ("x.csv", b"id,language,text\n", "expected at least one row, found none"),
    "empty csv": ("x.csv", b"", "x.csv: the file is empty. Expected a comma-separated table with the columns id, lang"),
    "empty parquet": ("x.parquet", b"", "x.parquet: the file is empty. Expected a Parquet file"),
    "unknown ending": ("x.xls", b"PK", "ending in .csv, .tsv, .parquet, .jsonl, .json, .xlsx, found '.xls'"),
    "no workbook": ("x.xlsx", b"PK", "x.xlsx is not an Excel file, as its name says"),
    "not packed": ("x.csv.gz", b"id,language,text\n", "x.csv.gz is not a comma-separated table, as its name says"),
    "packed parquet": ("x.parquet.gz", PARQUET, r"found '.gz'\. Convert it, .* may be packed: \.gz, \.zst"),
    "no ending": ("corpus", b"id,language,text\n", "found 'no ending'"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(probes.InputError, match=message) as caught:
        probes.load_corpus(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("missing", ["/no/such/rows.csv", "rows-that-are-not.csv", "./rows.parquet"])
def test_a_file_that_is_not_there_is_refused_as_such(missing):
    with pytest.raises(
        probes.InputError, match=f"{re.escape(missing.removeprefix('./'))}: no such file. Check the path"
    ):
        probes.load_corpus(missing)


def test_a_dictionary_of_splits_is_refused_with_their_names():
    with pytest.raises(probes.InputError, match=r"found a dictionary of dev, test. Pass one of them"):
        probes.load_corpus(datasets.DatasetDict(dev=as_dataset(ROWS), test=as_dataset(ROWS)))


@pytest.mark.parametrize("source", [as_dataset(ROWS).to_iterable_dataset(), None, ["a text"]], ids=str)
def test_anything_else_is_refused_with_its_type(source):
    with pytest.raises(probes.InputError, match=type(source).__name__):
        probes.load_corpus(source)


@pytest.mark.parametrize("name", ["no-such-corpus", "owner/no-such-corpus"])
def test_a_hub_name_that_cannot_be_reached_says_so_in_one_line(name):
    with pytest.raises(probes.InputError, match=f"'{name}' is neither a file here nor a data set") as caught:
        probes.load_corpus(name)
    assert "\n" not in str(caught.value)


def test_a_corpus_built_by_hand_is_checked_as_a_loaded_one():
    assert check_corpus(as_dataset(ROWS)).column_names == list(ROWS)
    with pytest.raises(probes.InputError, match=r"expected a datasets\.Dataset, found DataFrame"):
        check_corpus(ROWS)
    with pytest.raises(probes.InputError, match="text is empty in row 0"):
        check_corpus(as_dataset(ROWS.assign(text=["", "b", "c", "d"])))


def test_a_corpus_is_checked_once():
    loaded = probes.load_corpus(ROWS)
    assert check_corpus(loaded) is loaded
    part = check_corpus(loaded.select([0, 1]))
    assert check_corpus(part) is part
    # In another format its values would come out otherwise.
    assert check_corpus(loaded.with_format("numpy")).format["type"] is None
    loaded.set_format("numpy", columns=["text"])
    assert check_corpus(loaded).format["type"] is None


# --- describe, cautions, fingerprint ---------------------------------------------------------------------------------


def test_describe_prints_counts_and_cautions(capsys):
    probes.describe(probes.load_corpus(pd.concat([many(), many(100, "fr", text="same")])))
    out = capsys.readouterr().out
    assert out.startswith("300 rows, 200 ids, 2 languages")
    assert re.search(r"en +100 +100 +200\nfr +50 +50 +100\n\S+ +150 +150 +300\n", out)
    assert "caution: ids missing in a language: fr lacks 100 of 200" in out
    assert "caution: duplicated texts: 100 rows in fr" in out


def test_describe_says_where_nothing_was_found_and_manages_without_labels(capsys):
    probes.describe(probes.load_corpus(many().drop(columns="label")))
    out = capsys.readouterr().out
    assert re.search(r"en +200", out)
    assert "nothing that is known to mislead was found" in out


def test_describe_takes_any_names_of_labels_and_languages(capsys):
    probes.describe(probes.load_corpus(many(label=["all", "b"] * 100, language="all")))
    assert capsys.readouterr().out.startswith("200 rows")


CAUTIONS = {
    "sorted": (many(label=["a"] * 100 + ["b"] * 100), ["rows sorted by label in en: never take the first n rows"]),
    "lonely": (many(label=["a", "b"] * 99 + ["a", "c"]), ["classes of one example: 'c' in en"]),
    "length": (
        many(text=[f"text {i:04}" + " more" * (i % 2) for i in range(200)]),
        ["label readable from text length alone in en: accuracy 1.00, largest class 0.50"],
    ),
    "duplicated": (many(text=["same", "same", *(f"t{i:04}" for i in range(198))]), ["duplicated texts: 2 rows in en"]),
    "missing": (pd.concat([many(), many(198, "fr")]), ["ids missing in a language: fr lacks 2 of 200"]),
    "labels differ": (
        pd.concat([many(), many(language="fr", label=list("ab") * 98 + list("baab"))]),
        ["translations of one sentence carry different labels: 2 ids"],
    ),
}


@pytest.mark.parametrize(("frame", "expected"), CAUTIONS.values(), ids=CAUTIONS)
def test_each_caution_is_given_for_its_planted_case_and_no_other(frame, expected):
    found = probes.cautions(probes.load_corpus(frame))
    assert [c for c in found if c in expected] == expected
    assert len(found) == 1, found


@pytest.mark.parametrize("frame", [many(), pd.concat([many(), many(language="fr")]), many().drop(columns="label")])
def test_a_clean_corpus_gets_no_caution(frame):
    assert probes.cautions(probes.load_corpus(frame)) == []


def test_the_same_text_in_two_languages_or_with_another_pair_is_no_duplicate():
    frame = many(text="same", text_pair=[f"pair {i:04}" for i in range(200)])
    assert probes.cautions(probes.load_corpus(pd.concat([frame, frame.assign(language="fr")]))) == []


def test_a_group_is_a_text_of_any_column_and_none_where_all_are_empty(tmp_path):
    numbers = ROWS.assign(article=[1.0, 2.0, 1.0, 2.0])
    assert probes.load_corpus(numbers, group="article")["group"][:] == ["1", "2", "1", "2"]
    assert "group" not in probes.load_corpus(numbers).column_names
    empty = ROWS.assign(group="")
    assert "group" not in probes.load_corpus(write(empty, tmp_path / "rows.tsv")).column_names
    assert corpus_fingerprint(probes.load_corpus(numbers, group="article")) != corpus_fingerprint(
        probes.load_corpus(ROWS)
    )


@pytest.mark.parametrize("column", list(ROWS))
def test_the_fingerprint_changes_with_any_value(column):
    before = corpus_fingerprint(probes.load_corpus(ROWS))
    changed = ROWS.copy()
    changed.loc[3, column] = {"id": "9", "language": "no "}.get(column, ROWS.loc[3, column] + ".")
    assert corpus_fingerprint(probes.load_corpus(changed)) != before
    if column in ("label", "split"):
        assert corpus_fingerprint(probes.load_corpus(ROWS.drop(columns=column))) != before


def test_the_fingerprint_changes_with_the_order_of_rows_only():
    before = corpus_fingerprint(probes.load_corpus(ROWS))
    assert corpus_fingerprint(probes.load_corpus(ROWS.iloc[::-1])) != before
    assert corpus_fingerprint(as_dataset(ROWS[list(ROWS)[::-1]])) == before
    assert corpus_fingerprint(as_dataset(ROWS.iloc[::-1]).select([3, 2, 1, 0])) == before


def test_the_fingerprint_does_not_change_with_how_the_corpus_was_loaded(tmp_path):
    sources = [ROWS, as_dataset(ROWS), with_class_labels(ROWS), ROWS.assign(id=[1, 2, 1, 2], url="x")]
    sources += [write(ROWS, tmp_path / f"rows{ending}") for ending in ENDINGS]
    assert len({corpus_fingerprint(probes.load_corpus(source)) for source in sources}) == 1


def test_json_lines_need_not_have_their_keys_in_order(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [dict(reversed(row.items())) if i % 2 else row for i, row in enumerate(ROWS.to_dict("records"))]
    path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    pd.testing.assert_frame_equal(probes.load_corpus(path).to_pandas(), ROWS, check_dtype=False)


# --- what strangers send ---------------------------------------------------------------------------------------------

SWALLOWED = [
    '1,en,"Stop he said,a\n2,en,Go she said,b\n3,en,"No they said,a\n4,en,Yes,b\n',
    '1,en,"Stop he said,a\n2,fr,"No they said,b\n3,en,Yes,b\n',
    '1,en,"Stop he said,a\r\n2,en,"Go, she said",b\r\n4,en,Yes,b\r\n',
    '1,en,"Stop he said,a\n2,en,"Go she said",b\n4,en,Yes,b\n',
]


@pytest.mark.parametrize("rows", [SWALLOWED[i] for i in (0, 1, 3)])
def test_rows_that_quotation_marks_swallow_are_said_with_the_row(tmp_path, rows):
    path = tmp_path / "c.csv"
    path.write_text("id,language,text,label\n" + rows)
    with pytest.warns(LayerscopeWarning, match=r"c\.csv: text in row 0 holds line breaks .* did two quotation marks"):
        corpus = probes.load_corpus(path)
    assert any("text in row 0 holds line breaks" in found for found in probes.cautions(corpus))


def test_rows_that_quotation_marks_break_are_refused(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("id,language,text,label\n" + SWALLOWED[2])
    with pytest.raises(InputError, match="is not a comma-separated table"):
        probes.load_corpus(path)


def test_texts_of_several_lines_are_no_swallowed_rows(tmp_path):
    texts = [
        "one, two, three,\nfour, five, six",
        'he said, "no",\nand went, slowly, away',
        "a\nb",
        "a;b;c;d",
        "1,2\n3,4",
    ]
    path = write(pd.DataFrame({"id": range(5), "language": "en", "text": texts}), tmp_path / "c.csv")
    corpus = probes.load_corpus(path)
    assert corpus["text"][:] == texts
    assert not [c for c in probes.cautions(corpus) if "quotation" in c]


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("language", ["en", "EN"], "languages that look alike, and count as different: 'en' and 'EN'"),
        ("language", ["en", "en "], "languages that look alike, and count as different: 'en' and 'en '"),
        ("label", ["caf\u00e9", "cafe\u0301"], r"labels that look alike, and count as different: 'caf\xe9' and"),
        ("label", ["x", "x\u200b"], r"labels that look alike, and count as different: 'x' and 'x\u200b'"),
        ("label", ["1", "1.0"], "labels that look alike, and count as different: '1' and '1.0'"),
        ("id", ["1", "1.0"], "ids that look alike, and count as different: '1' and '1.0'"),
        ("group", ["1", "1.0"], "groups that look alike, and count as different: '1' and '1.0'"),
    ],
)
def test_values_that_look_alike_are_cautions(column, values, said):
    frame = pd.DataFrame({"id": ["1", "2"], "language": ["en", "en"], "text": ["a", "b"], column: values})
    assert any(found.startswith(said) for found in probes.cautions(probes.load_corpus(frame)))


def test_ids_that_differ_by_case_are_no_caution():
    frame = pd.DataFrame({"id": ["a", "A"], "language": "en", "text": ["x", "y"]})
    assert probes.cautions(probes.load_corpus(frame)) == []


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label", [1e30, 2e30], "label is 1e+30 in 2 rows (counted from 0: 0, 1): numbers of that size are rounded"),
        ("id", [1e19, 2.0], "id is 1e+19 in row 0: numbers of that size are rounded"),
        ("text", [["a", "b"], "c"], "text is no text in row 0: found list. Give one string"),
        ("text", [b"a", "c"], "text is no text in row 0: found bytes"),
        ("text", ["c", "a \ud800"], r"text holds half of a surrogate pair in row 1, which is no character: 'a \ud800'"),
        ("label", ["c", "\udfff"], "label holds half of a surrogate pair in row 1"),
    ],
)
def test_what_is_no_text_is_refused_in_words(column, values, said):
    base = {"id": ["1", "2"], "language": ["en", "en"], "text": ["a", "b"]}
    frame = pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in (base | {column: values}).items()})
    with pytest.raises(InputError) as caught:
        probes.load_corpus(frame)
    assert str(caught.value).startswith(f"the frame: {said}")


def test_half_of_a_surrogate_pair_in_json_is_said(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"id": "1", "language": "en", "text": "x \\ud83d"}\n')
    with pytest.raises(InputError, match="text holds half of a surrogate pair in row 0"):
        probes.load_corpus(tmp_path / "c.jsonl")


def test_a_label_may_be_called_as_the_totals_are(capsys):
    frame = pd.DataFrame(
        {"id": ["1", "2"], "language": ["(all)", "((all))"], "text": ["a", "b"], "label": ["(all)", "x"]}
    )
    probes.describe(probes.load_corpus(frame))
    assert "(((all)))" in capsys.readouterr().out


def test_names_that_steer_a_terminal_are_shown(capsys):
    frame = pd.DataFrame({"id": ["1", "2"], "language": "e\x1b[31mn", "text": ["a", "b"], "label": ["x\r", "y\u202e"]})
    probes.describe(probes.load_corpus(frame))
    out = capsys.readouterr().out
    assert r"e\x1b[31mn" in out
    assert r"x\r" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def of_articles(rng, **columns):
    """A corpus of two languages, four sentences an article one after another, with the article's label."""
    article = np.arange(160) // 4
    label = rng.integers(0, 5, 40)[article].astype(str)
    frame = pd.DataFrame({"id": np.arange(160), "label": label, "text": [f"t{i} {k}" for i, k in enumerate(RANDOM)]})
    frame = frame.assign(**columns)
    return pd.concat([frame.assign(language=k) for k in ("en", "fr")], ignore_index=True)


RANDOM = ["word " * n for n in np.random.default_rng(0).integers(1, 9, 160)]


def test_neighbours_that_share_labels_are_a_caution_where_there_is_no_group():
    rng = np.random.default_rng(0)
    frame = of_articles(rng)
    found = [c for c in probes.cautions(probes.load_corpus(frame)) if "neighbours" in c]
    assert len(found) == 1
    assert found[0].startswith("neighbours in the file share labels in en, fr, far more than by chance")
    shuffled = frame.sample(frac=1, random_state=0)
    assert not any("neighbours" in c for c in probes.cautions(probes.load_corpus(shuffled)))
    grouped = of_articles(rng, group=np.arange(160) // 4)
    assert not any("neighbours" in c for c in probes.cautions(probes.load_corpus(grouped)))
    in_order = frame.sort_values("label")
    assert not any("neighbours" in c for c in probes.cautions(probes.load_corpus(in_order)))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([[1, 0, 1], [0, 0, 0], [0, 1, 0]], ["0 2", "", "1"]),
        ([[True, False], [False, True], [True, True]], ["0", "1", "0 1"]),
        ([np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])], ["1", "0", "1"]),
        ([[0, 1], [0, 1], [0, 1]], ["0 1"] * 3),  # names, in one order
        ([[0], [1], [1]], ["0", "1", "1"]),
        ([[0, 1], [1], [0]], ["0 1", "1", "0"]),
        ([["b", "a"], ["a"], []], ["b a", "a", ""]),
        (["a b", "b", ""], ["a b", "b", ""]),
    ],
)
def test_marks_of_classes_are_the_numbers_of_those_that_are_marked(cells, expected):
    frame = pd.DataFrame({"id": range(3), "language": "en", "text": ["one", "two", "three"]})
    frame["labels"] = pd.Series(cells, dtype=object)
    assert list(probes.load_corpus(frame)["labels"]) == expected
