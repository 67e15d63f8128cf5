"""What is said where there is only a clone."""

import shutil
import subprocess
import sys
from pathlib import Path

import probes
from probes.installed import check_installed


def test_where_it_is_installed_nothing_is_said():
    assert check_installed() is None


def test_a_clone_that_was_not_installed_names_the_command_that_installs(tmp_path):
    package = tmp_path / "probes"
    package.mkdir()
    for name in ("__init__.py", "installed.py"):
        shutil.copy(Path(probes.__file__).with_name(name), package)
    found = subprocess.run(
        [sys.executable, "-S", "-E", "-c", "import probes"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    said = found.stderr.strip().splitlines()[-1]
    assert said.startswith("ImportError: layerscope is not installed for this Python")
    assert f'pip install -e "{tmp_path}"' in said
