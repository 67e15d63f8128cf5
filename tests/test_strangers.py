"""Tables, configurations and command lines that nobody meant: refused in words or read whole, never a traceback."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import probes
from compress.__main__ import layerscope
from probes.errors import InputError, LayerscopeWarning

QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}


def tried(check: Callable[[Any], None], made: st.SearchStrategy[Any], count: int) -> Callable[[], None]:
    """Return a test of so many things made by chance."""

    @settings(max_examples=count, **QUIET)
    @given(made)
    def test(one: Any) -> None:
        check(one)

    return test


# Characters that end cells, rows, texts or files, steer terminals, or are none; and some that are letters.
HARD = st.sampled_from([
    '"', ",", ";", "\t", "\n", "\r", "\r\n", "\0", "\x1a", "\x1b[31m", "\ufeff", "\u2028", "\x85", "\u202e", "\\",
    "'", "=", "+", "-", "@", "#", " ", "é", "e\u0301", "日本", "مرحبا", "\ud83d", "NA", "nan", "(all)", "en", "1.0",
])  # fmt: skip
TEXTS = st.lists(HARD | st.text("abc 12", max_size=4), max_size=5).map("".join)
VALUES = (
    TEXTS
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.lists(TEXTS, max_size=2)
    | st.dictionaries(TEXTS, TEXTS, max_size=1)
    | st.binary(max_size=3)
)
COLUMNS = ["id", "language", "text", "label", "text_pair", "split", "other"]


@st.composite
def tables(draw: Any) -> tuple[str, Any, int | None]:
    """A file's ending or "frame", what is in it, and how many rows were meant, where that is known."""
    kind = draw(st.sampled_from(["csv", "tsv", "jsonl", "parquet", "frame", "raw", "unquoted"]))
    names = [
        "id",
        "language",
        "text",
        *draw(st.lists(st.sampled_from(COLUMNS), max_size=3, unique=draw(st.booleans()))),
    ]
    if kind == "raw":
        return draw(st.sampled_from(["csv", "tsv", "jsonl"])), draw(st.binary(max_size=60) | TEXTS.map(_bytes)), None
    count = draw(st.integers(0, 6))
    plain = draw(st.booleans())
    cells = st.text("abc ", min_size=1, max_size=5).filter(str.strip) if plain else TEXTS
    odd = kind in ("jsonl", "frame") and not plain
    rows = [[draw(VALUES if odd else cells) for _ in names] for _ in range(count)]
    for i, row in enumerate(rows):
        if draw(st.integers(0, 9)):  # mostly rows that pass the first checks
            row[:2] = [str(i), draw(st.sampled_from(["en", "fr", "EN", "en "]))]
    if kind == "frame":
        return "frame", pd.DataFrame(rows, columns=pd.Index(names, dtype=object), dtype=object), count
    if kind == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True)), default=str) for row in rows]
        return "jsonl", "\n".join(lines).encode(), count
    if kind == "parquet":
        unique = dict.fromkeys(names)
        rows = [[str(v).encode(errors="replace").decode() for v in row] for row in rows]
        frame = pd.DataFrame(rows, columns=names).loc[:, lambda f: ~f.columns.duplicated()]
        return "parquet", frame.astype(dict.fromkeys(unique, str)), count
    if kind == "unquoted":  # as a program writes that knows nothing of quotation marks
        return "csv", "".join(",".join(map(str, r)) + "\n" for r in [names, *rows]).encode(errors="replace"), None
    out = io.StringIO(newline="")
    if kind == "tsv":
        rows = [[" ".join(str(v).replace("\0", "").split()) for v in row] for row in rows]
        out.write("".join("\t".join(r) + "\n" for r in [names, *rows]))
    else:
        csv.writer(out, lineterminator="\n").writerows([names, *rows])
    return kind, out.getvalue().encode(errors="replace"), count


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def check_table(made: tuple[str, Any, int | None]) -> None:
    kind, content, count = made
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        source: Any = content if kind == "frame" else Path(folder) / f"t.{kind}"
        if kind == "parquet":
            content.to_parquet(source)
        elif kind != "frame":
            source.write_bytes(content)
        try:
            corpus = probes.load_corpus(source)
        except InputError:
            return
        with contextlib.redirect_stdout(io.StringIO()) as out:
            probes.describe(corpus)
    printed = out.getvalue().encode()  # no surrogates
    assert not {b"\x1b", b"\r", b"\0"} & {printed[i : i + 1] for i in range(len(printed))}
    if count is not None:
        assert len(corpus) == count
    elif kind == "csv" and content.count(b"\n") - 1 > len(corpus) and b'"' not in content:
        # What was not quoted holds its rows; blank ones do not count.
        assert len([line for line in content.splitlines() if line.strip()]) - 1 <= len(corpus) or said


