"""Work in a child process that is killed at one of its changes of the file system, or whose files are kept at each."""

import contextlib
import gc
import hashlib
import importlib
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

import safetensors.torch
import torch

_SECONDS = 600  # on a busy machine


class Child:
    """A fork of this process that does some work and is killed before its change `kill_at`; see `Changes`."""

    def __init__(self, work, kill_at=None, *, cut=False, within="/", keep=None):
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            _child(work, write, lambda: Changes(within, kill_at, cut, keep))
        os.close(write)
        self._answers = read

    def result(self):
        """Return ("done", what it gave and its changes), ("said", why it refused) or ("killed", None)."""
        answer, end = b"", time.monotonic() + _SECONDS
        while True:
            ready, _, _ = select.select([self._answers], [], [], max(0, end - time.monotonic()))
            part = os.read(self._answers, 1 << 16) if ready else b""
            if not part:
                break
            answer += part
        os.close(self._answers)
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        assert ready, f"not done within {_SECONDS} seconds"
        if not answer:
            return "killed", None
        status, what = json.loads(answer)
        assert status != "failed", what
        return status, what


class Changes:
    """Counts what Python, torch and safetensors change below a folder, and kills the process before one of the changes.

    With `cut`, the file that was written last is cut in half before the kill, as where the kill came while it was
    written; one that was moved to its place is not, as it is never there in part. With `keep`, the folder is copied
    there before each of the changes, by number, and again with that file cut in half: what a kill would have left.
    """

    def __init__(self, folder, kill_at=None, cut=False, keep=None):
        self.folder, self.kill_at, self.cut, self.keep = os.path.join(os.path.realpath(folder), ""), kill_at, cut, keep
        self.count, self.last, self.moved = 0, "", set()
        self._one, self._copies = threading.RLock(), False
        sys.addaudithook(self._hook)
        # These write without Python's knowing.
        for module, name, place in ((safetensors.torch, "serialize_file", 1), (torch, "save", 1)):
            setattr(module, name, self._watched(getattr(module, name), place))

    def _hook(self, event, args):
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | bytes | os.PathLike):
                self._change(event, os.fsdecode(path))
        elif event == "os.rename":
            source, target, source_in, target_in = args
            self._change(event, _whole(source, source_in), _whole(target, target_in))
        elif event in ("os.mkdir", "os.remove", "os.rmdir"):
            self._change(event, _whole(args[0], args[-1]))
        elif event in ("os.truncate", "os.link", "os.symlink"):
            self._change(event, _whole(args[0]))

    def _watched(self, write, place):
        def writes(*args, **settings):
            path = args[place] if len(args) > place else None
            if isinstance(path, str | os.PathLike):
                self._change("written", os.fspath(path))
            return write(*args, **settings)

        return writes

    def _change(self, event, *paths):
        paths = tuple(os.path.abspath(path) for path in paths)
        if not any(f"{path}{os.sep}".startswith(self.folder) and path != os.devnull for path in paths):
            return
        with self._one:  # of several threads
            if self._copies:
                return
            self.count += 1
            cuts = os.path.isfile(self.last) and self.last not in self.moved
            if self.keep is not None:
                self._copies = True
                self._copy(cuts)
                self._copies = False
            if self.count == self.kill_at:
                if self.cut and cuts:
                    with contextlib.suppress(FileNotFoundError):  # which another thread has just moved
                        os.truncate(self.last, os.path.getsize(self.last) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            if event in ("open", "written"):
                self.last = paths[0]
            if event == "os.rename":
                self.moved.add(paths[1])

    def _copy(self, cuts):
        whole = os.path.join(self.keep, f"{self.count:05}")
        while True:
            try:
                shutil.copytree(self.folder, whole)
                break
            except OSError:  # a change of another thread was under way
                shutil.rmtree(whole)
        last = os.path.relpath(self.last, self.folder) if cuts and self.last.startswith(self.folder) else ""
        if last and os.path.isfile(os.path.join(whole, last)):  # else another thread has just moved it
            shutil.copytree(whole, f"{whole}-cut")
            os.truncate(os.path.join(f"{whole}-cut", last), os.path.getsize(os.path.join(whole, last)) // 2)


def _whole(path, inside=-1):
    """The whole of a path that may be relative to an open folder."""
    if isinstance(path, int):  # an open file
        return os.readlink(f"/proc/self/fd/{path}")
    path = os.fsdecode(path)
    held = isinstance(inside, int) and inside >= 0 and not os.path.isabs(path)
    return os.path.join(os.readlink(f"/proc/self/fd/{inside}"), path) if held else path


def run(work):
    """Do some work in a child to its end; return what it gave."""
    status, what = Child(work).result()
    assert status == "done", what
    return what["result"]


def changes(work, within="/"):
    """Count the changes of the file system that some work makes."""
    status, what = Child(work, within=within).result()
    assert status == "done", what
    return what["changes"]


def left(work, folder, into):
    """Do some work to its end; return how many kills it was open to, and a copy of each state they would have left.

    The folder is copied before each change in it, and again with the file cut that is being written: see `Changes`.
    Of states that are alike but for who holds a lock the first is returned.
    """
    into.mkdir()
    status, what = Child(work, within=folder, keep=into).result()
    assert status == "done", what
    states, points = {}, sorted(into.iterdir())
    for state in points:
        text = hashlib.sha256()
        for name, content in contents(state).items():
            text.update(repr((name, content if not name.endswith("-lock") else bool(content))).encode())
        if states.setdefault(text.digest(), state) != state:
            shutil.rmtree(state)
    return len(points), list(states.values())


def warm(work):
    """Import here what some work imports late, so that a child need not, nor look for garbage in all of it."""

    def imported():
        before = set(sys.modules)
        work()
        return sorted(set(sys.modules) - before)

    for name in run(imported):
        with contextlib.suppress(ImportError):  # of those that are made and have no file
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def contents(folder):
    """Return every file below a folder with its bytes, and every folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(Path(folder).rglob("*"))
    }


def _child(work, answers, watch):
    """Do the work, answer, and end without what pytest does at the end."""
    from probes.errors import InputError

    torch.set_num_threads(1)  # a pool of threads is not there after a fork
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        watched = watch()
        try:
            answer = ["done", {"result": work(), "changes": watched.count}]
        except InputError as error:
            answer = ["said", str(error)]
        except BaseException:
            answer = ["failed", traceback.format_exc()]
        watched.kill_at = None
    with os.fdopen(answers, "w") as file:
        file.write(json.dumps(answer))
    os._exit(0)
