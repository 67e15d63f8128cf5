import shutil

import pytest


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny model to spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "model")
