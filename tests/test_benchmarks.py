"""The benchmarks run for anyone: they assert nothing, and what they find or what stops them is a row of one table."""

import ast
import importlib
import json
import os
import sys
from pathlib import Path
from unittest import mock

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
FILES = sorted(FOLDER.glob("*.py"))
BENCHMARKS = [file for file in FILES if file.stem.startswith("bench_")]


@pytest.fixture(scope="module")
def common():
    """What the benchmarks share, without the environment that it sets for them."""
    with mock.patch.dict(os.environ), mock.patch.object(sys, "path", [*sys.path]):
        return importlib.import_module("benchmarks.common")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_benchmark_asserts(file):
    nodes = list(ast.walk(ast.parse(file.read_text())))
    assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)]
    # Nor by the assertions of playwright and numpy.
    names = {getattr(node, "attr", getattr(node, "id", "")) for node in nodes}
    assert not [name for name in names if name == "expect" or name.startswith("assert")]


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_every_benchmark_gives_its_rows_to_the_common_function(file):
    tree = ast.parse(file.read_text())
    shared = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "common"]
    assert {"Row", "run"} <= {alias.name for node in shared for alias in node.names}
    # The environment is set before anything reads it.
    before = [n for n in tree.body[: tree.body.index(shared[0])] if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = {getattr(n, "module", None) or n.names[0].name for n in before}
    assert {m.split(".")[0] for m in modules} <= sys.stdlib_module_names
    assert ast.unparse(tree.body[-1]) == "if __name__ == '__main__':\n    run(rows)"


def test_the_runner_knows_every_benchmark():
    tree = ast.parse((FOLDER / "__main__.py").read_text())
    known = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert {file.stem.removeprefix("bench_") for file in BENCHMARKS} <= known


def test_what_stops_a_benchmark_is_said_in_one_line_after_what_it_found(common, monkeypatch, tmp_path, capsys):
    def rows(quick):
        yield common.Row("a step", 0.5, 1.0, "a peer")
        raise ValueError("the reason\nand more")

    monkeypatch.setattr(sys, "argv", ["bench_it.py"])
    monkeypatch.setenv(common.ROWS, str(tmp_path / "rows"))
    common.run(rows)
    found = [common.Row(**json.loads(line)) for line in (tmp_path / "rows").read_text().splitlines()]
    assert found[0] == common.Row("a step", 0.5, 1.0, "a peer")
    assert (found[1].what, found[1].note.split(" (")[0]) == ("stopped", "ValueError: the reason")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert all(word in said[0] for word in ("cores", "threads", "load", "torch"))


def test_the_table_says_ratio_and_what_is_missing(common):
    rows = [
        ("speed", common.Row("a step", 0.5, 1.0, "a peer", note="agrees")),
        ("speed", common.Row("a step", 2.0, None, "a peer")),
    ]
    head, compared, missing = common.table(rows).splitlines()
    assert head.split() == ["benchmark", "what", "ours", "peer", "ratio", "note"]
    assert compared.split() == ["speed", "a", "step", "500", "ms", "1", "s", "a", "peer", "2", "agrees"]
    assert missing.split() == ["speed", "a", "step", "2", "s", "a", "peer", "is", "missing"]


def test_a_wrong_number_and_a_missing_peer_are_said_in_words(common, capsys):
    assert common.agreement([1.0, 2.0], [1.0, 2.0 + 1e-6], 1e-5) == "agrees to 1e-06"
    assert common.agreement([1.0, 2.0], [1.0, 2.5], 1e-5) == "differs: by up to 5e-01"
    assert common.agreement([1.0], [float("nan")], 1e-5) == "differs: by up to nan"
    assert common.installed("no_such_peer") is common.installed("no_such_peer") is None
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "pip install" in said[0]
