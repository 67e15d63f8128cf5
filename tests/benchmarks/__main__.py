"""Run the benchmarks, each in a process of its own, and print one table of all they found.

python tests/benchmarks [NAME ...] [--quick]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROWS, Row, here, table

FOLDER = Path(__file__).parent
NAMES = ["capture", "similarity", "representers", "pruning", "quantization", "distillation", "finetuning", "series"]
NAMES += [
    "noise",
    "gradients",
    "sparse_probe",
    "retrieval",
    "words",
    "next_token",
    "gptq",
    "patching",
    "explorer",
    "memory",
    "neighbour",
    "ranks",
    "rows",
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; by default all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes; rough")
    given = parser.parse_args()
    for name in given.names:
        if name not in NAMES:
            parser.error(f"{name!r} is not known; choose of {', '.join(NAMES)}")
    chosen = given.names or NAMES
    found: list[tuple[str, Row]] = []
    print(f"Ratios are peer to ours: above 1, ours takes less.\n{here()}")
    for number, name in enumerate(chosen, 1):
        print(f"\n[{number} of {len(chosen)}] {name}", flush=True)
        started = time.monotonic()
        found += [(name, row) for row in rows_of(name, given.quick)]
        print(f"  {time.monotonic() - started:.0f} s in all", flush=True)
    print(f"\n{table(found)}\n\n{here()}")


def rows_of(name: str, quick: bool) -> list[Row]:
    """Run one benchmark and return what it left; a crash is a row that says so."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        file.touch()
        command = [sys.executable, "-W", "ignore", str(FOLDER / f"bench_{name}.py"), *(["--quick"] if quick else [])]
        code = subprocess.run(command, env=os.environ | {ROWS: str(file)}, check=False).returncode
        rows = [Row(**json.loads(line)) for line in file.read_text().splitlines()]
    if code:
        rows.append(Row("stopped", note=f"ended with code {code}; run it alone: python tests/benchmarks {name}"))
        print(f"  {rows[-1].what}: {rows[-1].note}")
    return rows


if __name__ == "__main__":
    main()
