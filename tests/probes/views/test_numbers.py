import numpy as np
import pytest
from shown import LANGUAGES, Comm, N, bare, cosines, every_answer

import probes
from probes.views import maps, numbers, speakers
from probes.widgets import Explorer


def test_drift_is_one_minus_the_cosine(widget, siblings):
    comm = Comm(widget)
    content, (buffer,) = comm.ask(ask="drift", model=1)
    x, y = (siblings[m]["hidden"].values.astype(np.float64) for m in ("base", "near"))
    wanted = 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    codes = np.frombuffer(buffer, "<u2").reshape(3, -1)
    assert content["high"] == pytest.approx(np.quantile(wanted, 0.995), rel=1e-4)  # where colours end
    assert content["most"] == pytest.approx(wanted.max(), rel=1e-4)
    np.testing.assert_allclose(codes / 65534 * content["most"], np.clip(wanted, 0, None), atol=wanted.max() / 60000)
    assert np.array_equal(np.argsort(codes[2])[-9:], np.argsort(wanted[2])[-9:])  # which moved most
    # And the mean is what the probe has.
    probe = probes.drift(siblings["base"], siblings["near"], draws=2).value.sel(measure="cosine_to_baseline")
    exact = widget.numbers.drift(1).mean(axis=1)
    np.testing.assert_allclose(1 - exact, probe.sel(language="pooled").values, atol=1e-6)
    content, (buffer,) = comm.ask(ask="drift", model=0)
    assert content["high"] == 0  # so that the scale of the others is theirs
    codes = np.frombuffer(buffer, "<u2")
    assert not codes.any()
    assert len(np.frombuffer(comm.ask(ask="drift", model=2)[1][0], "<u2")) == 2 * 3 * N
    content, _ = comm.ask(ask="drift", model=3)
    assert content["give"] == "missing"
    assert "has 9 features and the baseline 6" in content["why"]


def test_alignment_is_that_of_the_retrieval_probe(widget, siblings):
    comm = Comm(widget)
    content, (buffer,) = comm.ask(ask="alignment", model=1, layer=2)
    found = np.frombuffer(buffer, "<f4").reshape(3, 3)
    assert content["languages"] == LANGUAGES
    for a, pivot in enumerate(LANGUAGES):
        wanted = probes.retrieval(siblings["near"], pivot=pivot, draws=2).value.sel(layer=2)
        for b, language in enumerate(LANGUAGES):
            if a == b:
                assert np.isnan(found[a, b])
            else:
                assert found[a, b] == np.float32(wanted.sel(language=language))
    assert 0 < np.nanmin(found) < 1
    # By hand: how often the nearest in the other language is the translation.
    c = cosines(siblings["near"]["hidden"].values[2])[:N, N : 2 * N]
    both = np.mean([(c.argmax(axis=1) == np.arange(N)).mean(), (c.argmax(axis=0) == np.arange(N)).mean()])
    assert found[0, 1] == pytest.approx(both)
    # A model with fewer layers answers for its last.
    last = comm.ask(ask="alignment", model=2, layer=2)
    assert last[0]["layer"] == 2
    assert last[1] == comm.ask(ask="alignment", model=2, layer=1)[1]


def test_similarity_is_that_of_the_probe_and_of_the_table(widget, siblings, compared):
    comm = Comm(widget)
    names = list(siblings)
    for one, other in ((1, 0), (0, 2), (0, 0), (1, 3)):
        content, (buffer,) = comm.ask(ask="similarity", one=one, other=other, measure="cka")
        a, b = siblings[names[one]], siblings[names[other]]
        wanted = probes.similarity(a, None if a is b else b, draws=2).value.sel(language="pooled").values
        np.testing.assert_allclose(np.frombuffer(buffer, "<f4").reshape(wanted.shape), wanted, atol=2e-6)
        assert {"one": one, "other": other, "measure": "cka"}.items() <= content.items()
    plain = comm.ask(ask="similarity", one=1, other=0, measure="neighbour_overlap")[1][0]
    wanted = probes.similarity(siblings["near"], siblings["base"], measure="neighbour_overlap", draws=2)
    np.testing.assert_allclose(
        np.frombuffer(plain, "<f4").reshape(3, 3), wanted.value.sel(language="pooled").values, atol=1e-6
    )
    # Of the table, where it is there: changed in it, the answer changes.
    changed = compared.table.copy()
    changed.loc[changed["probe"] == "cka", "value"] = 0.25
    other = Explorer(probes.Comparison(changed, compared.provenance, compared.draws, compared.representations))
    assert (np.frombuffer(Comm(other).ask(ask="similarity", one=0, other=1, measure="cka")[1][0], "<f4") == 0.25).all()


