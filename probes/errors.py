"""What goes wrong because of what was given, or is not installed, so that callers can tell it from
defects.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """What was given cannot be used; the message says what was expected, found and what to do.

    Example:
        >>> import probes
        >>> try:
        ...     probes.from_arrays([[1.0, 2.0]], language=[None])
        ... except InputError as error:
        ...     print(error)
        language is null in row 0. Every row needs one: fill it, or drop the row
    """


class DependencyError(InputError, ImportError):
    """A package that is needed is not installed; the message says what for, and how to install it.

    Example:
        >>> try:
        ...     needed("a_package", "the export", extra="deploy")
        ... except DependencyError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        the export needs the package a_package, which is not installed: pip install ...
    """


class LayerscopeWarning(UserWarning):
    """The run goes on, but a number is missing or needs care; the message says which and why.

    Example:
        >>> import warnings
        >>> import numpy as np, probes
        >>> alike = probes.from_arrays(np.zeros((40, 3)), label=np.arange(40) % 2)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always", LayerscopeWarning)
        ...     value = probes.variability(alike).value
        >>> bool(value.isnull().all()), caught[0].category.__name__
        (True, 'LayerscopeWarning')
    """


def check_choice(setting: str, value: object, known: Iterable[str], otherwise: str = "") -> None:
    """Raise `InputError` where the value of a setting is none of those that are known.

    Args:
        setting: its name, as the user writes it.
        value: what was given.
        known: all that it can be.
        otherwise: what else can be given, as "or give numbers".

    Example:
        >>> check_choice("by", "units", ("one", "unit"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        probes.errors.InputError: by='units' is not known; choose one of ... Did you mean 'unit'?
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
