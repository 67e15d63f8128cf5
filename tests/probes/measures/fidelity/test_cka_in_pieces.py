"""CKA of large layers, read in pieces: the numbers of whole layers, in less memory."""

import tracemalloc
from importlib import import_module

import numpy as np
import pytest

import probes

MODULE = import_module("probes.measures.fidelity.cka_in_pieces")
N = 3000


def pair(n=N, features=(8, 6), layers=(3, 2)):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 4)) * [3, 2, 1, 1] + 5
    about = {"id": np.tile(np.arange(n // 2), 2), "language": np.repeat(["en", "fr"], n // 2)}
    return tuple(
        probes.from_arrays(
            np.stack([shared @ rng.normal(size=(4, f)) + k * rng.normal(size=(n, f)) for k in range(1, count + 1)]),
            **about,
        )
        for f, count in zip(features, layers, strict=True)
    )


def same(one, other):
    assert one.value.values == pytest.approx(other.value.values, abs=1e-9)
    for name in ("low", "high", "draws"):
        assert one[name].values == pytest.approx(other[name].values, abs=1e-9)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("measure", ["cka", "cka_debiased"])
def test_the_numbers_are_those_of_whole_layers(measure, alone, monkeypatch):
    x, y = pair()
    asked = {"x": x, "y": None if alone else y, "measure": measure, "draws": 20}
    whole = probes.similarity(**asked)
    monkeypatch.setattr(MODULE, "_FEW", 0)
    monkeypatch.setattr(MODULE, "_NUMBERS", 5000)
    monkeypatch.setattr(MODULE, "ENTRIES", 100)  # products of one layer at a time
    same(probes.similarity(**asked), whole)


def test_a_layer_without_a_value_is_named_and_the_others_have_theirs(monkeypatch):
    x, _ = pair()
    x.hidden[0, 7, 2] = np.nan
    x.hidden[1] = 4.0
    monkeypatch.setattr(MODULE, "_FEW", 0)
    with pytest.warns(probes.LayerscopeWarning) as said:
        found = probes.similarity(x, draws=10)
    value = found.value.sel(language="pooled").values
    assert np.isnan(value[:2]).all()
    assert np.isnan(value[:, :2]).all()
    assert value[2, 2] == pytest.approx(1)
    assert found.value.sel(language="fr").values[0, 0] == pytest.approx(1)
    (said,) = (str(one.message) for one in said)
    assert "layer 0: 1 rows are not finite (en, pooled)" in said
    assert "layer 1: all states are equal, so there is nothing to compare" in said


def test_memory_does_not_grow_with_the_rows():
    def peak(n):
        x = pair(n, (64, 64), (2, 2))[0].astype(np.float32)
        tracemalloc.start()
        try:
            probes.similarity(x, draws=10)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "_FEW", 0)
        few, many = peak(4_000), peak(14_000)
    assert many - few < 0.2 * 10_000 * 64 * 8, (few, many)
