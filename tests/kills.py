"""Kills a piece of work at every change that it makes in its folder, cuts included, and lets it go on.

    python tests/kills.py MODULE:FUNCTION FOLDER [--sample N | --rounds N]

FUNCTION takes an empty folder of its own, may be run again on what a kill left there, and returns a text that says
what came out. What a kill before each change would have left is kept, once as it is and once with the file that was
written last cut in half, as where it was killed while it wrote; from each of these states the same is run to its end,
which must say what an uninterrupted run said. With --sample it is really killed, at some of the changes. All runs are
children, see `faults`, of one fresh process, which torch has started no threads in.

With --rounds nothing is killed: two processes do the same at once, so many times.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from faults import Child, left, warm

HERE = Path(__file__).resolve().parent


def kills(work: str, folder: Path, sample: int | None = None) -> dict[str, Any]:
    """Kill `MODULE:FUNCTION` of tests at every change, or at some; say `points`, `states`, `wrong`, `said`."""
    return _ask(work, folder, *([] if sample is None else ["--sample", str(sample)]))


def meetings(work: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Let two processes run `MODULE:FUNCTION` of tests at once in one folder; return `wrong`, `said`."""
    return _ask(work, folder, "--rounds", str(rounds))


def environment() -> dict[str, str]:
    """Return the variables of a process that imports the modules of tests."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]), "OMP_NUM_THREADS": "1"}


def _ask(work: str, folder: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "kills.py"), work, str(folder), *more]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", type=int, help="of all points so many, at even distances")
    parser.add_argument("--rounds", type=int, help="two processes at once so many times, and no kills")
    given = parser.parse_args()
    module, _, name = given.work.partition(":")
    work = getattr(importlib.import_module(module), name)
    folder = given.folder / "run"  # the same each time, as it is written into some files

    def child(kill_at: int | None = None, cut: bool = False) -> Child:
        folder.mkdir(parents=True, exist_ok=True)
        return Child(lambda: work(folder), kill_at, cut=cut, within=folder)

    folder.mkdir(parents=True)
    warm(lambda: work(folder))
    shutil.rmtree(folder)
    status, expected = child().result()
    assert status == "done", expected
    count, said = expected["changes"], expected["result"]
    wrong: list[Any] = []
    for _ in range(given.rounds or 0):
        shutil.rmtree(folder)
        for status, found in [c.result() for c in [child(), child()]]:
            if status != "done" or found["result"] != said:
                wrong.append(found)
    points: list[Any] = []
    tried = 0
    if given.sample is not None:
        points = [round((i + 0.5) * count / given.sample) for i in range(given.sample)]
    elif given.rounds is None:
        shutil.rmtree(folder)
        folder.mkdir()
        tried, points = left(lambda: work(folder), folder, given.folder / "left")
    for i, point in enumerate(points):
        shutil.rmtree(folder)
        if given.sample is None:
            shutil.copytree(point, folder)
        else:
            assert child(point, cut=i % 2 == 1).result() == ("killed", None)
            tried += 1
        status, found = child().result()
        if status != "done" or found["result"] != said:
            wrong.append([str(point), status, found])
            print(wrong[-1], file=sys.stderr, flush=True)
    print(json.dumps({"changes": count, "points": tried, "states": len(points), "wrong": wrong, "said": said}))


if __name__ == "__main__":
    main()
