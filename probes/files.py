"""Files and folders that are found whole or not at all, and written by one process at a time."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psutil
from filelock import SoftFileLock, Timeout

from probes.errors import InputError, LayerscopeWarning, of_the_system, remedy

# What is ours beside a file or folder bears this in its name, so that nothing of a user's is ever taken for it.
OURS = ".layerscope-"
_LONGEST = 80  # of a file's name: most disks take 255 bytes, some encrypted ones 143
_POLL = 0.1  # seconds between two looks at a lock
_ABANDONED = 2.0  # seconds after which a lock that names no living process and does not change is nobody's
# The locks that this process holds, by thread: who holds one may ask for it again.
_held: set[tuple[int, int, Path]] = set()


def beside(path: Path, what: str) -> Path:
    """Return the path of what is ours beside a path: its lock, what is not whole, what is replaced."""
    return path.with_name(f"{path.name}{OURS}{what}")


def file_name(name: str) -> str:
    """Return a name as that of a file: percent-quoted; where it is long, its beginning and a hash.

    Example:
        >>> file_name("base/v1"), len(file_name("模型" * 45))
        ('base%2Fv1', 81)
    """
    quoted = quote(name, safe="")
    if len(quoted) <= _LONGEST:
        return quoted
    begin, digest = quoted[: _LONGEST - 16], hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{begin}-{digest}"


def leftovers(path: Path) -> list[Path]:
    """Return what of ours lies beside a path: a lock that is held, or what a kill left there."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}{OURS}*"))


@contextmanager
def locked(path: Path, *, wait: bool = True, called: str = "") -> Iterator[None]:
    """Be the only one that writes at a path, in this process and in all others.

    Args:
        path: what is written. The lock is a file beside it, `NAME.layerscope-lock`, which is gone
            afterwards; a folder that others write into as well is locked by a name inside it.
        wait: until another process of this host is done, or be refused.
        called: what messages call it, where that is not the path.

    Raises:
        InputError: another process of this host writes there and `wait` is False; one of another
            host does, or did when it died; the lock cannot be made.

    Notes:
        The lock is created exclusively and holds process, host and the time the process started,
        so it serves on network disks too, where locks of the operating system are often not kept
        between hosts. In return a process that is killed leaves it behind: one of this host (a
        container counts as a host of its own) is taken over and said, with a `LayerscopeWarning`;
        whether one of another host still runs cannot be known. A thread that holds a lock may
        enter it again.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder) / "table.csv"):
        ...     os.listdir(folder)
        ['table.csv.layerscope-lock']
    """
    path = Path(os.path.realpath(path))
    if not path.name:
        with refused_in_words(path):
            raise OSError(errno.EBUSY, "it is the root of the disk")
    key = (os.getpid(), threading.get_ident(), path)
    if key in _held:
        yield
        return
    file = beside(path, "lock")
    with refused_in_words(path):
        made = missing_folders(file.parent)
        lock = SoftFileLock(file)
        try:
            _acquire(lock, called or str(path), file, wait)
        except BaseException:
            _remove_empty(made)
            raise
    _held.add(key)
    try:
        for stray in _strays(file):
            stray.unlink(missing_ok=True)
        yield
    finally:
        _held.discard(key)
        lock.release()
        _remove_empty(made)


@contextmanager
def refused_in_words(path: Path) -> Iterator[None]:
    """Raise `InputError` where the system refuses a path before anything is written there."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written to ({error.strerror}). {remedy(error, 'Choose another path')}"
        ) from error


def check_writable(folder: Path) -> None:
    """Raise `InputError` where a folder cannot be made or written to; writes nothing."""
    with refused_in_words(folder):
        missing = missing_folders(folder)
        there = missing[-1].parent if missing else folder
        problem = 0
        if not there.is_dir():
            problem = errno.ENOTDIR
        elif not os.access(there, os.W_OK | os.X_OK):
            read_only = hasattr(os, "statvfs") and os.statvfs(there).f_flag & os.ST_RDONLY
            problem = errno.EROFS if read_only else errno.EACCES
        if problem:
            raise OSError(problem, os.strerror(problem))


def check_space(path: Path, size: int, what: str) -> None:
    """Raise `InputError` where the disk of a path has not room for something.

    Args:
        path: where it is written; its folders need not be there yet.
        size: in bytes.
        what: what it is, several, as "the states".

    Example:
        >>> check_space(Path("states.zarr"), 10**18, "the states")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        probes.errors.InputError: states.zarr: the states need 1,000,000,000.0 GB, and ... are free there. ...
    """
    if size > (free := _free(path)):
        what_to_do = remedy(OSError(errno.ENOSPC, ""))
        raise InputError(f"{path}: {what} need {in_words(size)}, and {in_words(free)} are free there. {what_to_do}")


def in_words(size: float) -> str:
    """Return a number of bytes as one reads it: in kB, MB or GB.

    Example:
        >>> in_words(6_100), in_words(20_000_000), in_words(3 * 10**9)
        ('6.1 kB', '20.0 MB', '3.0 GB')
    """
    power, unit = (3, "kB") if size < 1e6 else (6, "MB") if size < 1e9 else (9, "GB")
    return f"{size / 10**power:,.1f} {unit}"


def missing_folders(folder: Path) -> list[Path]:
    """Return those of a folder and its parents that are still to be made, the innermost first."""
    missing = []
    for path in (folder, *folder.parents):
        try:
            path.lstat()
            break
        except FileNotFoundError:
            missing.append(path)
        except NotADirectoryError:  # below a file
            continue
    return missing


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the path where the system refuses what is written there, whatever a library says.

    Raises:
        OSError: with the number of the system and a path, where what was raised has none.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        refused = of_the_system(error)
        if refused is None and re.search("inline_container|iostream", str(error)):  # torch says no more of it
            refused = OSError(errno.EIO if _free(path) else errno.ENOSPC, "")
        if refused is None or refused.filename is not None or refused.errno is None:
            raise
        raise OSError(refused.errno, os.strerror(refused.errno), str(path)) from error


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name and move it into place: it is never there in part."""
    partial = beside(path, "partial")
    with named(path), gone_on_failure(partial):
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


