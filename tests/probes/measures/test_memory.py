"""Memory of the moment-based probes does not grow with the corpus: they read a store in pieces."""

import tracemalloc

import numpy as np
import pytest

import probes
from probes.states.store import Store

FEATURES, MIB = 768, 2**20
ROWS = (2_000, 20_000)


def stored(folder, rows):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, rows // 2)
    hidden = rng.normal(size=(1, rows, FEATURES)).astype(np.float32)
    reps = probes.from_arrays(
        hidden,
        id=np.tile(np.arange(rows // 2), 2),
        language=np.repeat(["en", "fr"], rows // 2),
        label=np.tile(label, 2),
    )
    store = Store(folder / f"{rows}.zarr", "test")
    array = store.open(reps.drop_vars("hidden").assign_attrs(fingerprint="test"), {"hidden": hidden.shape}, rows)[
        "hidden"
    ]
    array[:] = hidden
    store.finish()
    return probes.open_representations(store.path)


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return [stored(folder, rows) for rows in ROWS]


def peak(probe, reps, **options):
    tracemalloc.start()
    try:
        probe(reps, draws=20, **options)
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:.*more than half of the distance")
@pytest.mark.parametrize("probe", [probes.class_separability, probes.variability, probes.alignment_gap])
def test_ten_times_the_rows_take_no_more_memory(probe, few_and_many):
    options = {"pivot": "en"} if probe is probes.alignment_gap else {}
    few, many = (peak(probe, reps, **options) for reps in few_and_many)
    layer = 18_000 * FEATURES * 8 / MIB
    # What does grow is the numbers and weights of the ids, some bytes a row.
    assert many - few < 0.15 * layer, (few, many, layer)


def test_the_measurement_sees_a_whole_layer(few_and_many):
    few, many = (peak(lambda r, draws: r.hidden.values, reps) for reps in few_and_many)
    assert many - few > 18_000 * FEATURES * 4 / MIB * 0.9