def test_neighbours_are_the_nearest_by_brute_force(widget, siblings):
    comm = Comm(widget)
    hidden = {m: r["hidden"].values for m, r in siblings.items()}
    for row, layer in ((0, 0), (50, 2)):
        content, _ = comm.ask(ask="sentence", row=row, layer=layer)
        best = {}
        for i, (name, x) in enumerate(hidden.items()):
            c = cosines(x[min(layer, len(x) - 1)])[row]
            c[row] = -2
            best[i] = np.argsort(-c, kind="stable")[:5].tolist()
            given = content["neighbours"][i]
            assert given["model"] == i
            assert [f["row"] for f in given["found"]] == best[i], name
            np.testing.assert_allclose([f["cosine"] for f in given["found"]], c[best[i]], atol=1e-6)
            states = ["" if i == 0 else "kept" if r in best[0] else "gained" for r in best[i]]
            assert [f["state"] for f in given["found"]] == states
            assert given["lost"] == [r for r in best[0] if r not in best[i]]
        assert any(f["state"] == "gained" for g in content["neighbours"] for f in g["found"])
    every = widget.numbers.all_neighbours(1, 2)
    c = cosines(hidden["near"][2])
    np.fill_diagonal(c, -2)
    np.testing.assert_array_equal(every, np.argsort(-c, axis=1, kind="stable")[:, :5])


def test_a_umap_is_made_with_progress_and_made_once(siblings, tmp_path, monkeypatch):
    calls = []

    def stand_in(x, start, *, seed, progress):
        calls.append(x.shape)
        for done in (0, 50, 100):
            progress(done, 100)
        return start @ np.array([[0.0, -1.0], [1.0, 0.0]]) * 9

    monkeypatch.setattr(numbers, "umap_map", stand_in)
    kept = siblings["base"].assign_attrs(fingerprint="f").assign_coords({"class": np.array(["a", "b"], object)})
    kept = kept.assign_coords(split=("example", kept["split"].values.astype(object)))
    plain = {name: {"compressors": None} for name in kept.data_vars}  # as capture writes them
    kept.to_zarr(tmp_path / "b.zarr", consolidated=False, encoding=plain)
    stored = probes.open_representations(tmp_path / "b.zarr")
    first = Explorer(stored)
    comm = Comm(first)
    content, (buffer,) = comm.ask(ask="map", model=0, kind="umap", layer=1)
    progress = [c for c, _ in comm.given() if c["give"] == "progress"]
    assert [(p["done"], p["of"]) for p in progress] == [(0, 100), (50, 100), (100, 100)]
    assert all({"what": "umap", "model": 0, "layer": 1}.items() <= p.items() for p in progress)
    assert content == {"give": "map", "model": 0, "kind": "umap", "layer": 1}
    # The stand-in is the PCA map from another side: turned, it is the same.
    pca = np.frombuffer(comm.ask(ask="map", model=0, kind="pca")[1][0], "<u2").reshape(3, -1, 2)[1]
    np.testing.assert_allclose(np.frombuffer(buffer, "<u2").reshape(-1, 2).astype(int), pca, atol=2)
    comm.ask(ask="map", model=0, kind="umap", layer=1)
    assert len(calls) == 1
    # Another session reads what was kept; another layer is another map.
    again = Comm(Explorer(probes.open_representations(tmp_path / "b.zarr"), kind="umap"))
    assert again.ask(ask="map", model=0, kind="umap", layer=1)[1] == [buffer]
    assert len(calls) == 1
    again.ask(ask="map", model=0, kind="umap", layer=2)
    assert len(calls) == 2