@contextmanager
def gone_on_failure(file: Path) -> Iterator[None]:
    """Leave nothing of a file where what writes it fails."""
    try:
        yield
    except Exception:  # an interruption is as a kill: who comes next puts it right
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise


def move_whole(new: Path, path: Path) -> None:
    """Move a folder that is whole to its place, where an older one may lie.

    Only who holds the lock may. The older one is moved away first and removed last. Killed in
    between, it lies beside its place, where `put_back` finds it.
    """
    old = beside(path, "old")
    remove(old)
    if path.exists():
        path.rename(old)
    new.rename(path)
    remove(old)


def check_moves(path: Path) -> None:
    """Raise `InputError` where folders beside a path cannot be moved, as on buckets that are mounted:
    before the work, after which one is.
    """
    trial, gone = beside(path, "trial-partial"), beside(path, "gone")
    remove(trial)
    trial.mkdir()
    try:
        trial.rename(gone)
    except OSError as error:
        trial.rmdir()
        raise InputError(
            f"{path}: folders there cannot be renamed ({error.strerror}), and what is written is moved to its place "
            "once it is whole. Choose a path on another disk, or give the bucket itself, as s3://bucket/name"
        ) from error
    gone.rmdir()


def put_back(path: Path) -> None:
    """Put the older folder back where a kill left `move_whole` before the newer one was there."""
    old = beside(path, "old")
    if old.exists() and not path.exists():
        old.rename(path)
    remove(old)


def remove(folder: Path) -> None:
    """Remove a folder, where it is there; a kill never leaves a part of it in its place."""
    gone = folder if folder.name.endswith(f"{OURS}gone") else beside(folder, "gone")
    if gone.exists():
        shutil.rmtree(gone)
    if folder.exists():
        folder.rename(gone)
        shutil.rmtree(gone)


def _free(path: Path) -> int:
    """The bytes that are free on the disk of a path whose folders need not be there."""
    missing = missing_folders(path)
    return shutil.disk_usage(missing[-1].parent if missing else path).free


def _acquire(lock: SoftFileLock, path: str, file: Path, wait: bool) -> None:
    """Take a lock; say whom it was taken over from, or who is waited for."""
    said, killed, seen, since = False, 0, None, 0.0
    while True:
        (process, host), identity = _record(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
            break
        except FileNotFoundError:  # who held it has removed the empty folder just now
            continue
        except Timeout:
            pass
        if host and host != this_host():
            raise InputError(
                f"{path} is being written by process {process} of the host {host}. "
                f"Wait for it; if it runs no longer, remove {file}"
            )
        if identity != seen:
            seen, since = identity, time.monotonic()
        if not runs(process):
            # Killed before it wrote its name, or on a disk where the library cannot exchange two names.
            if time.monotonic() - since > _ABANDONED and _record(file)[1] == seen:
                file.unlink(missing_ok=True)
                killed = process
                continue
        elif not wait:
            raise InputError(
                f"{path} is being written by process {process}. Wait until it is done, or choose another path"
            )
        elif not said:
            _say(f"{path} is being written by process {process}; waiting until it is done")
            said = True
        time.sleep(_POLL)
    if process and not runs(process):
        killed = process
    if killed:
        try:
            _say(f"{path}: process {killed} was stopped while it wrote there; this one goes on in its place")
        except BaseException:  # where warnings are errors
            lock.release()
            raise


def _say(message: str) -> None:
    warnings.warn(message, LayerscopeWarning, stacklevel=5)


def runs(process: int) -> bool:
    """Whether a process of this host still runs.

    Example:
        >>> runs(os.getpid())
        True
    """
    try:
        return bool(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # of another user, who may forbid to look
        return True


def _record(file: Path) -> tuple[tuple[int, str], tuple[int, int] | None]:
    """Process and host that a lock names, 0 and "" where it names none, and which file it is."""
    try:
        found = file.stat()
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return (0, ""), None
    identity = (found.st_ino, found.st_ctime_ns)
    if len(lines) < 2 or not lines[0].isdecimal():
        return (0, ""), identity
    return (int(lines[0]), lines[1]), identity


@cache
def this_host() -> str:
    """Return the name of this host as locks hold it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lock"
        with SoftFileLock(file):
            return _record(file)[0][1]


def _strays(file: Path) -> list[Path]:
    """What processes that were killed while they took over a lock left beside it."""
    parts = ((p, p.name[len(file.name) :].split(".")) for p in file.parent.glob(f"{glob.escape(file.name)}.*.*.*"))
    return [p for p, part in parts if part[2].isdecimal() and not runs(int(part[2]))]


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that were made for a lock alone, as far as nothing was written into them."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
