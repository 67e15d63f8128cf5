"""The models that come with the package, by the names that stand for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

# Name -> folder of the bundled data.
BUNDLED = {"bundled": "model", "bundled-decoder": "decoder"}


@contextmanager
def bundled_folder(source: str | Path) -> Iterator[Path]:
    """Give the folder of a bundled model while it is read; `source` is one of `BUNDLED`.

    Example:
        >>> with bundled_folder("bundled") as folder:
        ...     (folder / "config.json").is_file()
        True
    """
    with resources.as_file(resources.files("probes.data") / BUNDLED[str(source)]) as folder:
        yield folder
