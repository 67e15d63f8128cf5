"""The command line: what it prints, what it writes, and how it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compress.__main__ import main


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
