import threading

import numpy as np
import pytest
from shown import Comm, N

from probes.states.representations import open_representations
from probes.views import asks, maps
from probes.widgets import Explorer


def test_maps_are_given_as_the_maps_file_makes_them(widget, siblings):
    comm = Comm(widget)
    rows = np.arange(3 * N)
    base = maps.layer_maps(siblings["base"], rows)
    for i, reps in enumerate(siblings.values()):
        content, (buffer,) = comm.ask(ask="map", model=i, kind="pca")
        found = np.frombuffer(buffer, "<u2").reshape(reps.sizes["layer"], 3 * N, 2)
        wanted = base if i == 0 else maps.layer_maps(reps, rows, base)
        bound = maps.domain(base)
        expected = np.clip(wanted.points / bound, -1, 1)
        np.testing.assert_allclose(found / 65535 * 2 - 1, expected, atol=2e-5)
        assert content["explained"] == wanted.explained.tolist()
        assert {k: content[k] for k in ("give", "model", "kind")} == {"give": "map", "model": i, "kind": "pca"}


def test_what_goes_wrong_is_said_and_logged(widget, monkeypatch, caplog):
    comm = Comm(widget)

    def broken(*_):
        raise RuntimeError("out of paper")

    monkeypatch.setattr(widget.numbers, "maps", broken)
    content, buffers = comm.ask(ask="map", model=1, kind="pca")
    assert content["give"] == "missing"
    assert content["ask"] == {"ask": "map", "model": 1, "kind": "pca"}
    assert "RuntimeError: out of paper" in content["why"]
    assert not buffers
    assert "could not answer" in caplog.text


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        ({"ask": "map", "model": 9, "kind": "pca"}, "model=9: expected a whole number from 0 to 3"),
        ({"ask": "drift", "model": "0"}, "model='0'"),
        ({"ask": "sentence", "row": 120, "layer": 0}, "row=120"),
        ({"ask": "alignment", "model": 0, "layer": -1}, "layer=-1"),
        (
            {"ask": "similarity", "one": 0, "other": 1, "measure": "nonsense"},
            "measure='nonsense' is not known; choose one of",
        ),
        ({"ask": "weather"}, "does not know what 'weather' is"),
    ],
)
def test_what_cannot_be_asked_is_answered_with_the_reason(widget, ask, why):
    content, _ = Comm(widget).ask(**ask)
    assert content["give"] == "missing"
    assert content["ask"] == ask
    assert why in content["why"]


def test_the_newest_ask_is_answered_first_and_very_old_ones_not_at_all(widget, monkeypatch):
    comm = Comm(widget)
    started, go = threading.Event(), threading.Event()
    answer = Explorer.answer

    def slow(self, ask):
        started.set()
        go.wait(10)
        return answer(self, ask)

    monkeypatch.setattr(Explorer, "answer", slow)
    hand = lambda row: comm.hand({"method": "custom", "content": {"ask": "sentence", "row": row, "layer": 0}})  # noqa: E731
    hand(0)
    assert started.wait(10)
    for row in (1, 2, 2, *range(3, 30 + asks.MOST_WAITING)):
        hand(row % (N * 3 // 4))
    hand(0)  # is being answered
    go.set()
    widget.wait()
    rows = [c["row"] for c, _ in comm.given()]
    last = (30 + asks.MOST_WAITING - 1) % (N * 3 // 4)
    assert rows[:2] == [0, last]
    assert len(rows) == len(set(rows))


def test_a_store_that_moved_away_is_said_with_what_to_do(siblings, tmp_path):
    reps = {}
    for name in ("base", "near"):
        siblings[name].to_zarr(tmp_path / f"{name}.zarr", consolidated=False)
        reps[name] = open_representations(tmp_path / f"{name}.zarr")
    widget = Explorer(reps)
    comm = Comm(widget)
    assert comm.ask(ask="map", model=1, kind="pca")[0]["give"] == "map"
    assert not [note for note in widget.about["notes"] if "any more" in note]
    (tmp_path / "near.zarr").rename(tmp_path / "elsewhere.zarr")
    content, _ = comm.ask(ask="drift", model=1)
    assert content["give"] == "missing"
    assert "the store was replaced or removed after it was opened" in content["why"]
    (note,) = [note for note in widget.about["notes"] if "any more" in note]
    assert f"The states of model near are not at {tmp_path / 'near.zarr'} any more" in note
    assert "comparison.representations['near'] = probes.open_representations(path)" in note
    assert comm.ask(ask="map", model=1, kind="pca")[0]["give"] == "map"  # what was read before is kept
