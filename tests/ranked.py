"""Several processes that work as those of torchrun do: forks of this one, which meet over a file."""

import itertools
import os
import tempfile

import faults
import torch.distributed as dist
from accelerate.state import AcceleratorState

_numbers = itertools.count()


def together(work, count, *, kill=None, at=None, within="/"):
    """Let `work(rank)` be done by so many processes at once; return how each ended, as `faults.Child.result` says it.

    The process of rank `kill` is killed before its change `at` of the file system below a folder. What the others then
    raise, as they wait for it, is ("lost", what was said).
    """
    meeting = os.path.join(tempfile.gettempdir(), f"meeting-{os.getpid()}-{next(_numbers)}")

    def one(rank):
        def begun():
            AcceleratorState._reset_state(True)  # as others in this process have left it
            os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
            os.environ |= {name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
            try:
                return [work(rank), None]
            except RuntimeError as error:
                if kill is None:
                    raise
                return [None, str(error)]

        return faults.Child(begun, at if rank == kill else None, within=within)

    try:
        ends = [child.result() for child in [one(rank) for rank in range(count)]]
    finally:
        if os.path.exists(meeting):
            os.unlink(meeting)
    return [_end(status, what) for status, what in ends]


def _end(status, what):
    if status != "done":
        return status, what
    found, lost = what["result"]
    return ("done", found) if lost is None else ("lost", lost)
