"""Imported first: says how to install the package where there is only its source."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path


def check_installed() -> None:
    """Raise `ImportError` with the command that installs, where only the source was found.

    Example:
        >>> check_installed()
    """
    try:
        metadata.version("layerscope")
    except metadata.PackageNotFoundError:
        folder = Path(__file__).resolve().parents[1]
        raise ImportError(
            f"layerscope is not installed for this Python: {folder} is its source alone, without what it needs. "
            f'Install it: pip install -e "{folder}", or, with JupyterLab and the explorer, pip install -e '
            f'"{folder}[lab]". `make demo` in that folder makes an environment of its own, .venv'
        ) from None


check_installed()