def test_memory_is_bounded_over_many_steps(compared, monkeypatch):
    monkeypatch.setattr(numbers, "KEPT", 5 * 4 * 3 * N * 9)  # five layers of the widest
    widget = Explorer(compared)
    comm = Comm(widget)
    for step in range(60):
        widget.layer = step % 3
        comm.hand({"method": "custom", "content": {"ask": "sentence", "row": step, "layer": step % 3}})
        comm.hand({"method": "custom", "content": {"ask": "alignment", "model": step % 4, "layer": step % 3}})
    widget.wait()
    assert widget.numbers.directions.cache_info().currsize == 5
    assert widget.numbers.alignment.cache_info().maxsize is not None
    assert widget.numbers.similarity.cache_info().maxsize is not None
    assert len(widget.line) == 0
    assert len(widget.numbers.speakers.fitted) <= speakers.MOST_FITTED


def test_constant_and_broken_layers_are_drawn_and_said():
    reps = bare(40, 3)
    reps["hidden"][1] = 2.0
    reps["hidden"][2, 3] = np.nan
    reps["hidden"][0, 5] = 0.0
    widget = Explorer({"a": reps, "b": reps})
    found = every_answer(widget)
    assert found["map"][0][0]["explained"][1] == 0
    assert any("all its states are equal" in note for note in widget.about["notes"])
    assert any("no finite states" in note for note in widget.about["notes"])
    codes = np.frombuffer(found["drift"][1][1][0], "<u2").reshape(3, -1)
    assert codes[2, 3] == 65535
    assert codes[0, 5] == 65535
    assert (np.delete(codes[2], 3) < 65535).all()
    assert widget.numbers.neighbours(3, 2)[0]["found"] == []
    every = widget.numbers.all_neighbours(0, 2)
    assert (every[3] == 40).all()  # none
    assert (np.delete(every, 3, axis=0) < 40).all()
    assert not (every == 3).any()


@pytest.fixture
def made(monkeypatch):
    """Of which model and layer maps have been made, in their order."""
    found = []

    def plain_map(reps, layer, *given, **how):
        found.append((reps.attrs["model"], layer))
        return maps.plain_map(reps, layer, *given, **how)

    monkeypatch.setattr(numbers, "plain_map", plain_map)
    return found


def test_one_map_of_a_model_needs_one_of_its_layers_and_is_the_one_among_all(siblings, made):
    base, near, *_ = siblings
    shown = Explorer({name: siblings[name] for name in (base, near)}).numbers
    found = shown.map_of(1, 2)
    assert made == [(base, 0), (base, 1), (base, 2), (near, 2)]
    np.testing.assert_array_equal(found, shown.maps(1).points[2])
    np.testing.assert_array_equal(shown.map_of(0, 1), shown.maps(0).points[1])
    assert sorted(made[4:]) == [(near, 0), (near, 1)]  # what was there is not made again
    assert np.abs(found - shown.maps(1).points[1]).max() > 1e-3


def test_of_many_sentences_the_map_of_one_layer_needs_no_other_and_is_the_one_among_all(siblings, monkeypatch, made):
    base, near, *_ = siblings
    few = Explorer({name: siblings[name] for name in (base, near)})
    assert not few.about["one_by_one"]
    every = [siblings[name]["hidden"].nbytes for name in (base, near)]
    assert few.numbers.read_for([near]) == sum(every)
    monkeypatch.setattr(numbers, "MANY", 3 * N - 1)
    monkeypatch.setattr(numbers, "TURNED_BY", 30)
    many = Explorer({name: siblings[name] for name in (base, near)})
    assert many.about["one_by_one"]
    shown = many.numbers
    assert shown.read_for([near]) == pytest.approx(every[0] * 30 / (3 * N) + every[1] / 3)
    found = [np.frombuffer(Comm(many).ask(ask="map", model=m, kind="pca", layer=2 - m)[1][0], "<u2") for m in (0, 1)]
    assert made == [(base, 2), (near, 1)]
    for model, codes in enumerate(found):
        whole = np.frombuffer(Comm(many).ask(ask="map", model=model, kind="pca")[1][0], "<u2")
        np.testing.assert_array_equal(codes, whole.reshape(3, -1)[2 - model])
    # Turned as the first sentences alone would be.
    first = maps.layer_maps(siblings[base], np.arange(30))
    plain = maps.plain_map(siblings[base], 2, np.arange(3 * N)).points
    np.testing.assert_allclose(shown.map_of(0, 2), maps.turned(plain, first.points[2]), atol=1e-6)
    assert shown.domain() == maps.domain(first)
