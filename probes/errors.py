"""What goes wrong because of what was given, is not installed, or the system refuses, so that callers
can tell it from defects.
"""

from __future__ import annotations

import builtins
import difflib
import errno
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

# What to do where the system refuses.
_REMEDIES = {
    errno.ENOSPC: "Make room there, or choose another folder",
    errno.EDQUOT: "Make room there, or choose another folder",
    errno.EACCES: "Change its permissions, or choose another path",
    errno.EPERM: "Change its permissions, or choose another path",
    errno.EROFS: "Choose a path on a disk that can be written to",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOENT: "Check the path, and whether something else removed it",
    errno.EMFILE: "Close other programs, or allow more open files (ulimit -n)",
}

_URL = re.compile(r"([A-Za-z0-9]+::)*[A-Za-z][A-Za-z0-9+.-]+://")
_FILE = re.compile(r"(file|local)://")  # what is a path, in the words of fsspec
_LOST_SLASH = re.compile(r"^((abfss?|az|gcs|gs|hdfs|https?|memory|s3a?):)/")


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


def is_path(given: object) -> bool:
    """Whether something can be the path of a file or folder: a text of letters, without NUL."""
    if not isinstance(given, str | os.PathLike):
        return False
    text = os.fspath(given)
    with suppress(UnicodeEncodeError):  # half of a surrogate pair
        return b"\0" not in os.fsencode(text) and bool(text.strip())
    return False


def is_url(given: object) -> bool:
    """Whether something is the address of what fsspec reaches and no disk, as s3://bucket/name.

    Example:
        >>> is_url("s3://bucket/states.zarr"), is_url("states.zarr"), is_url("file:///states.zarr")
        (True, False, False)
    """
    return isinstance(given, str) and bool(_URL.match(given)) and not _FILE.match(given)


def path_of(given: str | Path, setting: str) -> Path:
    """Return what was given as a path; raise `InputError` where it can be none.

    Example:
        >>> path_of("", "store")
        Traceback (most recent call last):
            ...
        probes.errors.InputError: store='': expected a path. Give one of letters, without NUL
    """
    found = address_of(given, setting)
    if isinstance(found, Path):
        return found
    raise InputError(
        f"{setting}={given!r}: expected a path of this computer, found a URL: states and comparisons alone are "
        "written to and read from URLs. Give a path, and copy it there"
    )


def address_of(given: str | Path, setting: str) -> Path | str:
    """Return what was given as a path, or as the URL that it is; raise `InputError` where it can be
    neither.

    Example:
        >>> address_of("s3://bucket/run/", "store")
        's3://bucket/run'
    """
    if not is_path(given):
        raise InputError(f"{setting}={given!r}: expected a path. Give one of letters, without NUL")
    if is_url(given):
        if "::" in str(given):
            raise InputError(f"{setting}={given!r}: expected one URL, found a chain of several. Give the last of them")
        if not str(given).split("://", 1)[1].strip("/"):
            raise InputError(f"{setting}={given!r}: expected a place in a bucket, found none. Give s3://bucket/name")
        return str(given).rstrip("/")
    if isinstance(given, Path) and _LOST_SLASH.match(str(given)):
        meant = _LOST_SLASH.sub(r"\1//", str(given))
        raise InputError(f"{setting}={given!r}: a URL is a text, and as a path it has lost a slash. Give {meant!r}")
    return Path(_FILE.sub("", given) if isinstance(given, str) else given)


def of_the_system(error: BaseException) -> OSError | None:
    """Return what the system refused, also where a library has put it into words of its own.

    Example:
        >>> of_the_system(RuntimeError("I/O error: no space (os error 28)"))
        OSError(28, 'No space left on device')
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    number = re.search(r"\(os error (\d+)\)", str(error))  # as libraries written in Rust say it
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def remedy(error: OSError, otherwise: str = "Check the path and the disk") -> str:
    """Return what to do where the system refuses.

    Example:
        >>> remedy(OSError(errno.ENOSPC, "No space left on device"))
        'Make room there, or choose another folder'
    """
    return _REMEDIES.get(error.errno or 0, otherwise)


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


def warn_readably() -> None:
    """Have our warnings said once each, and in a notebook without the path of a file that nobody
    made.

    What the user's own filters say goes before it.
    """
    warnings.filterwarnings("once", category=LayerscopeWarning, append=True)
    plainly = warnings.formatwarning

    def formatted(message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if issubclass(category, LayerscopeWarning) and _in_notebook():
            return f"{category.__name__}: {message}\n"
        return plainly(message, category, filename, lineno, line)

    warnings.formatwarning = formatted


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules and hasattr(builtins, "__IPYTHON__")


warn_readably()
