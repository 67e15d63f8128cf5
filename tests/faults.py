"""Work in a child process that is killed at one of its changes of the file system."""

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
_SECONDS = 120


class Child:
    """A fork of this process that does some work and is killed before its change `kill_at`."""

    def __init__(self, work, kill_at=None):
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            _child(work, kill_at, write)
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


def run(work):
    """Do some work in a child to its end; return what it gave."""
    status, what = Child(work).result()
    assert status == "done", what
    return what["result"]


def changes(work):
    """Count the changes of the file system that some work makes."""
    status, what = Child(work, kill_at=0).result()
    assert status == "done", what
    return what["changes"]


def contents(folder):
    """Return every file below a folder with its bytes, and every folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(Path(folder).rglob("*"))
    }


def _child(work, kill_at, answers):
    """Do the work, answer, and end without what pytest does at the end."""
    from probes.errors import InputError

    torch.set_num_threads(1)  # a pool of threads is not there after a fork
    warnings.simplefilter("ignore")
    count = 0

    def count_changes(event, arguments):
        nonlocal count
        change = event in _CHANGES
        if event == "open":
            path, _, flags = arguments
            change = bool(flags & (os.O_WRONLY | os.O_RDWR)) and not str(path).startswith("/dev/")
        if change:
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        if kill_at is not None:
            sys.addaudithook(count_changes)
        try:
            answer = ["done", {"result": work(), "changes": count}]
        except InputError as error:
            answer = ["said", str(error)]
        except BaseException:
            answer = ["failed", traceback.format_exc()]
    kill_at = None
    with os.fdopen(answers, "w") as file:
        file.write(json.dumps(answer))
    os._exit(0)
