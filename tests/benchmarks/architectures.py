"""Every architecture by every operation, on tiny random models: what is right, refused, a traceback, silently wrong.

python tests/benchmarks/architectures.py [--only bert,llama] [--classes head] [--operations capture] [--out matrix.json]

One process an architecture, two at a time. What is right was computed a second way (tests/cells.py). The cells are
written after each architecture; --resume leaves those out that the file has all cells of.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes run side by side
from common import ROOT  # sets the rest of the environment

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
VERDICTS = ("right", "refused", "traceback", "silently wrong")
_LONGEST = 900  # seconds of one architecture


def cells_of(name: str, kinds: list[str], operations: list[str]) -> list[dict[str, str]]:
    """Do all operations on the models of an architecture, here; each cell is printed as it is known."""
    import probes.silence  # noqa: F401  # isort: skip
    import transformers
    from cells import verdict

    transformers.logging.set_verbosity_error()
    found = []
    for kind in kinds:
        for operation in operations:
            started = time.monotonic()
            cell = {"architecture": name, "class": kind, "operation": operation, **verdict(name, kind, operation)}
            found.append(cell | {"seconds": f"{time.monotonic() - started:.2f}"})
            print(json.dumps(found[-1]), flush=True)
    return found


def in_its_own_process(name: str, kinds: list[str], operations: list[str]) -> list[dict[str, str]]:
    """Do so in another process; what it did not come to is a traceback."""
    command = [sys.executable, "-W", "ignore", __file__, "--row", name]
    command += ["--classes", ",".join(kinds), "--operations", ",".join(operations)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST)
        out, end = done.stdout, f"the process ended with code {done.returncode}: {done.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired as error:
        out, end = (error.stdout or b"").decode(), f"not done after {_LONGEST} s"
    cells = [json.loads(line) for line in out.splitlines() if line.startswith('{"architecture"')]
    known = {(c["class"], c["operation"]) for c in cells}
    for kind in kinds:
        for operation in operations:
            if (kind, operation) not in known:
                cell = {"architecture": name, "class": kind, "operation": operation}
                cells.append(cell | {"verdict": "traceback", "why": end, "said": "", "seconds": "0"})
    return cells


def whole_rows(file: Path, kinds: list[str], operations: list[str]) -> list[dict[str, str]]:
    """Return the cells of those architectures that a file has all cells of."""
    found = json.loads(file.read_text()) if file.exists() else []
    asked = {(kind, operation) for kind in kinds for operation in operations}
    have: dict[str, set[tuple[str, str]]] = {}
    for c in found:
        have.setdefault(c["architecture"], set()).add((c["class"], c["operation"]))
    return [c for c in found if have[c["architecture"]] >= asked]


def shares(cells: Iterable[dict[str, str]]) -> str:
    """Say how many of some cells are right, refused, tracebacks and silently wrong."""
    counts = Counter(c["verdict"] for c in cells)
    total = sum(counts[v] for v in VERDICTS)
    if not total:
        return "no cells"
    return f"{total} cells: " + ", ".join(f"{counts[v]} {v} ({counts[v] / total:.1%})" for v in VERDICTS)


def main() -> None:
    """Run the matrix, write it, and print what is not right."""
    from cells import OPERATIONS
    from tiny import CLASSES, ROWS
    from tqdm import tqdm

    from probes.files import write_whole

    parser = argparse.ArgumentParser(prog="python tests/benchmarks/architectures.py", description=__doc__)
    parser.add_argument("--only", help="architectures, with commas; by default all")
    parser.add_argument("--classes", default=",".join(CLASSES), help="with commas; by default all")
    parser.add_argument("--operations", default=",".join(OPERATIONS), help="with commas; by default all")
    parser.add_argument("--out", type=Path, default=Path("architectures.json"), help="where the cells go")
    parser.add_argument("--parallel", type=int, default=2, help="processes at a time")
    parser.add_argument("--resume", action="store_true", help="go on where the file --out ends")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # what a process of its own is told
    given = parser.parse_args()
    operations, kinds = given.operations.split(","), given.classes.split(",")
    if given.row:
        cells_of(given.row, kinds, operations)
        return
    names = given.only.split(",") if given.only else list(ROWS)
    asked_for = (("architecture", names, ROWS), ("class", kinds, CLASSES), ("operation", operations, OPERATIONS))
    for what, asked, known in asked_for:
        for one in asked:
            if one not in known:
                parser.error(f"no {what} {one!r}; there are {', '.join(known)}")
    cells = whole_rows(given.out, kinds, operations) if given.resume else []
    done = {c["architecture"] for c in cells}
    left = [name for name in names if name not in done]
    with ThreadPoolExecutor(given.parallel) as pool, tqdm(total=len(left), unit="architecture") as bar:
        for future in as_completed([pool.submit(in_its_own_process, name, kinds, operations) for name in left]):
            cells += future.result()
            cells.sort(key=lambda c: list(ROWS).index(c["architecture"]))
            write_whole(given.out, json.dumps(cells, indent=1) + "\n")
            bar.update()
    for verdict in reversed(VERDICTS[1:]):
        print(f"\n{verdict}")
        alike: dict[tuple[str, ...], list[str]] = {}
        for c in cells:
            if c["verdict"] == verdict:
                alike.setdefault((c["architecture"], c["operation"], c["why"]), []).append(c["class"])
        for (name, operation, why), kinds in alike.items():
            print(f"  {name} {operation} ({', '.join(kinds)}): {why}")
    print(f"\nall: {shares(cells)}")
    known = [name for name, row in ROWS.items() if row.known]
    print(f"the {len(known)} met most: {shares(c for c in cells if c['architecture'] in known)}")


if __name__ == "__main__":
    main()
