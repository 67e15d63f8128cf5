import io
import threading

import numpy as np
import pytest
import scipy.linalg
import xarray as xr
from sklearn.decomposition import PCA
from tqdm import tqdm

import probes
from probes.errors import InputError
from probes.views import maps

pytest.importorskip("umap")


def rotation(angle, flip=False):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.diag([1.0, -1.0]) if flip else turn


def rms(points):
    return np.sqrt(np.square(points).sum(axis=1).mean())


@pytest.mark.parametrize("direct", [1024, 5])  # by the Gram matrix, and without it
@pytest.mark.parametrize(
    ("n", "features", "dtype"),
    [(200, 30, np.float32), (200, 30, np.float64), (30, 200, np.float32), (40, 70, np.float64), (9, 3, np.float64)],
)
def test_pca_is_that_of_scikit_learn(n, features, dtype, direct, monkeypatch):
    monkeypatch.setattr(maps, "_DIRECT", direct)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, features)) * np.geomspace(5, 0.5, features) + 100 * rng.normal(size=features)
    x = x.astype(dtype)
    pca = PCA(2, svd_solver="full").fit(x.astype(np.float64))
    wanted = pca.transform(x.astype(np.float64))
    found, explained = maps.principal_map(x)
    assert explained == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-4)
    wanted = wanted / rms(wanted)
    for k in range(2):
        sign = np.sign(wanted[:, k] @ found[:, k])
        np.testing.assert_allclose(found[:, k] * sign, wanted[:, k], atol=2e-3 if dtype == np.float32 else 1e-8)
    assert rms(found) == pytest.approx(1)


def test_pca_takes_the_mean_away_and_keeps_the_scale_out():
    x = np.random.default_rng(0).normal(size=(60, 5)) * [4, 2, 1, 1, 1]
    found, explained = maps.principal_map(x)
    for other in (x + 7, 1e6 * x, x[:, ::-1], 1e-20 * x):
        again, share = maps.principal_map(other)
        np.testing.assert_allclose(np.abs(again), np.abs(found), atol=1e-6)
        assert share == pytest.approx(explained)
    stretched, _ = maps.principal_map(x * [1, 1, 9, 1, 1])  # and this does change it
    assert np.abs(np.abs(stretched) - np.abs(found)).max() > 0.5


def test_pca_is_the_same_every_time_and_its_largest_entries_are_positive():
    x = np.random.default_rng(1).normal(size=(80, 40)).astype(np.float32)
    one, other = (maps.principal_map(x)[0] for _ in range(2))
    assert (one == other).all()
    assert (one[np.abs(one).argmax(axis=0), [0, 1]] > 0).all()


@pytest.mark.parametrize(
    "x",
    [
        np.ones((5, 3)),
        np.full((50, 20), 1234.567, np.float32),
        np.ones((1, 4)),
        np.zeros((4, 1)),
        np.empty((0, 3)),
    ],
)
def test_equal_states_have_no_map(x):
    points, explained = maps.principal_map(x)
    assert points.shape == (len(x), 2)
    assert not points.any()
    assert explained == 0