test_a_sample_of_tables_is_read_whole_or_refused_in_words = tried(check_table, tables(), 60)
test_tables_are_read_whole_or_refused_in_words = pytest.mark.faults(tried(check_table, tables(), 2000))


@st.composite
def swallowing(draw: Any) -> tuple[str, int]:
    """A table whose cells are not quoted, two of which open a quotation mark; and its rows."""
    count = draw(st.integers(4, 12))
    words = st.text("abc ", min_size=1, max_size=8).filter(str.strip)
    rows = [[str(i), draw(st.sampled_from(["en", "fr", "zh-Hans"])), draw(words), draw(words)] for i in range(count)]
    for i in sorted(draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))):
        rows[i][2] = '"' + rows[i][2]
    names = draw(st.sampled_from([["id", "language", "text", "label"], ["id", "language", "text", "other"]]))
    return "".join(",".join(row) + "\n" for row in [names, *rows]), count


def check_swallowing(made: tuple[str, int]) -> None:
    text, count = made
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = Path(folder) / "t.csv"
        path.write_text(text)
        try:
            corpus = probes.load_corpus(path)
        except InputError:
            return
    assert len(corpus) == count or any("swallow" in str(w.message) for w in said if w.category is LayerscopeWarning)


test_a_sample_of_swallowed_rows_is_said = tried(check_swallowing, swallowing(), 40)
test_swallowed_rows_are_said = pytest.mark.faults(tried(check_swallowing, swallowing(), 500))


KEYS = ["heads_kept", "factorized", "shared_layers", "sparse_embeddings", "quantized_inputs", "quantization_config"]
KEYS += ["hashed_weights"]
KEYS += ["num_hidden_layers", "vocab_size", "num_labels", "attn_implementation", "architectures", "model_type"]
KEYS += ["output_codes"]
INNER = st.sampled_from(["encoder.layer.0.output.dense", "bits", "rank", "features", "x"])
NESTED: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["x", "encoder.layer.0", "owner/kernel"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(INNER, inner, max_size=3),
    max_leaves=5,
)


def check_configuration(folder: Path, said: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = shutil.copytree(folder, Path(scratch) / "m")
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | said))
        with contextlib.suppress(InputError):
            probes.load_checkpoint(model)


@settings(max_examples=15, **QUIET)
@given(said=st.dictionaries(st.sampled_from(KEYS), NESTED, min_size=1, max_size=2))
def test_a_sample_of_configurations_is_loaded_or_refused_in_words(tiny_folder, said):
    check_configuration(tiny_folder, said)


@pytest.mark.faults
@settings(max_examples=400, **QUIET)
@given(said=st.dictionaries(st.sampled_from(KEYS), NESTED, min_size=1, max_size=2))
def test_configurations_are_loaded_or_refused_in_words(tiny_folder, said):
    check_configuration(tiny_folder, said)


COMMANDS = ["compare", "describe", "prune", "quantize", "structure", "vocabulary", "fuse", "factorize", "distill", "x"]
WORDS = [
    "bundled", "a=bundled", "a=", "=x", "\x1b=bundled", "gone", "gone.csv", "a\0b", "", " ", "/", "..", ".", "x" * 300,
    "--out", "--corpus", "--split", "--languages", "--id", "--text", "--label", "--seed", "--draws", "--probes",
    "--pivot", "--baseline", "--overwrite", "--device", "--max-length", "--dtype", "--batch-size", "--sparsity",
    "--bits", "--heads", "--layers", "--rank", "--help", "0", "-1", "1e9", "nan", "en", "zz", "snr", "dev", "日本",
    "\udcff", "{folder}/new", "{folder}/file", "{folder}/file/under", "{folder}/" + "名" * 90, "{folder}/bad.csv",
]  # fmt: skip


@st.composite
def lines(draw: Any) -> list[str]:
    """A command line of words that mean something, in any order, on a corpus that has no rows."""
    command = draw(st.sampled_from(COMMANDS))
    given = draw(st.lists(st.sampled_from(WORDS) | TEXTS, max_size=7))
    # What would really run is not what is tried here: a corpus that is none ends it before.
    return [command, *given, *(["--corpus", "{folder}/bad.csv"] if command != "describe" else [])]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        place = Path(folder)
        (place / "file").write_text("here before")
        (place / "bad.csv").write_text('id,language,text\n1,en,"open\n')
        yield place


def check_line(words: list[str]) -> None:
    with (
        scratch() as place,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        try:
            status = layerscope([word.replace("{folder}", str(place)) for word in words])
        except SystemExit as stop:  # of argparse
            status = int(stop.code or 0)
        assert (place / "file").read_text() == "here before"
    assert status in (0, 2)
    if status:
        assert "error: " in err.getvalue()
    assert "Traceback" not in err.getvalue()


test_a_sample_of_command_lines_ends_in_words = tried(check_line, lines(), 25)
test_command_lines_end_in_words = pytest.mark.faults(tried(check_line, lines(), 400))
