"""What is kept where fsspec reaches: s3://, gs://, memory://. Found whole or not at all, and written by one at a time.

Nothing is renamed there, and nothing has to be: an object is written whole. An address is a path or a URL.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
from fsspec.core import url_to_fs

from probes.errors import DependencyError, InputError, LayerscopeWarning, remedy
from probes.files import OURS, beside, check_writable, gone_on_failure, locked, named, runs, this_host, write_whole
from probes.forms import parse_json, read_json

Address = Path | str

# What reaches a kind of store: the package, and how it is installed.
_REACHED_BY = {
    "s3": ("s3fs", "layerscope[remote]"),
    "s3a": ("s3fs", "layerscope[remote]"),
    "gs": ("gcsfs", "gcsfs"),
    "gcs": ("gcsfs", "gcsfs"),
    "az": ("adlfs", "adlfs"),
    "abfs": ("adlfs", "adlfs"),
}
# The packages whose errors are those of a store, beside what the system says.
_OF_STORES = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs")
_POLL = 1.0  # seconds between two looks at what another process has marked


def within(address: Address, name: str) -> Address:
    """Return the address of something in a folder, or what is like one.

    Example:
        >>> within("s3://bucket/run", "comparison.csv")
        's3://bucket/run/comparison.csv'
    """
    return address / name if isinstance(address, Path) else f"{address}/{name}"


def beside_at(address: Address, what: str) -> Address:
    """Return the address of what is ours beside an address, as `probes.files.beside` does."""
    return beside(address, what) if isinstance(address, Path) else f"{address}{OURS}{what}"


def filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        InputError: there is no such kind of store.
        DependencyError: what reaches it is not installed.

    Example:
        >>> filesystem("memory://bucket/name")[1]
        '/bucket/name'
    """
    scheme = url.partition("://")[0].lower()
    try:
        # What was listed before is not what is there: others write as well.
        return url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        package, install = _REACHED_BY.get(scheme, ("", ""))
        if not package:
            raise DependencyError(f"{url} cannot be reached: {error}") from error
        raise DependencyError(
            f"{url} needs the package {package}, which is not installed: pip install '{install}'"
        ) from error
    except ValueError as error:
        raise InputError(
            f"{url}: {scheme}:// is no kind of store that is known. Give s3://, gs://, another that fsspec reaches, or "
            "a path"
        ) from error


@contextmanager
def reached(url: str, to: str = "read") -> Iterator[None]:
    """Raise `InputError` where a store does not let itself be "read" or "written to", in its words."""
    try:
        yield
    except Exception as error:
        if not _of_a_store(error):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{url} cannot be {to} ({said.rstrip('.')}). Check the address, the credentials and what they allow there"
        ) from error


@contextmanager
def going_on(url: str) -> Iterator[None]:
    """Raise `InputError` where a store is lost while something else is done than to write there."""
    try:
        yield
    except Exception as error:
        if not _of_a_store(error) or getattr(error, "errno", None) is not None:  # which is of a disk
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{url} cannot be written to any more ({said.rstrip('.')}). What was captured is kept: the same call goes "
            "on from there"
        ) from error


def exists(address: Address) -> bool:
    """Whether there is a file, or an object, at an address."""
    if isinstance(address, Path):
        return address.is_file()
    fs, path = filesystem(address)
    with reached(address):
        return bool(fs.isfile(path))


def read_at(address: Address) -> bytes | None:
    """Return what a file or an object holds, None where there is none."""
    if isinstance(address, Path):
        try:
            return address.read_bytes() if address.is_file() else None
        except OSError as error:
            raise InputError(f"{address} cannot be read ({error.strerror}). {remedy(error)}") from error
    fs, path = filesystem(address)
    with reached(address):
        try:
            return bytes(fs.cat_file(path))
        except FileNotFoundError:
            return None


def read_json_at(address: Address, form: Any) -> Any:
    """Return what a file or an object of JSON holds, as `probes.forms.read_json` does."""
    if isinstance(address, Path):
        return read_json(address, form)
    return parse_json((read_at(address) or b"").decode("utf-8", "replace"), form, address)


def write_at(address: Address, content: bytes) -> None:
    """Write a file or an object. An object is there whole or not at all; a file may be in part."""
    if isinstance(address, Path):
        address.write_bytes(content)
        return
    fs, path = filesystem(address)
    with reached(address, "written to"):
        fs.pipe_file(path, content)


def write_whole_at(address: Address, text: str) -> None:
    """Write a text, which is never there in part."""
    if isinstance(address, Path):
        write_whole(address, text)
    else:
        write_at(address, text.encode("utf-8"))


@contextmanager
def gone_on_failure_at(address: Address) -> Iterator[None]:
    """Leave nothing of a file or an object where what follows fails; name it where the system refuses."""
    if isinstance(address, Path):
        with named(address), gone_on_failure(address):
            yield
        return
    try:
        yield
    except Exception:
        with suppress(Exception):  # a store that is lost cannot be asked; the error that says so counts
            remove_at(address)
        raise


def move_at(old: Address, new: Address) -> None:
    """Move a file, or an object by writing it again, in the place of another."""
    if isinstance(old, Path):
        old.replace(new)
        return
    content = read_at(old)
    if content is not None:
        write_at(new, content)
        remove_at(old)


def remove_at(url: str) -> None:
    """Remove an object, where it is there."""
    fs, path = filesystem(url)
    with reached(url, "written to"), suppress(FileNotFoundError):
        fs.rm_file(path)


