"""Counts of very many ids: made by their numbers, drawn as often as there are draws, no matrix."""

import tracemalloc

import numpy as np
import pytest
from planted import planted

import probes
from probes.measures.catalogue import by_name
from probes.measures.probe import Run
from probes.results import counts as module
from probes.results import draws
from probes.results.counts import Counts, sums_over


@pytest.fixture(scope="module", params=[True, False], ids=["kept", "made anew"])
def many(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_KEPT", 2**28 if request.param else 0)
        return Counts(np.arange(3000), 50, seed=3)


def test_every_id_is_drawn_as_often_as_there_are_draws(many):
    every = many[:, np.arange(3000)]
    assert every.shape == many.shape == (51, 3000)
    assert (every[0] == 1).all()
    assert (every[1:].sum(axis=0) == 50).all()
    # A draw of n ids has n of them give or take the square root; counts are those of a bootstrap.
    assert every[1:].sum(axis=1).std() == pytest.approx(np.sqrt(3000), rel=0.4)
    assert every[1:].astype(float).var() == pytest.approx(1 - 1 / 50, abs=0.02)
    # Ids are drawn each by itself.
    apart = np.corrcoef(every[1:, :200].T) - np.eye(200)
    assert np.square(apart).mean() == pytest.approx(1 / 49, rel=0.1)


def test_any_columns_are_those_of_the_whole(many):
    every = np.array(list(many))
    some = np.array([2999, 5, 6, 7, 5, 0])
    assert np.array_equal(many[:, some], every[:, some])
    assert np.array_equal(many[1:, some], every[1:, some])
    assert np.array_equal(many.take(some)[:, 1:3], every[:, some[1:3]])
    assert np.array_equal(many[7], every[7])


def test_other_seeds_draw_others_and_groups_are_drawn_whole():
    one, other = Counts(np.arange(100), 20, 0), Counts(np.arange(100), 20, 1)
    assert not np.array_equal(one[:, :], other[:, :])
    of_groups = Counts(np.arange(100) // 4, 20, 0)[:, :]
    assert np.array_equal(of_groups[:, ::4], of_groups[:, 3::4])
    assert np.array_equal(of_groups[:, ::4], one[:, :25])


def test_sums_are_those_of_one_product(many, monkeypatch):
    rng = np.random.default_rng(0)
    ids, values = rng.integers(0, 3000, 5000), rng.normal(size=(5000, 2, 3))
    monkeypatch.setattr(module, "_PIECE", 51 * 700)
    expected = np.einsum("wr,rab->wab", many[:, ids].astype(float), values)
    assert sums_over(many, ids, values) == pytest.approx(expected, rel=1e-12)
    assert sums_over(many, ids, values[:, 0, 0]) == pytest.approx(expected[:, 0, 0], rel=1e-12)


def test_intervals_by_either_kind_of_draws_are_alike(monkeypatch):
    rng = np.random.default_rng(0)
    reps = probes.from_arrays(rng.normal(size=(2000, 4)) + np.eye(4)[np.arange(2000) % 4], label=np.arange(2000) % 4)
    few = probes.variability(reps, draws=400), probes.class_separability(reps, draws=400)
    monkeypatch.setattr(draws, "AT_ONCE", 0)
    many = probes.variability(reps, draws=400), probes.class_separability(reps, draws=400)
    for one, other in zip(few, many, strict=True):
        assert float(other.value[0, 0]) == pytest.approx(float(one.value[0, 0]), rel=1e-12)
        width = [float((r.high - r.low)[0, 0]) for r in (one, other)]
        assert width[1] == pytest.approx(width[0], rel=0.25)
        assert other.attrs["resampling"] != one.attrs["resampling"]  # so that they are not taken for paired


def test_a_million_ids_take_no_matrix():
    tracemalloc.start()
    try:
        counts = Counts(np.arange(10**6), 1000, 0)
        assert counts[:, np.arange(10**6 - 3, 10**6)].shape == (1001, 3)
        assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore::probes.LayerscopeWarning")
@pytest.mark.parametrize(
    "probe",
    ["retrieval", "margin_retrieval", "retrieval_all_languages", "norm", "neighbour_overlap", "cosine_to_baseline"],
)
def test_a_probe_never_asks_for_all_counts_of_all_ids(probe, monkeypatch):
    monkeypatch.setattr(draws, "AT_ONCE", 0)
    monkeypatch.setattr(module, "_PIECE", 21 * 20)
    asked, get = [], Counts.__getitem__

    def watched(self, at):
        out = get(self, at)
        asked.append(out.size)
        return out

    monkeypatch.setattr(Counts, "__getitem__", watched)
    reps = planted(np.random.default_rng(0), ids=100)
    measured = by_name()[probe].measure(Run(reps, draws.sample(reps, draws=20, seed=0), base=reps, pivot="l0"))
    assert np.isfinite(measured["draws"]).any()
    assert 0 < max(asked) <= 21 * 20 < 21 * 100
