"""TwoNN: equal to brute force, the dimension of what is curved, and copies left out."""

import tracemalloc

import numpy as np
import pytest
from filled import falling, gaussian, two_nn
from planted import planted
from scipy.stats import ortho_group

import probes
from probes.measures.space import intrinsic_dimension as module
from probes.measures.space.geometry import geometry
from probes.measures.space.intrinsic_dimension import intrinsic_dimension, ratios_of_neighbours
from probes.results.draws import balanced_weights
from probes.results.resampled import held_twice


@pytest.mark.parametrize("seed", range(3))
def test_two_nn_equals_brute_force(seed):
    x = gaussian(falling(8, 1), n=40 + seed, seed=seed)
    assert geometry(x)["intrinsic_dimension"] == pytest.approx(two_nn(x), rel=1e-9)


def test_two_nn_of_all_languages_looks_for_neighbours_in_the_same_language():
    reps = planted(np.random.default_rng(0), ids=50, languages=3)
    value = geometry(reps).value.sel(measure="intrinsic_dimension").isel(layer=0)
    split_measures = [value.sel(language=k).item() for k in ("l0", "l1", "l2")]
    assert value.sel(language="pooled").item() == pytest.approx(1 / np.mean(1 / np.array(split_measures)), rel=0.1)
    assert value.sel(language="pooled").item() != pytest.approx(two_nn(reps.hidden[0].values), rel=0.1)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_two_nn_finds_the_dimension_of_a_cube_in_many_features(d):
    flat = np.random.default_rng(0).uniform(size=(1500, d))
    x = np.pad(flat, ((0, 0), (0, 30 - d))) @ ortho_group.rvs(30, random_state=1)
    assert geometry(x)["intrinsic_dimension"] == pytest.approx(d, rel=0.12)


def test_two_nn_finds_two_dimensions_in_a_rolled_sheet_and_the_covariance_three():
    rng = np.random.default_rng(0)
    angle, along = rng.uniform(5, 14, size=1500), rng.uniform(-12, 12, size=1500)
    roll = np.column_stack([angle * np.cos(angle), along, angle * np.sin(angle)])
    out = geometry(np.pad(roll, ((0, 0), (0, 17))) @ ortho_group.rvs(20, random_state=1))
    assert out["intrinsic_dimension"] == pytest.approx(2, rel=0.1)
    assert out["effective_rank"] == pytest.approx(3, rel=0.05)


def test_copies_of_a_state_are_left_out_of_two_nn_and_counted():
    x = gaussian(falling(6, 1), n=40)
    copied = np.concatenate([x, x[:5], x[:2]])
    with pytest.warns(probes.LayerscopeWarning, match="copies of another: 7 of und at layer 0"):
        value = geometry(probes.from_arrays(copied)).value.sel(measure="intrinsic_dimension", language="pooled").item()
    assert value == pytest.approx(geometry(x)["intrinsic_dimension"], rel=1e-9)


def test_nearly_equal_states_hardly_move_two_nn():
    x = gaussian(falling(6, 1), n=400)
    near = geometry(np.concatenate([x, x[:10] + 1e-4]))["intrinsic_dimension"]
    assert near == pytest.approx(geometry(x)["intrinsic_dimension"], rel=0.2)


@pytest.mark.filterwarnings("ignore:largest_feature_share")  # a sheet in two of 20 features
def test_sentences_of_one_group_are_no_neighbours_of_each_other():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(300), 4)
    sheet = np.pad(rng.uniform(size=(300, 2)), ((0, 0), (0, 18)))[group]
    x = sheet + 1e-4 * rng.normal(size=(1200, 20))  # sentences of one article lie together, in all directions
    alone, grouped = (
        geometry(probes.from_arrays(x, group=g), draws=2)
        .value.sel(measure="intrinsic_dimension", language="pooled")
        .item()
        for g in (None, group)
    )
    assert alone > 6
    assert grouped == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("rows", [1, 7, 49, 50])
@pytest.mark.parametrize("alike", [1, 3])  # rows of an id
def test_blocks_give_the_same_as_one(rows, alike, monkeypatch):
    x, ids = gaussian(falling(8, 1), n=50), np.arange(50) // alike
    x[20:24] = x[3]  # copies across the borders of blocks
    held = held_twice(balanced_weights(50, 30, seed=0))
    whole = ratios_of_neighbours(x, ids)
    monkeypatch.setattr(module, "_ROWS", rows)
    monkeypatch.setattr(module, "_ENTRIES", 1)
    found = ratios_of_neighbours(x, ids)
    assert len(found.kept) == 46
    np.testing.assert_allclose(found.logs, whole.logs, rtol=1e-9)
    values = [intrinsic_dimension([one], held)[0] for one in (whole, found)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-9)


def test_neighbours_that_are_kept_are_the_nearest_of_each_of_the_nearest_ids(monkeypatch):
    monkeypatch.setattr(module, "_KEPT", 1)
    x, ids = gaussian(falling(4, 1), n=120), np.random.default_rng(0).integers(0, 40, 120)
    found = ratios_of_neighbours(x, ids)
    distance = np.linalg.norm(x[:, None] - x, axis=2) / np.abs(x).max()
    for row in (0, 57, 119):
        nearest = sorted((distance[row, ids == i].min(), i) for i in set(ids) - {ids[row]})[:32]
        assert ids[found.near[row]].tolist() == [i for _, i in nearest]
        np.testing.assert_allclose(np.exp(found.distance[row]), [d for d, _ in nearest], rtol=1e-9)


def test_neither_all_distances_nor_those_of_a_large_group_are_in_memory(monkeypatch):
    x, ids = np.random.default_rng(0).normal(size=(1500, 8)), np.maximum(np.arange(1500) - 700, 0)
    monkeypatch.setattr(module, "_ENTRIES", 2**14)
    monkeypatch.setattr(module, "_ROWS", 8)
    monkeypatch.setattr(module, "_KEPT", 1)
    tracemalloc.start()
    try:
        ratios_of_neighbours(x, ids)
        assert tracemalloc.get_traced_memory()[1] < 0.25 * 1500**2 * 8
    finally:
        tracemalloc.stop()


def test_rows_that_are_all_equal_have_none():
    ratios = ratios_of_neighbours(np.ones((20, 3)), np.arange(20))
    assert not len(ratios.logs)
    value, why = intrinsic_dimension([ratios], held_twice(balanced_weights(20, 5, seed=0)))
    assert np.isnan(value).all()
    assert why == "fewer than 4 rows differ"
