"""Docstrings are put as griffe, which reads them for the reference, knows them; needs what `make docs` installs."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="make docs installs griffe")

SPEC = importlib.util.spec_from_file_location("docstrings", Path(__file__).parents[2] / "notebooks/docstrings.py")

WRITTEN = """Knock.

Args:
    door, window: what is knocked at,
        once each.

    **rest: what is left.
    draws, seed: of the bootstrap.

Returns:
    Two things: rows, scores, and no more.

See also:
    `enter`, `Door.open`, `compress.prune`.

Example:
    >>> knock()
"""
READ = """Knock.

Args:
    door: what is knocked at,
        once each.
    window: what is knocked at,
        once each.

    **rest: what is left.
    draws: of the bootstrap.
    seed: of the bootstrap.

Returns:
    Two things: rows, scores, and no more.

See also:
    `probes.enter`, `probes.Door.open`, `compress.prune`.

Examples:
    >>> knock()
"""


def test_names_that_share_an_entry_get_one_each_and_others_their_package():
    docstrings = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(docstrings)
    assert docstrings.rewritten(WRITTEN, "probes") == READ
