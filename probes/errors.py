"""What goes wrong because of what was given, or is not installed, so that callers can tell it from defects."""

from __future__ import annotations

import importlib
from typing import Any


class InputError(ValueError):
    """Something that was given cannot be used; the message says what was expected, what was found and what to do."""


class DependencyError(InputError, ImportError):
    """A package that is not installed is needed; the message says what for, and how to install it."""


class LayerscopeWarning(UserWarning):
    """The run goes on, but a number is missing or needs care; the message says which and why."""


def needed(package: str, feature: str, extra: str = "deploy") -> Any:
    """Import a package that only some features need; raise `DependencyError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DependencyError(
            f"{feature} needs the package {package}, which is not installed: pip install 'layerscope[{extra}]'"
        ) from error
