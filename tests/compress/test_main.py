"""The command line: what it prints, what it writes, and how it fails."""

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import compress.commands
import probes.__main__
from compress.__main__ import layerscope, main


@pytest.mark.parametrize("arguments", [[], ["prune"], ["prune", "m", "--out", "o", "--sparsity", "much"], ["squeeze"]])
def test_an_unusable_command_line_ends_in_status_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m compress" in capsys.readouterr().err


def test_the_module_runs_as_a_program_and_ends_without_a_traceback(tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "compress", "prune", "/no/such/model", "--sparsity", "0.5", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: /no/such/model: no such folder. Check the path\n",
    )


def helped(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command(["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def commands_of(add):
    """The names of the commands that a file gives to a parser, and their first lines."""
    commands = argparse.ArgumentParser().add_subparsers()
    add(commands)
    return {name: parser.description for name, parser in commands.choices.items()}


def test_help_fits_a_screen_and_lists_every_command_with_its_purpose(capsys):
    other = ("arguments", "checking", "footprint")
    files = sorted(f.stem for f in Path(compress.commands.__path__[0]).glob("[!_]*.py") if f.stem not in other)
    verbs = {}
    for file in files:
        verbs |= commands_of(importlib.import_module(f"compress.commands.{file}").add)
    assert len(verbs) == 13
    measures = commands_of(probes.__main__.add)
    measures |= commands_of(compress.commands.checking.add) | commands_of(compress.commands.footprint.add)
    for command, wanted in ((main, verbs), (layerscope, measures | verbs)):
        lines = helped(command, capsys).splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80
        listed = [line.split(maxsplit=1) for line in lines if line.startswith("  ")]
        assert dict(listed) == wanted
        assert all(lines[i + 1].startswith("  ") for i, line in enumerate(lines) if line.endswith(":"))


def test_layerscope_does_what_each_package_does(tmp_path, tiny_folder, capsys):
    models = [f"base={tiny_folder}", f"again={tiny_folder}"]
    how = [
        "--corpus",
        "bundled",
        "--split",
        "dev",
        "--languages",
        "en,fr",
        "--pivot",
        "en",
        "--probes",
        "retrieval",
        "--no-timing",
    ]
    printed = []
    for name, command in (("one", probes.__main__.main), ("other", layerscope)):
        assert command(["compare", *models, *how, "--out", str(tmp_path / name)]) == 0
        printed.append(capsys.readouterr().out.replace(str(tmp_path / name), "there"))
    assert printed[0] == printed[1]
    one, other = ((tmp_path / name / "comparison.csv").read_bytes() for name in ("one", "other"))
    assert one == other
    for name, command in (("a", main), ("b", layerscope)):
        assert command(["prune", str(tiny_folder), "--sparsity", "0.5", "--out", str(tmp_path / name)]) == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == other
    assert layerscope(["describe", "/no/such/corpus.csv"]) == 2
