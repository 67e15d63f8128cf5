"""What goes wrong because of what was given, or is not installed, so that callers can tell it from
defects.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """What was given cannot be used; the message says what was expected, found and what to do."""


class DependencyError(InputError, ImportError):
    """A package that is not installed is needed; the message says what for, and how to install it."""


class LayerscopeWarning(UserWarning):
    """The run goes on, but a number is missing or needs care; the message says which and why."""


def check_choice(setting: str, value: object, known: Iterable[str], otherwise: str = "") -> None:
    """Raise `InputError` where the value of a setting is none of those that are known.

    Args:
        setting: its name, as the user writes it.
        value: what was given.
        known: all that it can be.
        otherwise: what else can be given, as "or give numbers".

    Example:
        >>> check_choice("scope", "matrx", ("matrix", "unit"))
        Traceback (most recent call last):
            ...
        probes.errors.InputError: scope='matrx' is not known; choose one of 'matrix', 'unit'. Did you mean 'matrix'?
    """
    known = tuple(known)
    if isinstance(value, str) and value in known:
        return
    text = f"{setting}={value!r} is not known; choose one of {', '.join(map(repr, known))}"
    near = difflib.get_close_matches(value.lower(), known, n=1) if isinstance(value, str) else []
    raise InputError(text + (f", {otherwise}" if otherwise else "") + (f". Did you mean {near[0]!r}?" if near else ""))


def needed(package: str, feature: str, extra: str = "deploy") -> Any:
    """Import a package that only some features need; raise `DependencyError` where it is not
    installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DependencyError(
            f"{feature} needs the package {package}, which is not installed: pip install 'layerscope[{extra}]'"
        ) from error