@pytest.mark.parametrize("x", [np.array([[0.0, 3.0], [2.0, 3.0]]), np.arange(5.0)[:, None], np.arange(5)[:, None]])
def test_where_there_is_one_dimension_the_other_is_zero(x):
    points, explained = maps.principal_map(x)
    assert explained == pytest.approx(1)
    assert not points[:, 1].any()
    assert rms(points) == pytest.approx(1)
    centred = x[:, 0] - x[:, 0].mean()
    np.testing.assert_allclose(np.abs(points[:, 0]), np.abs(centred) / np.sqrt(np.square(centred).mean()), atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_a_planted_rotation_is_undone(flip):
    onto = np.random.default_rng(0).normal(size=(50, 2))
    points = onto @ rotation(1.1, flip)
    np.testing.assert_allclose(maps.turned(points, onto), onto, atol=1e-12)
    noisy = points + 0.3 * np.random.default_rng(1).normal(size=points.shape)
    wanted = noisy @ scipy.linalg.orthogonal_procrustes(noisy, onto)[0]
    np.testing.assert_allclose(maps.turned(noisy, onto), wanted)
    # By brute force over all angles nothing lies nearer.
    best = min(
        np.square(noisy @ rotation(a, f) - onto).sum() for a in np.linspace(0, 2 * np.pi, 721) for f in (False, True)
    )
    assert np.square(wanted - onto).sum() <= best + 1e-9


def test_turning_brings_no_alignment_that_is_not_there():
    rng = np.random.default_rng(0)
    points, onto = rng.normal(size=(2, 500, 2))
    found = maps.turned(points, onto)
    assert np.square(found - onto).sum() > 0.8 * np.square(points - onto).sum()
    np.testing.assert_allclose(found @ found.T, points @ points.T, atol=1e-9)  # distances stay


@pytest.fixture
def reps():
    """Layers 1 and 2 show one cloud from different sides; layer 3 is noise."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(90, 2)) * [3, 2]
    hidden = [z @ np.linalg.qr(rng.normal(size=(6, 2)))[0].T for _ in range(3)]
    return probes.from_arrays(np.stack([*hidden, rng.normal(size=(90, 6))]).astype(np.float32), name="base")


def test_layers_are_turned_onto_the_layer_before_and_models_onto_the_baseline(reps):
    rows = np.arange(90)
    base = maps.layer_maps(reps, rows)
    np.testing.assert_allclose(base.points[1], base.points[0], atol=1e-4)
    np.testing.assert_allclose(base.points[2], base.points[0], atol=1e-4)
    assert np.abs(base.points[3] - base.points[0]).max() > 1  # noise stays noise
    np.testing.assert_allclose(base.explained[:3], 1, atol=1e-5)
    assert base.explained[3] < 0.7
    mirrored = reps.isel(layer=[2, 0, 1, 3]).copy(deep=True)
    mirrored["hidden"] = -mirrored["hidden"]
    other = maps.layer_maps(mirrored.assign_attrs(model="other"), rows, base)
    for layer in range(3):
        np.testing.assert_allclose(other.points[layer], base.points[layer], atol=1e-4)
    assert base.notes == other.notes == []


@pytest.mark.parametrize(("layers", "onto"), [([0, 1], [0, 3]), ([0, 1, 2, 3, 1, 0, 2], [0, 0, 1, 2, 2, 2, 3])])
def test_models_of_another_depth_go_by_the_same_share_of_it(reps, layers, onto):
    rows = np.arange(90)
    base = maps.layer_maps(reps, rows)
    other = maps.layer_maps(reps.isel(layer=layers).assign_coords(layer=np.arange(len(layers))), rows, base)
    for layer, of_baseline in enumerate(onto):
        wanted = maps.turned(other.plain[layer], base.points[of_baseline])
        np.testing.assert_allclose(other.points[layer], wanted, atol=1e-6)


def test_states_that_are_not_finite_are_drawn_at_the_centre_and_said(reps):
    broken = reps.copy(deep=True)
    broken["hidden"][1, 7, 2] = np.nan
    broken["hidden"][2] = 5.0
    found = maps.layer_maps(broken, np.arange(90))
    assert not found.points[1, 7].any()
    assert not found.points[2].any()
    rest = np.delete(np.arange(90), 7)
    wanted, share = maps.principal_map(reps["hidden"].values[1, rest])
    np.testing.assert_allclose(found.plain[1, rest], wanted, atol=1e-5)
    assert found.explained[1] == pytest.approx(share)
    assert any("layer 1: 1 sentences have no finite states" in note for note in found.notes)
    assert any("layer 2: no map, since all its states are equal" in note for note in found.notes)
    broken["hidden"][0] = np.nan
    notes = maps.layer_maps(broken, np.arange(90)).notes
    assert [note for note in notes if "layer 0" in note] == [
        "model base, layer 0: 90 sentences have no finite states; they are drawn at the centre of the map"
    ]
    # The layer after one without a map goes by the one before it.
    np.testing.assert_allclose(found.points[3], maps.turned(found.plain[3], found.points[1]), atol=1e-6)


def test_only_the_rows_that_are_shown_take_part(reps, tmp_path):
    rows = np.arange(0, 90, 3)
    reps.to_zarr(tmp_path / "r.zarr", consolidated=False)
    stored = probes.open_representations(tmp_path / "r.zarr")
    found = maps.layer_maps(stored, rows)
    np.testing.assert_array_equal(found.points, maps.layer_maps(reps.isel(example=rows), np.arange(30)).points)
    assert np.abs(found.points - maps.layer_maps(reps, np.arange(90)).points[:, rows]).max() > 1e-3


def test_coordinates_are_coded_on_fixed_axes(reps):
    found = maps.layer_maps(reps, np.arange(90))
    bound = maps.domain(found)
    assert 1 <= bound <= 4
    codes = maps.to_uint16(found.points, bound)
    assert codes.dtype == np.dtype("<u2")
    back = (codes / 65535 * 2 - 1) * bound
    np.testing.assert_allclose(back, np.clip(found.points, -bound, bound), atol=bound / 65535 + 1e-6)
    assert (np.abs(found.points) <= bound).mean() > 0.998


# --- UMAP ---


def groups():
    x = np.random.default_rng(0).normal(size=(48, 6))
    return x + 12 * np.eye(6)[np.arange(48) // 16]


def test_umap_separates_groups_reports_its_epochs_and_repeats(tmp_path):
    x = groups()
    x[5] = 0  # no direction
    x[6] = np.nan
    start = maps.principal_map(groups())[0]
    seen = []
    points = maps.umap_map(x, start, progress=lambda done, of: seen.append((done, of)))
    assert not points[5:7].any()
    there = np.delete(np.arange(48), [5, 6])
    group = there // 16
    distance = np.linalg.norm(points[there, None] - points[there], axis=2)
    same = group[:, None] == group
    assert distance[same].mean() < distance[~same].mean() / 2
    assert seen[-1][0] == seen[-1][1] > 0
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert np.array_equal(points, maps.umap_map(x, start))
    assert not np.array_equal(points, maps.umap_map(x, start, seed=1))

    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maps.umap_map(x, start, progress=stop)
    # The lock that tqdm has for the whole process is free again.
    other = threading.Thread(target=lambda: tqdm(range(1), file=io.StringIO()).close(), daemon=True)
    other.start()
    other.join(20)
    assert not other.is_alive()


def test_umap_of_too_little_is_refused():
    x = groups()
    with pytest.raises(InputError, match="needs at least 16 sentences with a direction, and there are 15"):
        maps.umap_map(x[:15], np.zeros((15, 2)))
    with pytest.raises(InputError, match="all its states are equal"):
        maps.umap_map(np.ones((20, 3)), np.zeros((20, 2)))


def test_umap_maps_are_kept_beside_the_store_under_what_they_depend_on(reps, tmp_path):
    plain = {name: {"compressors": None} for name in reps.data_vars}  # as capture writes them
    reps.assign_attrs(fingerprint="f").to_zarr(tmp_path / "a.zarr", consolidated=False, encoding=plain)
    stored = probes.open_representations(tmp_path / "a.zarr")
    rows = np.arange(90)
    place = maps.umap_place(stored, 1, rows, 0)
    assert place is not None
    assert place.parent == tmp_path / "a.maps"
    others = [
        maps.umap_place(stored, 2, rows, 0),
        maps.umap_place(stored, 1, rows[:50], 0),
        maps.umap_place(stored, 1, rows, 1),
        maps.umap_place(stored.assign_attrs(fingerprint="g"), 1, rows, 0),
    ]
    assert len({place, *others}) == 5
    assert maps.umap_place(stored.assign_attrs(model="renamed"), 1, rows, 0) == place
    assert maps.umap_place(reps, 1, rows, 0) is None  # in memory only
    points = np.random.default_rng(0).normal(size=(90, 2)).astype(np.float32)
    assert maps.open_map(place, 90) is None
    maps.keep_map(place, points)
    np.testing.assert_array_equal(maps.open_map(place, 90), points)
    assert maps.open_map(place, 89) is None
    place.write_bytes(b"broken")
    assert maps.open_map(place, 90) is None
    np.save(place, np.array([{"a": 1}], object), allow_pickle=True)
    assert maps.open_map(place, 90) is None  # no pickle is opened
    assert not list(place.parent.glob("*.partial"))


def test_half_precision_and_whole_numbers_are_read_as_floats():
    x = np.random.default_rng(0).normal(size=(2, 30, 4))
    for dtype in (np.float16, np.int8):
        reps = xr.Dataset({"hidden": (("layer", "example", "feature"), (10 * x).astype(dtype))})
        assert maps.read(reps, 1, np.arange(30)).dtype in (np.float32, np.float64)
        found = maps.layer_maps(reps, np.arange(30))
        wanted = maps.principal_map((10 * x[1]).astype(dtype).astype(np.float64))[0]
        np.testing.assert_allclose(np.abs(found.plain[1]), np.abs(wanted), atol=1e-3)
