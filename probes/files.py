"""Files that a user finds whole or not at all, and folders that are known to be writable before the
work begins.
"""

from __future__ import annotations

from pathlib import Path

from probes.errors import InputError


def check_writable(folder: Path) -> None:
    """Raise `InputError` where a folder cannot be made or written to; leaves no trace."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".layerscope-can-write"
        probe.touch()
        probe.unlink()
        for path in made:
            path.rmdir()
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}). Choose another output folder") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name and move it into place, so that it is never there in
    part.
    """
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
