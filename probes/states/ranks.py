"""Several processes that torchrun started: each captures some windows of one store, one does the rest."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import xarray as xr
import zarr
from tqdm.auto import tqdm

from probes.errors import InputError
from probes.states.remote_store import AnyStore

Answer = TypeVar("Answer")
_MEET = timedelta(minutes=30)  # within which all processes begin
_WORK = timedelta(days=30)  # for which they wait while one of them works
_alone: ContextVar[bool] = ContextVar("alone", default=False)


@dataclass(frozen=True)
class Ranks:
    """The processes that share a store, and which of them this one is; by default it is alone.

    What they tell each other are a few Python objects, which go between CPUs, by gloo, wherever the
    models run.
    """

    number: int = 0
    count: int = 1
    group: Any = None

    def first(self, make: Callable[..., Answer], *args: Any, **settings: Any) -> Answer:
        """Let the first process make something, and return it in all of them.

        Raises:
            InputError: in all of them, what the first one raised.
        """
        if self.count == 1:
            return make(*args, **settings)
        said: list[Any] = [None, None]
        if self.number == 0:
            try:
                said[0] = make(*args, **settings)
            except InputError as error:
                said[1] = str(error)
        dist.broadcast_object_list(said, src=0, group=self.group)
        if said[1] is not None:
            raise InputError(said[1])
        return said[0]

    def every(self, own: Answer) -> list[Answer]:
        """Return what each process has, in their order."""
        found: list[Any] = [own] * self.count
        if self.count > 1:
            dist.all_gather_object(found, own, group=self.group)
        return found

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier(group=self.group)

    def check_same(self, what: Mapping[str, Any]) -> None:
        """Raise `InputError`, in all processes, where one of them does not see the same."""
        if self.count == 1:
            return
        (first, _), *others = found = self.every((dict(what), socket.gethostname()))
        for key in first:
            for rank, (other, host) in enumerate(others, 1):
                if other.get(key) != first[key]:
                    raise InputError(
                        f"the {self.count} processes do not capture the same: {key} is {first[key]!r} for rank 0 (host "
                        f"{found[0][1]}) and {other.get(key)!r} for rank {rank} (host {host}). Give all of them the "
                        "same models, corpus, settings and versions"
                    )

    def check(self, problem: str) -> None:
        """Raise `InputError`, in all processes, where one of them has a problem."""
        for rank, said in enumerate(self.every(problem)):
            if said:
                raise InputError(f"rank {rank}: {said}" if rank else said)

    @contextmanager
    def writing(self, target: AnyStore, *, wait: bool = True) -> Iterator[xr.Dataset | None]:
        """As `Store.writing`: the first process holds the lock, for all of them."""
        if self.count == 1:
            with target.writing(wait=wait) as ready:
                yield ready
            return
        with ExitStack() as held:
            whole = self.first(lambda: held.enter_context(target.writing(wait=wait)) is not None)
            yield self._opened(target) if whole else None

    def open(
        self, target: AnyStore, dataset: xr.Dataset, sizes: Mapping[str, tuple[int, ...]], windows: int
    ) -> dict[str, zarr.Array]:
        """As `Store.open`: the first process makes the arrays that all of them write into."""
        if self.count == 1:
            return target.open(dataset, sizes, windows)
        self.first(lambda: bool(target.open(dataset, sizes, windows)))
        arrays, problem = {}, ""
        try:
            arrays = target.join(sizes)
        except (FileNotFoundError, KeyError):
            problem = _unseen(str(target.partial))
        self.check(problem)
        return arrays

    def finish(self, target: AnyStore) -> xr.Dataset:
        """As `Store.finish`, once all processes have written what is theirs."""
        if self.count == 1:
            return target.finish()
        self.first(lambda: bool(target.finish().sizes))
        return self._opened(target)

    def _opened(self, target: AnyStore) -> xr.Dataset:
        """Open a store that the first process sees."""
        reps = target.representations()
        self.check("" if reps is not None else _unseen(str(target.path)))
        assert reps is not None
        return reps

    @contextmanager
    def turn(self, taken: bool) -> Iterator[None]:
        """Do something one process after the other, where turns are taken: all of them must come."""
        for _ in range(self.number if taken else 0):
            self.wait()
        yield
        for _ in range(self.count - self.number if taken else 0):
            self.wait()


def ranks_of(store: object | None) -> Ranks:
    """Return the processes that share a store: those of torchrun, or this one alone.

    Args:
        store: where it is; without one each process works for itself.

    Raises:
        InputError: the others have not come within half an hour.

    Notes:
        Where there is no process group yet, one is made, of nccl on GPUs and gloo else, and each
        process of a host gets a GPU of its own.

    Example:
        >>> ranks_of("states.zarr").count  # not under torchrun
        1
    """
    if store is None or _alone.get() or not _several():
        return Ranks()
    try:
        if not dist.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
            dist.init_process_group()
            atexit.register(_leave)
        meeting, group = _groups(dist.group.WORLD)
        dist.monitored_barrier(meeting, _MEET, wait_all_ranks=True)
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"the processes that torchrun started share the work on a store, and they have not all come ({said}). "
            "Make the same calls with store= in each of them, or leave store= out where one works for itself"
        ) from error
    return Ranks(dist.get_rank(), dist.get_world_size(), group)


@contextmanager
def alone() -> Iterator[None]:
    """Let a process work into a store of its own, whatever others do.

    Example:
        >>> with alone():
        ...     ranks_of("states.zarr").count
        1
    """
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def fill(
    ranks: Ranks,
    target: AnyStore,
    arrays: Mapping[str, zarr.Array],
    windows: Sequence[tuple[int, int]],
    bounds: Mapping[str, np.ndarray],
    read: Callable[[int, int], Mapping[str, np.ndarray]],
    bar: tqdm,
) -> None:
    """Write the windows of a store that are not written, every n-th of them in each of n processes.

    Args:
        ranks: the processes.
        target, arrays: the store, opened.
        windows: from which row of the corpus to which.
        bounds: of each array where the rows of the corpus begin in it.
        read: from one row to another -> what is written of them, by array. It counts them in `bar`.
        bar: of all processes, shown in the first.
    """
    sizes = np.array([stop - start for start, stop in windows])
    missing = ranks.first(lambda: [n for n in range(len(windows)) if not target.done(n)])
    bar.update(int(sizes.sum() - sizes[missing].sum()))
    own = missing[ranks.number :: ranks.count]
    others = [n for n in missing if n not in set(own)]
    # Where windows end within a chunk, two processes would write it at once, and one of them in vain.
    begins = [(int(bounds[k][start]), array.chunks[-2]) for k, array in arrays.items() for start, _ in windows]
    turns = ranks.count > 1 and any(begin % chunk for begin, chunk in begins)
    rounds = -(-len(missing) // ranks.count) if turns else len(own)
    for number in [*own, *[None] * (rounds - len(own))]:
        made = None if number is None else read(*windows[number])
        with ranks.turn(turns):
            if number is not None and made is not None:
                start, stop = windows[number]
                for k, array in arrays.items():
                    array[..., int(bounds[k][start]) : int(bounds[k][stop]), :] = made[k]
                target.mark(number)
        if ranks.number == 0:
            there = [n for n in others if target.done(n)]
            bar.update(int(sizes[there].sum()))
            others = [n for n in others if n not in there]
    ranks.wait()
    bar.update(int(sizes[others].sum()))


def _several() -> bool:
    if not dist.is_available():
        return False
    if dist.is_initialized():
        return dist.get_world_size() > 1
    return dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1


@cache
def _groups(world: Any) -> tuple[Any, Any]:
    """Where processes meet, and where they wait for each other: made once, in all of them."""
    return dist.new_group(backend="gloo", timeout=_MEET), dist.new_group(backend="gloo", timeout=_WORK)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _unseen(path: str) -> str:
    return (
        f"{path}, which rank 0 writes, is not seen on host {socket.gethostname()}. Choose a folder on a disk that all "
        "hosts share"
    )
