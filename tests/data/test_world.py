"""The files of the invented world are those that their script writes."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "data" / "rebuild" / "world.py"


def test_it_is_the_one_that_the_script_writes():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