def sizes_at(url: str) -> dict[str, int]:
    """Return what lies below a URL: its name from there on -> its bytes.

    Example:
        >>> write_at("memory://sizes/run/a/b", b"12345")
        >>> sizes_at("memory://sizes/run")
        {'a/b': 5}
    """
    fs, path = filesystem(url)
    prefix = path.rstrip("/") + "/"
    with reached(url):
        try:
            found = fs.find(path, detail=True)
        except FileNotFoundError:
            return {}
    return {
        name.removeprefix(prefix): int(about["size"] or 0)
        for name, about in found.items()
        if name.startswith(prefix) and name != prefix
    }


def check_writable_at(address: Address) -> None:
    """Raise `InputError` where nothing can be written at an address. Of a URL only a writing tells:
    of an empty object, which is removed again.
    """
    if isinstance(address, Path):
        check_writable(address)
        return
    fs, path = filesystem(f"{address}/{OURS}{uuid.uuid4().hex[:16]}")
    with reached(address, "written to"):
        fs.pipe_file(path, b"")
        fs.rm_file(path)


@contextmanager
def locked_at(address: Address, *, wait: bool = True) -> Iterator[None]:
    """Be the only one that writes at an address, as `probes.files.locked` has it of a path.

    Args:
        address: what is written. Of a URL the lock is two: a file in the temporary folder of this
            host, for processes here, and an object beside it, `NAME.layerscope-lock`, which is
            created where none is, for those of other hosts.
        wait: as there.

    Raises:
        InputError: as there; the store cannot be written to.

    Notes:
        S3 and Google's stores create an object only where none is (`IfNoneMatch`), so of two hosts
        one is refused. Where a store ignores that, the mark is read again after it was written:
        two that write it in the same moment are still told apart, but for less than that.

    Example:
        >>> with locked_at("memory://bucket/states.zarr"):
        ...     exists("memory://bucket/states.zarr.layerscope-lock")
        True
        >>> exists("memory://bucket/states.zarr.layerscope-lock")
        False
    """
    if isinstance(address, Path):
        with locked(address, wait=wait):
            yield
        return
    user = getattr(os, "getuid", lambda: "user")()
    whose = os.getpid() if address.startswith("memory://") else ""  # which each process has for itself
    here = Path(tempfile.gettempdir()) / f"layerscope-{user}" / sha256(f"{whose}{address}".encode()).hexdigest()[:32]
    again = here in _marked
    with locked(here, wait=wait, called=address), nullcontext() if again else _mark(address, here, wait):
        yield


# The stand-ins of URLs that this process has marked: who holds one may ask for it again.
_marked: set[Path] = set()


@contextmanager
def _mark(url: str, here: Path, wait: bool) -> Iterator[None]:
    """Hold the object that says to other hosts who writes at a URL."""
    mark = f"{url}{OURS}lock"
    own = f"{os.getpid()}\n{this_host()}\n{psutil.Process().create_time()}\n{uuid.uuid4().hex}\n".encode()
    said = False
    while not _created(mark, own, url):
        found = (read_at(mark) or b"").decode("utf-8", "replace").split("\n")
        if len(found) < 3:  # it is gone by now, or says nobody: who wrote such a one is not of ours
            if found[0]:
                remove_at(mark)
            continue
        process, host, since = int(found[0]) if found[0].isdecimal() else 0, found[1], found[2]
        if host != this_host():
            raise InputError(
                f"{url} is being written by process {process} of the host {host}. Wait for it; if it runs no longer, "
                f"remove {mark}"
            )
        if not _is_at_work(process, since):  # killed: processes of this host do not get here while it runs
            remove_at(mark)
        elif not wait:
            raise InputError(
                f"{url} is being written by process {process}. Wait until it is done, or choose another path"
            )
        else:
            if not said:
                warnings.warn(
                    f"{url} is being written by process {process}; waiting until it is done",
                    LayerscopeWarning,
                    stacklevel=5,
                )
                said = True
            time.sleep(_POLL)
    _marked.add(here)
    with ExitStack() as afterwards:
        afterwards.callback(_marked.discard, here)
        afterwards.callback(_unmark, mark, own)
        yield


def _created(mark: str, own: bytes, url: str) -> bool:
    """Create an object where none is, and say whether it was; else leave what is there."""
    fs, path = filesystem(mark)
    with reached(url, "written to"):
        try:
            fs.pipe_file(path, own, mode="create")
        except FileExistsError:
            return False
        except TypeError:  # a kind of store that cannot create only where none is
            if fs.exists(path):
                return False
            fs.pipe_file(path, own)
    return read_at(mark) == own


def _unmark(mark: str, own: bytes) -> None:
    with suppress(Exception):  # as above
        if read_at(mark) == own:
            remove_at(mark)


def _is_at_work(process: int, since: str) -> bool:
    """Whether a process of this host, other than this one, still runs and is the one that began then."""
    if process == os.getpid() or not runs(process):
        return False
    with suppress(psutil.Error, ValueError):
        return abs(psutil.Process(process).create_time() - float(since)) < 2
    return True


def _of_a_store(error: BaseException) -> bool:
    """Whether an error says what a store, or the way to it, refuses."""
    if isinstance(error, OSError):
        return error.errno not in (errno.ENOSPC, errno.EMFILE)
    return type(error).__module__.split(".")[0] in _OF_STORES
