"""Measures probes here, one after the other, or in joblib's workers, as many at once."""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import xarray as xr
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_limits

from probes.errors import InputError, LayerscopeWarning
from probes.measures.probe import Run
from probes.measures.threads import one_thread
from probes.results.result import split_measures

Results = dict[str, xr.Dataset]
_DIED = {"TerminatedWorkerError", "BrokenProcessPool", "KilledWorker", "WorkerCrashedError"}  # of loky, dask and ray
_SMALL = 2**20  # entries of a layer, up to which several threads wait for each other longer than they compute
_ALONE = threading.Lock()


class Work(NamedTuple):
    """What gives several results is called once."""

    measure: Callable[[Run], xr.Dataset]
    names: list[str]
    runs_models: bool = False


class _Done(NamedTuple):
    number: int
    results: Results
    kept: dict[str, Any]
    said: list[warnings.WarningMessage]


def check_n_jobs(n_jobs: int | None) -> None:
    """Raise `InputError` where it is not a number of workers as joblib counts them."""
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0):
        raise InputError(
            f"n_jobs={n_jobs!r}: expected a number of workers, -1 for as many as there are cores, or None for what "
            "joblib.parallel_config says, one without it"
        )


def measured(works: Sequence[Work], run: Run, name: str, n_jobs: int | None) -> Iterator[tuple[list[str], Results]]:
    """Give the results of each measure with the names of its probes, as they are done.

    What runs models is done here: models are not sent to workers. What a measure warns of in a
    worker is said here.

    Args:
        works: the measures.
        run: of one model.
        name: of the model, for messages.
        n_jobs: workers, as joblib counts them.

    Raises:
        InputError: a worker died; what a measure raises.
    """
    if n_jobs is None and joblib.effective_n_jobs(None) == 1:
        for work in works:
            with one_thread() if _is_small(run.reps) else nullcontext():
                results = split_measures(work.measure(run))
            yield work.names, results
        return
    here = [work for work in works if work.runs_models]
    there = [work for work in works if not work.runs_models]
    sent = replace(run, models=None, progress=False)
    sent.kept.update(run.kept)
    shared = bool(getattr(get_active_backend()[0], "supports_sharedmem", False))
    with tempfile.TemporaryDirectory() as folder:
        begun = Path(folder)
        # Numbers do not depend on how many there are. Here once for all, before any begins: threads share the limit.
        limit = threadpool_limits(1)
        # Memory that is mapped to a file is not copied to each worker.
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="all", batch_size=1)
        done = parallel(joblib.delayed(_one)(i, work.measure, sent, begun, shared) for i, work in enumerate(there))
        left = dict(enumerate(there))
        try:
            for work in here:
                yield work.names, split_measures(work.measure(run))
            for one in done:
                for said in one.said:
                    warnings.warn_explicit(said.message, said.category, said.filename, said.lineno)
                run.kept.update(one.kept)
                yield left.pop(one.number).names, one.results
        except Exception as error:
            if type(error).__name__ not in _DIED:
                raise
            at_it = [left[i].names[0] for i in left if (begun / str(i)).exists()] or [w.names[0] for w in left.values()]
            raise InputError(
                f"model {name!r}: a worker died while {' or '.join(at_it)} was measured, as where memory ran out. "
                "Measure with fewer workers (n_jobs), or keep the states on disk (store=...)"
            ) from error
        finally:
            limit.restore_original_limits()


def _is_small(reps: xr.Dataset) -> bool:
    return reps.sizes["example"] * reps.sizes["feature"] <= _SMALL


def _one(number: int, measure: Callable[[Run], xr.Dataset], run: Run, begun: Path, shared: bool) -> _Done:
    """Measure in a worker."""
    own = replace(run)
    own.kept.update(run.kept)
    mark = begun / str(number)
    with suppress(OSError):  # of another machine
        mark.touch()
    if shared:
        done = _Done(number, split_measures(measure(own)), own.kept, [])
    else:
        # A process of several threads, as dask has them, measures one after the other: they share warnings and limits.
        with _ALONE, threadpool_limits(1), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", LayerscopeWarning)
            done = _Done(number, split_measures(measure(own)), own.kept, said)
    with suppress(OSError):
        mark.unlink()
    return done
