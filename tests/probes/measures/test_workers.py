"""Probes measured in workers: the same numbers to the last bit, what is warned of is said, and who died is named."""

import os
import time
import warnings
from functools import partial

import joblib
import numpy as np
import pytest
import threadpoolctl
import xarray as xr
from threaded import threads

import probes
from probes.errors import LayerscopeWarning
from probes.measures import catalogue
from probes.measures.probe import Run
from probes.measures.workers import Work, check_n_jobs, measured
from probes.results.draws import sample

NAMES = ["norm", "snr", "variability", "cosine_to_baseline", "cka"]


def models():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60, 8)), np.arange(60) % 3
    x = x + 3 * np.eye(8)[y]
    states = {"base": x, "noisy": x + 0.1 * rng.normal(size=x.shape)}
    group = np.arange(60) // 2 % 30
    return {k: probes.from_arrays(v, label=y[group], group=group) for k, v in states.items()}


def compared(n_jobs=None, **settings):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = probes.compare(models(), probes=NAMES, draws=20, progress=False, n_jobs=n_jobs, **settings)
    return made, sorted(str(w.message) for w in said if issubclass(w.category, LayerscopeWarning))


@pytest.fixture(scope="module")
def one():
    return compared(1)


def test_one_worker_measures_what_none_does(one):
    made, said = one
    plain, known = compared()
    assert made.table["value"].to_numpy() == pytest.approx(plain.table["value"].to_numpy(), rel=1e-12, nan_ok=True)
    assert said == known


def test_two_processes_measure_the_same_to_the_last_bit_and_say_the_same(one):
    made, said = one
    again, known = compared(2)
    assert made.table.equals(again.table)
    assert made.draws.equals(again.draws)
    assert known == said


def test_threads_and_a_cluster_of_dask_measure_the_same_to_the_last_bit(one):
    distributed = pytest.importorskip("distributed")
    with joblib.parallel_config("threading", n_jobs=2):  # which is taken where nothing is asked for
        threads, _ = compared()
    assert one[0].table.equals(threads.table)
    settings = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(**settings) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        again, said = compared(-1)
    assert one[0].table.equals(again.table)
    assert one[1] == said


def test_threads_are_limited_while_all_measure_and_left_as_they_were():
    reps, seen = models()["base"], []

    def measure(run, seconds):
        seen.append(threads())
        time.sleep(seconds)
        seen.append(threads())
        return catalogue.by_name()["norm"].measure(run)

    works = [Work(partial(measure, seconds=s), [str(s)]) for s in (0.01, 0.1)]
    run = Run(reps, sample(reps, draws=2, seed=0), progress=False)
    with threadpoolctl.threadpool_limits(2):
        before = threads()
        with joblib.parallel_config("threading"):
            list(measured(works, run, "m", 2))
        assert threads() == before
    assert {n for one in seen for n in one} == {1}
    assert set(before) == {2}


def die(run, here):
    if os.getpid() != here:
        os._exit(1)
    raise AssertionError


def test_a_worker_that_dies_is_named_with_what_it_measured():
    reps = models()["base"]
    work = Work(partial(die, here=os.getpid()), ["snr"])
    message = r"model 'm': a worker died while snr was measured, as where memory ran out. Measure with fewer workers"
    with pytest.raises(probes.InputError, match=message):
        list(measured([work], Run(reps, sample(reps, draws=2, seed=0)), "m", 2))


def test_what_runs_models_is_measured_here_and_models_are_not_sent():
    reps = models()["base"]
    seen = []

    def here(run):
        seen.append(run.models)
        return catalogue.by_name()["norm"].measure(run)

    def there(run):
        return catalogue.by_name()["norm"].measure(run).assign_attrs(sent=run.models is not None)

    works = [Work(here, ["here"], True), Work(there, ["there"])]
    run = Run(reps, sample(reps, draws=2, seed=0), models=(None, object(), None), progress=False)
    with joblib.parallel_config("threading"):
        found = {names[0]: results for names, results in measured(works, run, "m", 2)}
    assert seen == [run.models]
    assert not next(iter(found["there"].values())).attrs["sent"]


def test_what_was_trained_in_a_worker_is_kept():
    reps = models()["base"]
    run = Run(reps, sample(reps, draws=2, seed=0), progress=False)

    def trained(given):
        given.once("dear", lambda: 7)
        return catalogue.by_name()["norm"].measure(given)

    with joblib.parallel_config("threading"):
        assert isinstance(next(measured([Work(trained, ["norm"])], run, "m", 2))[1]["norm"], xr.Dataset)
    assert run.kept == {"dear": 7}


@pytest.mark.parametrize("n_jobs", [0, 1.5, True, "2"])
def test_a_number_of_workers_is_expected(n_jobs):
    with pytest.raises(probes.InputError, match=r"n_jobs=.*: expected a number of workers, -1 for as many as there"):
        check_n_jobs(n_jobs)
    with pytest.raises(probes.InputError, match=r"n_jobs=.*: expected a number of workers"):
        probes.compare(models(), probes=["norm"], n_jobs=n_jobs)


def test_small_layers_are_measured_on_one_thread_without_workers(monkeypatch):
    found = []

    def seen(run):
        found.append(set(threads()))
        return xr.Dataset(attrs={"probe": "norm"})

    reps = models()["base"]
    run = Run(reps, sample(reps, draws=2, seed=0))
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        list(measured([Work(seen, ["norm"])], run, "m", None))
        monkeypatch.setattr("probes.measures.workers._SMALL", 60 * 8 - 1)
        list(measured([Work(seen, ["norm"])], run, "m", None))
    assert found == [{1}, {2}]
