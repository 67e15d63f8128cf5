import base64
import json
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import probes
from probes.errors import InputError
from probes.views import answers, explorer, maps, page
from probes.widgets import AlignmentMatrix, Explorer, LayerCurves, LayerMap, RepresenterPanel, SimilarityMatrix

HOSTILE = "</script><script>alert('x')</script><!--"
LANGUAGES = ["en", "ar", "fr"]
N = 40  # sentences, each in three languages


class Comm:
    """Takes what a widget sends, and hands in what a front end would."""

    def __init__(self, widget):
        self.widget, self.sent = widget, []
        widget.comm.send = lambda data=None, metadata=None, buffers=None: self.sent.append((data, buffers))

    def hand(self, data, buffers=()):
        self.widget._handle_msg({"content": {"data": data}, "buffers": list(buffers)})

    def ask(self, **ask):
        self.hand({"method": "custom", "content": ask})
        self.widget.wait()
        return self.given()[-1]

    def given(self):
        found = [(d["content"], b) for d, b in self.sent if d["method"] == "custom"]
        for content, _ in found:
            json.dumps(content, allow_nan=False)
        return found

    def updated(self):
        return [set(d["state"]) for d, _ in self.sent if d["method"] == "update"]


def make(seed, *, layers=3, features=6, logits=True, noise=0.3, n=N, split=True, text=HOSTILE):
    rng = np.random.default_rng(7)  # the same sentences for every model
    y = np.arange(n) % 2
    meaning = rng.normal(size=(n, 6)) + 2 * np.eye(6)[y]
    rng = np.random.default_rng(seed)
    hidden = np.stack(
        [
            np.concatenate([meaning + noise * (1 + level) * rng.normal(size=meaning.shape) for _ in LANGUAGES])
            for level in range(layers)
        ]
    )
    hidden = np.concatenate([hidden, rng.normal(size=(*hidden.shape[:2], features - 6))], axis=2)
    reps = probes.from_arrays(
        hidden.astype(np.float32),
        id=np.tile(np.arange(n), 3),
        language=np.repeat(LANGUAGES, n),
        label=np.tile(np.array(["a", "b"])[y], 3),
        text=[f"{language} {i} {text}" for language in LANGUAGES for i in range(n)],
    )
    if split:
        reps = reps.assign_coords(split=("example", np.tile(np.where(np.arange(n) < n * 3 // 4, "train", "test"), 3)))
    if logits:
        z = hidden[-1][:, :2] + 0.1
        reps["logits"] = xr.DataArray(z, dims=("example", "class"), coords={"class": ["a", "b"]})
    return reps


@pytest.fixture(scope="module")
def models():
    return {"base": make(0), "near": make(1, noise=0.5), "short": make(2, layers=2), "wide": make(3, features=9)}


@pytest.fixture(scope="module")
def comparison(models):
    return probes.compare(models, pivot="en", probes=["snr", "retrieval", "accuracy", "cka"], draws=20)


@pytest.fixture
def widget(comparison):
    comparison._explorer = None
    return comparison.explore()


def cosines(x):
    x = x.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


# --- what is shown ---


def test_curves_are_the_table(widget, comparison):
    about = widget.about
    values = np.frombuffer(widget.curves, "<f4").reshape(len(about["probes"]), 4, len(about["curve_languages"]), 3, 4)
    names = [p["name"] for p in about["probes"]]
    assert names == ["retrieval", "snr", "accuracy"] or set(names) == {"snr", "retrieval", "accuracy"}
    assert {p["name"]: p["by"] for p in about["probes"]} == {"snr": "layer", "retrieval": "layer", "accuracy": "output"}
    assert all(p["better"] == "higher" for p in about["probes"])
    assert about["curve_languages"][0] == "pooled"
    filled = np.zeros(values.shape[:-1], bool)
    for row in comparison.table[comparison.table["probe"].isin(names)].itertuples():
        at = (
            names.index(row.probe),
            list(comparison.provenance["models"]).index(row.model),
            about["curve_languages"].index(row.language),
            0 if pd.isna(row.layer) else int(row.layer),
        )
        filled[at] = True
        np.testing.assert_allclose(
            values[at], np.array([row.value, row.low, row.high, row.p_adjusted], float), rtol=1e-6
        )
    assert np.isnan(values[~filled]).all()
    assert filled.any()
    assert not filled.all()  # the short model has no third layer


def test_codes_and_texts_say_what_the_sentences_are(widget, models):
    codes = np.frombuffer(widget.codes, "<i2").reshape(2 + 4, -1)
    about, reps = widget.about, models["base"]
    assert [about["languages"][c] for c in codes[0]] == reps["language"].values.tolist()
    assert [about["labels"][c] for c in codes[1]] == reps["label"].values.tolist()
    for i, model in enumerate(models.values()):
        predicted = model["class"].values[model["logits"].values.argmax(axis=1)]
        assert [about["classes"][c] for c in codes[2 + i]] == predicted.tolist()
    assert widget.texts["text"] == reps["text"].values.tolist()
    assert widget.texts["pair"] is None
    assert [m["layers"] for m in about["models"]] == [3, 3, 2, 3]
    assert about["colours"] == ["label", "language", "prediction", "drift", "representer"]
    assert about["missing"] == {}
    assert about["baseline"] == 0
    assert about["pivot"] == "en"


# --- messages ---


def test_maps_are_given_as_the_maps_file_makes_them(widget, models):
    comm = Comm(widget)
    rows = np.arange(3 * N)
    base = maps.layer_maps(models["base"], rows)
    for i, reps in enumerate(models.values()):
        content, (buffer,) = comm.ask(ask="map", model=i, kind="pca")
        found = np.frombuffer(buffer, "<u2").reshape(reps.sizes["layer"], 3 * N, 2)
        wanted = base if i == 0 else maps.layer_maps(reps, rows, base)
        bound = maps.domain(base)
        expected = np.clip(wanted.points / bound, -1, 1)
        np.testing.assert_allclose(found / 65535 * 2 - 1, expected, atol=2e-5)
        assert content["explained"] == wanted.explained.tolist()
        assert {k: content[k] for k in ("give", "model", "kind")} == {"give": "map", "model": i, "kind": "pca"}


def test_drift_is_one_minus_the_cosine(widget, models):
    comm = Comm(widget)
    content, (buffer,) = comm.ask(ask="drift", model=1)
    x, y = (models[m]["hidden"].values.astype(np.float64) for m in ("base", "near"))
    wanted = 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    codes = np.frombuffer(buffer, np.uint8).reshape(3, -1)
    high = content["high"]
    assert high == pytest.approx(np.quantile(wanted, 0.995), rel=1e-4)
    np.testing.assert_allclose(codes / 254 * high, np.clip(wanted, 0, high), atol=high / 250)
    assert wanted.max() > high  # what is beyond is moved to the end
    # And the mean is what the probe has.
    probe = probes.drift(models["base"], models["near"], draws=2).value.sel(measure="cosine_to_baseline")
    exact = widget.answers.drift(1).mean(axis=1)
    np.testing.assert_allclose(1 - exact, probe.sel(language="pooled").values, atol=1e-6)
    content, (buffer,) = comm.ask(ask="drift", model=0)
    assert content["high"] == 0  # so that the scale of the others is theirs
    codes = np.frombuffer(buffer, np.uint8)
    assert not codes.any()
    assert len(np.frombuffer(comm.ask(ask="drift", model=2)[1][0], np.uint8)) == 2 * 3 * N
    content, _ = comm.ask(ask="drift", model=3)
    assert content["give"] == "missing"
    assert "has 9 features and the baseline 6" in content["why"]


def test_alignment_is_that_of_the_retrieval_probe(widget, models):
    comm = Comm(widget)
    content, (buffer,) = comm.ask(ask="alignment", model=1, layer=2)
    found = np.frombuffer(buffer, "<f4").reshape(3, 3)
    assert content["languages"] == LANGUAGES
    for a, pivot in enumerate(LANGUAGES):
        wanted = probes.retrieval(models["near"], pivot=pivot, draws=2).value.sel(layer=2)
        for b, language in enumerate(LANGUAGES):
            if a == b:
                assert np.isnan(found[a, b])
            else:
                assert found[a, b] == np.float32(wanted.sel(language=language))
    assert 0 < np.nanmin(found) < 1
    # By hand: how often the nearest in the other language is the translation.
    c = cosines(models["near"]["hidden"].values[2])[:N, N : 2 * N]
    both = np.mean([(c.argmax(axis=1) == np.arange(N)).mean(), (c.argmax(axis=0) == np.arange(N)).mean()])
    assert found[0, 1] == pytest.approx(both)
    # A model with fewer layers answers for its last.
    last = comm.ask(ask="alignment", model=2, layer=2)
    assert last[0]["layer"] == 2
    assert last[1] == comm.ask(ask="alignment", model=2, layer=1)[1]


def test_similarity_is_that_of_the_probe_and_of_the_table(widget, models, comparison):
    comm = Comm(widget)
    names = list(models)
    for one, other in ((1, 0), (0, 2), (0, 0), (1, 3)):
        content, (buffer,) = comm.ask(ask="similarity", one=one, other=other, measure="cka")
        a, b = models[names[one]], models[names[other]]
        wanted = probes.similarity(a, None if a is b else b, draws=2).value.sel(language="pooled").values
        np.testing.assert_allclose(np.frombuffer(buffer, "<f4").reshape(wanted.shape), wanted, atol=2e-6)
        assert {"one": one, "other": other, "measure": "cka"}.items() <= content.items()
    plain = comm.ask(ask="similarity", one=1, other=0, measure="neighbour_overlap")[1][0]
    wanted = probes.similarity(models["near"], models["base"], measure="neighbour_overlap", draws=2)
    np.testing.assert_allclose(
        np.frombuffer(plain, "<f4").reshape(3, 3), wanted.value.sel(language="pooled").values, atol=1e-6
    )
    # Of the table, where it is there: changed in it, the answer changes.
    changed = comparison.table.copy()
    changed.loc[changed["probe"] == "cka", "value"] = 0.25
    other = Explorer(probes.Comparison(changed, comparison.provenance, comparison.representations))
    assert (np.frombuffer(Comm(other).ask(ask="similarity", one=0, other=1, measure="cka")[1][0], "<f4") == 0.25).all()


def test_neighbours_are_the_nearest_by_brute_force(widget, models):
    comm = Comm(widget)
    hidden = {m: r["hidden"].values for m, r in models.items()}
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
    every = widget.answers.all_neighbours(1, 2)
    c = cosines(hidden["near"][2])
    np.fill_diagonal(c, -2)
    np.testing.assert_array_equal(every, np.argsort(-c, axis=1, kind="stable")[:, :5])


def test_representers_are_those_of_the_probe(widget, models):
    comm = Comm(widget)
    row = N - 1  # of the split "test"
    content, buffers = comm.ask(ask="sentence", row=row, layer=1)
    first, second = [c for c, _ in comm.given()]
    assert first["representers"] is None
    assert "being computed" in first["why"]
    assert second is content
    assert all("more" not in c for c, _ in comm.given())
    values = widget.answers.fitted[0]
    assert values.certificate.relative_error < 1e-6
    reps = models["base"]
    train = np.flatnonzero(reps["split"] == "train")
    found = content["representers"]
    assert found["model"] == "base"
    assert found["target"] == reps["class"].values[reps["logits"].values[row].argmax()]
    top = values.top(str(row), 5, language="en")
    for side in ("excitatory", "inhibitory"):
        wanted = top[top["side"] == side]
        np.testing.assert_allclose([f["value"] for f in found[side]], wanted["value"], rtol=1e-9)
        assert [f["text"] for f in found[side]] == wanted["text"].tolist()
        assert [reps["text"].values[f["row"]] for f in found[side]] == wanted["text"].tolist()
        assert [f["label"] for f in found[side]] == wanted["label"].tolist()
    colours = np.frombuffer(buffers[0], "<f4")
    assert np.isnan(np.delete(colours, train)).all()
    # All training rows together add up to the logit.
    at = int(np.flatnonzero((values.test["id"] == str(row)) & (values.test["language"] == "en"))[0])
    assert np.nansum(colours) == pytest.approx(values.logits[at].max(), rel=1e-3, abs=1e-3)
    # A second time there is one answer; a training sentence says why not.
    before = len(comm.given())
    comm.ask(ask="sentence", row=row, layer=2)
    assert len(comm.given()) == before + 1
    assert "split 'test'" in comm.ask(ask="sentence", row=0, layer=2)[0]["why"]


def test_representers_explain_the_first_model_that_is_shown(widget):
    comm = Comm(widget)
    widget.models = ["near", "base"]
    assert comm.ask(ask="sentence", row=N - 1, layer=0)[0]["representers"]["model"] == "near"


def test_why_there_are_no_representers_is_kept_and_said(models, monkeypatch):
    broken = models["base"].copy(deep=True)
    broken["logits"][3] = np.nan
    comm = Comm(Explorer(broken))
    content, _ = comm.ask(ask="sentence", row=N - 1, layer=0)
    assert content["representers"] is None
    assert "not finite" in content["why"]
    assert len(content["neighbours"][0]["found"]) == 5


def test_a_umap_is_made_with_progress_and_made_once(models, tmp_path, monkeypatch):
    calls = []

    def stand_in(x, start, *, seed, progress):
        calls.append(x.shape)
        for done in (0, 50, 100):
            progress(done, 100)
        return start @ np.array([[0.0, -1.0], [1.0, 0.0]]) * 9

    monkeypatch.setattr(answers, "umap_map", stand_in)
    kept = models["base"].assign_attrs(fingerprint="f").assign_coords({"class": np.array(["a", "b"], object)})
    kept = kept.assign_coords(split=("example", kept["split"].values.astype(object)))
    kept.to_zarr(tmp_path / "b.zarr", consolidated=False)
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


def test_what_goes_wrong_is_said_and_logged(widget, monkeypatch, caplog):
    comm = Comm(widget)

    def broken(*_):
        raise RuntimeError("out of paper")

    monkeypatch.setattr(widget.answers, "maps", broken)
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
        ({"ask": "similarity", "one": 0, "other": 1, "measure": "nonsense"}, "measure='nonsense' is not there"),
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
    for row in (1, 2, 2, *range(3, 30 + explorer._MOST_WAITING)):
        hand(row % (N * 3 // 4))
    hand(0)  # is being answered
    go.set()
    widget.wait()
    rows = [c["row"] for c, _ in comm.given()]
    last = (30 + explorer._MOST_WAITING - 1) % (N * 3 // 4)
    assert rows[:2] == [0, last]
    assert len(rows) == len(set(rows))


def test_only_what_changed_is_sent(widget):
    comm = Comm(widget)
    for layer in (0, 1, 2, 0):
        widget.layer = layer
    assert comm.updated() == [{"layer"}] * 4
    comm.sent.clear()
    comm.hand({"method": "update", "state": {"layer": 1}, "buffer_paths": []})
    assert widget.layer == 1
    assert all(names <= {"layer"} for names in comm.updated())


def test_memory_is_bounded_over_many_steps(widget, monkeypatch):
    comm = Comm(widget)
    widget.answers.directions = answers.lru_cache(maxsize=5)(widget.answers._directions)
    for step in range(60):
        widget.layer = step % 3
        comm.hand({"method": "custom", "content": {"ask": "sentence", "row": step, "layer": step % 3}})
        comm.hand({"method": "custom", "content": {"ask": "alignment", "model": step % 4, "layer": step % 3}})
    widget.wait()
    assert widget.answers.directions.cache_info().currsize <= 5
    assert widget.answers.alignment.cache_info().maxsize is not None
    assert widget.answers.similarity.cache_info().maxsize is not None
    assert not widget._pending
    assert not any(widget._waiting.values())
    assert len(widget.answers.fitted) <= answers._MOST_FITTED


def test_a_closed_explorer_answers_no_more(widget):
    sent = Comm(widget).sent
    widget.close()
    before = len(sent)
    widget._queue({"ask": "map", "model": 0, "kind": "pca"})
    widget.wait()
    assert len(sent) == before


# --- what is chosen ---


def test_selection_goes_both_ways(widget, models):
    comm = Comm(widget)
    widget.selection = ["3", 5]
    rows = [3, N + 3, 2 * N + 3, 5, N + 5, 2 * N + 5]
    assert np.frombuffer(widget.selected, "<i4").tolist() == rows
    assert widget.selection["id"].tolist() == ["3"] * 3 + ["5"] * 3
    assert widget.selection["language"].tolist() == LANGUAGES * 2
    assert widget.selection["text"].tolist() == models["base"]["text"].values[rows].tolist()
    assert widget.selection["row"].tolist() == rows
    assert {"label", "split", "prediction of base", "prediction of wide"} <= set(widget.selection)
    comm.hand({"method": "update", "state": {}, "buffer_paths": [["selected"]]}, [memoryview(np.array([7, 81], "<i4"))])
    assert widget.selection[["id", "language"]].to_numpy().tolist() == [["7", "en"], ["1", "fr"]]
    seen = []
    widget.observe(lambda change: seen.append(len(change["new"])), "selection")
    widget.selection = widget.selection.query("language == 'fr'")
    assert np.frombuffer(widget.selected, "<i4").tolist() == [81]
    widget.selection = pd.DataFrame({"id": [2], "language": ["ar"]})
    assert np.frombuffer(widget.selected, "<i4").tolist() == [N + 2]
    widget.selection = pd.DataFrame(index=[4, 6])
    assert np.frombuffer(widget.selected, "<i4").tolist() == [4, 6]
    widget.selection = None
    assert widget.selected == b""
    assert widget.selection.empty
    assert seen == [1, 1, 2, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["3", "no", "neither"], "no sentence has the id 'no', 'neither'"),
        (pd.DataFrame({"id": ["1"], "language": ["xx"]}), r"has the id and language \('1', 'xx'\)"),
        (pd.DataFrame(index=[1, 500]), "no shown sentence has the number 500; there are 0 to 119"),
        ("3", "expected a table, a list of ids or None; found str"),
        (7, "found int"),
    ],
)
def test_a_selection_of_what_is_not_there_is_refused(widget, value, message):
    widget.selection = ["1"]
    with pytest.raises(InputError, match=message):
        widget.selection = value
    assert widget.selection["id"].unique().tolist() == ["1"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layer", 3, "layer=3: expected 0 to 2"),
        ("layer", -1, "layer=-1"),
        ("models", ["base", "x"], "models: 'x' is not known; there are 'base', 'near', 'short', 'wide'"),
        ("models", [], "expected 1 to 4 different models"),
        ("models", ["base", "base"], "expected 1 to 4 different models"),
        ("probe", "variability", "probe: 'variability' is not known; there are"),
        ("language", "de", "there are 'pooled', 'en'"),
        ("colour", "weather", "there are 'label', 'language', 'prediction', 'drift', 'representer'"),
        ("kind", "tsne", "there are 'pca', 'umap'"),
        ("compared", ["base"], "expected the names of two models"),
        ("compared", ["base", "x"], "'x' is not known"),
        ("focus", "x", "focus: 'x' is not known"),
        ("measure", "x", "measure: 'x' is not known; there are 'cka'"),
        ("selected", b"\1\0", "expected rows 0 to 119"),
        ("weather", "fine", "unknown setting 'weather'; there are most, seed, parts, layer"),
        ("parts", ["map"], "expected some of 'controls'"),
        ("parts", "maps", "expected some of 'controls'"),
        ("most", 0, "most=0: expected a whole number of at least 1"),
        ("seed", -1, "seed=-1"),
    ],
)
def test_a_choice_that_is_not_there_is_refused(widget, comparison, name, value, message):
    if widget.has_trait(name) and name != "parts":
        before = getattr(widget, name)
        with pytest.raises(InputError, match=message):
            setattr(widget, name, value)
        assert getattr(widget, name) == before
    if name != "selected":
        with pytest.raises(InputError, match=message):
            Explorer(comparison, **{name: value})


def test_more_than_four_maps_are_refused(models):
    five = {**models, "fifth": models["base"]}
    widget = Explorer(five)
    assert widget.models == list(models)
    with pytest.raises(InputError, match="expected 1 to 4 different models"):
        widget.models = list(five)


def test_state_survives_and_explorers_are_independent(comparison):
    comparison._explorer = None
    first = comparison.explore(layer=1)
    first.models, first.probe, first.colour = ["near", "base"], "snr", "drift"
    first.selection = ["4"]
    second = comparison.explore()
    assert (second.layer, second.models, second.probe, second.colour) == (1, ["near", "base"], "snr", "drift")
    assert second.selection["id"].tolist() == ["4"] * 3
    assert second.answers is first.answers  # nothing is computed again
    second.layer, second.selection = 0, None
    assert first.layer == 1
    assert len(first.selection) == 3
    third = comparison.explore(layer=2, most=30)
    assert third.layer == 2
    assert third.about["n"] <= 30
    assert third.answers is not first.answers
    assert third.about["token"] != second.about["token"]
    # What is no longer there is chosen anew.
    second = comparison.explore(most=5000)
    second.colour = "label"
    comparison.representations, kept = {}, comparison.representations
    try:
        assert comparison.explore().colour == ""
    finally:
        comparison.representations = kept


# --- what there may be ---


def every_answer(widget):
    """Ask for everything there is to ask; return the kinds of answers."""
    comm = Comm(widget)
    about = widget.about
    models = range(len(about["models"]))
    asks = [{"ask": "map", "model": i, "kind": "pca"} for i in models]
    asks += [{"ask": "drift", "model": i} for i in models]
    asks += [{"ask": "alignment", "model": i, "layer": 0} for i in models]
    asks += [{"ask": "similarity", "one": 0, "other": models[-1], "measure": m} for m in about["measures"]]
    asks += [{"ask": "sentence", "row": r, "layer": 0} for r in {0, about["n"] - 1} if r >= 0]
    found = {}
    for ask in asks:
        content, buffers = comm.ask(**ask)
        assert content["give"] in (ask["ask"], "missing")
        assert "could not be computed" not in content.get("why", "")
        found.setdefault(ask["ask"], []).append((content, buffers))
    return found


def bare(n, layers=2, features=5, seed=0, **kwargs):
    return probes.from_arrays(np.random.default_rng(seed).normal(size=(layers, n, features)), **kwargs)


def test_one_model_one_language_no_labels_no_texts(tmp_path):
    widget = Explorer(bare(30))
    missing = widget.about["missing"]
    assert set(missing) == {"curves", "alignment", "drift", "representers", "label", "predictions", "translations"}
    assert "one model only" in missing["drift"]
    assert "one language only" in missing["alignment"]
    assert "probes.compare" in missing["curves"]
    assert widget.about["colours"] == ["language"]
    assert any("no texts" in note for note in widget.about["notes"])
    found = every_answer(widget)
    assert found["map"][0][0]["give"] == "map"
    assert found["sentence"][0][0]["representers"] is None
    assert found["sentence"][0][0]["why"] == missing["representers"]
    widget.save(tmp_path / "v.html")


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("layers", "features"), [(1, 1), (1, 4), (3, 2)])
def test_a_few_sentences_and_one_layer(n, layers, features, tmp_path):
    reps = {m: bare(n, layers, features, seed) for seed, m in enumerate("ab")}
    widget = Explorer(reps)
    assert "umap" in widget.about["missing"]
    found = every_answer(widget)
    assert len(found["sentence"][0][0]["neighbours"][0]["found"]) == n - 1
    assert np.frombuffer(found["map"][0][1][0], "<u2").shape == (layers * n * 2,)
    assert Comm(widget).ask(ask="map", model=0, kind="umap", layer=0)[0]["give"] == "missing"
    data = embedded(widget.save(tmp_path / "v.html"))
    if n == 1:
        assert data["neighbours"] is None
    else:
        rows = np.frombuffer(base64.b64decode(data["neighbours"]["models"][0]["rows"]), "<u2")
        assert rows.shape == (layers * n * (n - 1),)


def test_sixty_classes_no_pivot_empty_texts():
    n = 360
    rng = np.random.default_rng(0)
    reps = probes.from_arrays(rng.normal(size=(2, n, 5)), label=np.arange(n) % 60, text=["", " "] * (n // 2))
    widget = probes.compare({"a": reps, "b": reps + 0.0}, probes=["snr"], draws=5).explore()
    assert widget.about["labels"] == [str(i) for i in range(60)]
    assert widget.about["pivot"] is None
    assert np.frombuffer(widget.codes, "<i2").reshape(-1, n)[1].tolist() == [i % 60 for i in range(n)]
    assert widget.about["missing"].keys() == {"alignment", "representers", "predictions", "translations"}
    every_answer(widget)


def test_many_sentences_are_sampled_by_id_and_said():
    n = 300
    reps = probes.from_arrays(
        np.random.default_rng(0).normal(size=(1, 3 * n, 4)).astype(np.float32),
        id=np.tile(np.arange(n), 3),
        language=np.repeat(LANGUAGES, n),
    )
    widget = Explorer(reps, most=100)
    about = widget.about
    assert (about["n"], about["total"]) == (99, 900)
    assert any("99 of 900 sentences are shown" in note for note in about["notes"])
    counts = pd.Series(widget.texts["id"]).value_counts()
    assert (counts == 3).all()  # translations stay together
    rows = widget.answers.rows
    assert (np.diff(rows) > 0).all()
    # The same ids whatever the order of the rows; others by another seed.
    shuffled = reps.isel(example=np.random.default_rng(1).permutation(3 * n))
    assert set(Explorer(shuffled, most=100).texts["id"]) == set(counts.index)
    assert set(Explorer(reps, most=100, seed=1).texts["id"]) != set(counts.index)
    found = every_answer(widget)
    wanted = maps.layer_maps(reps.isel(example=rows), np.arange(99))
    np.testing.assert_array_equal(
        np.frombuffer(found["map"][0][1][0], "<u2").reshape(1, 99, 2),
        maps.to_uint16(wanted.points, maps.domain(wanted)),
    )
    x = reps["hidden"].values[0, rows]
    c = cosines(x)[0]
    c[0] = -2
    assert [f["row"] for f in widget.answers.neighbours(0, 0)[0]["found"]] == np.argsort(-c)[:5].tolist()
    widget.selection = [counts.index[0]]
    assert reps["id"].values[widget.selection["row"]].tolist() == [counts.index[0]] * 3
    lost = next(str(i) for i in range(n) if str(i) not in counts)
    with pytest.raises(InputError, match="no sentence in the sample that is shown has the id"):
        widget.selection = [lost]


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
    codes = np.frombuffer(found["drift"][1][1][0], np.uint8).reshape(3, -1)
    assert codes[2, 3] == 255
    assert codes[0, 5] == 255
    assert (np.delete(codes[2], 3) < 255).all()
    assert widget.answers.neighbours(3, 2)[0]["found"] == []
    every = widget.answers.all_neighbours(0, 2)
    assert (every[3] == 40).all()  # none
    assert (np.delete(every, 3, axis=0) < 40).all()
    assert not (every == 3).any()


def test_a_comparison_that_was_opened_says_what_to_do(comparison, tmp_path):
    opened = probes.Comparison.open(comparison.save(tmp_path / "c"))
    widget = opened.explore()
    about = widget.about
    assert np.array_equal(
        np.frombuffer(widget.curves, "<f4"), Explorer(comparison).curve_values.ravel(), equal_nan=True
    )
    assert (about["n"], about["total"], widget.codes, about["measures"]) == (0, 0, b"", ["cka"])
    assert {"maps", "sentences", "alignment", "drift", "umap", "representers"} == set(about["missing"])
    assert "probes.open_representations(path)" in about["missing"]["maps"]
    comm = Comm(widget)
    assert comm.ask(ask="map", model=0, kind="pca")[0]["give"] == "missing"
    found = np.frombuffer(comm.ask(ask="similarity", one=1, other=0, measure="cka")[1][0], "<f4")
    wanted = probes.similarity(
        comparison.representations["near"], comparison.representations["base"], draws=2
    ).value.sel(language="pooled")
    np.testing.assert_allclose(found, wanted.values.ravel(), atol=1e-6)
    assert "was not measured" in comm.ask(ask="similarity", one=1, other=2, measure="cka")[0]["why"]
    widget.save(tmp_path / "v.html")
    opened.representations = comparison.representations
    assert opened.explore().about["n"] == 3 * N


def test_layers_that_are_not_counted_from_zero_are_named(models):
    some = {name: models[name].sel(layer=[0, 2]) for name in ("base", "near")}
    comparison = probes.compare(some, probes=["snr"], draws=5)
    widget = comparison.explore()
    assert widget.about["models"][0] == {"name": "base", "layers": 2, "note": "layers 0, 2"}
    assert any("layers 0, 2" in note for note in widget.about["notes"])
    row = comparison.table.query("model == 'near' and layer == 2 and language == 'pooled'").iloc[0]
    assert widget.curve_values[0, 1, 0, 1, 0] == np.float32(row["value"])


def test_models_of_other_sentences_are_refused(models):
    with pytest.raises(InputError, match="the two hold different sentences"):
        Explorer({"a": models["base"], "b": models["base"].isel(example=slice(10))})
    with pytest.raises(InputError, match="found an empty dict"):
        Explorer({})
    with pytest.raises(InputError, match="found int"):
        Explorer(3)


def test_sentences_in_another_order_are_put_in_one(models):
    mixed = models["near"].isel(example=np.random.default_rng(0).permutation(3 * N))
    one, other = (Explorer({"base": models["base"], "near": m}) for m in (models["near"], mixed))
    np.testing.assert_allclose(one.answers.drift(1), other.answers.drift(1))
    assert one.codes == other.codes


# --- parts ---


def test_each_part_alone(comparison, models):
    assert LayerCurves(comparison, probe="retrieval").parts == ["controls", "curves"]
    assert LayerMap(models["base"]).parts == ["controls", "maps"]
    assert AlignmentMatrix(models, layer=1).layer == 1
    assert SimilarityMatrix(models).parts == ["controls", "similarity"]
    panel = RepresenterPanel(models["base"])
    assert panel.parts == ["controls", "maps", "sentences"]
    assert panel.colour == "representer"


def test_a_panel_of_values_shows_these_values():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 8)) + 2 * np.eye(8)[y]
    values = probes.representers(x[:60], x[60:], labels=y[:60], l2=1e-2)
    panel = RepresenterPanel(values)
    content, (buffer,) = Comm(panel).ask(ask="sentence", row=67, layer=0)
    top = values.top(7, k=5)
    found = content["representers"]
    np.testing.assert_allclose([f["value"] for f in found["excitatory"]], top.query("side == 'excitatory'")["value"])
    np.testing.assert_allclose(np.frombuffer(buffer, "<f4")[:60], values.matrix([7])[0], rtol=1e-5)
    predicted = [panel.about["classes"][c] for c in np.frombuffer(panel.codes, "<i2").reshape(3, 90)[2, 60:]]
    assert predicted == values.predicted.tolist()


# --- a saved page ---


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def embedded(path):
    html = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="layerscope-data">(.*?)</script>', html, re.S)[1])


@pytest.fixture(scope="module")
def saved(comparison, tmp_path_factory):
    comparison._explorer = None
    widget = comparison.explore(layer=1, selection=["2"], colour="representer")
    widget.compared = ["near", "wide"]  # none of them the baseline
    return widget, widget.save(tmp_path_factory.mktemp("s") / "view.html")


def test_nothing_in_a_saved_page_breaks_out_or_loads(saved):
    _, path = saved
    html = path.read_text(encoding="utf-8")
    parsed = Page(html)
    assert parsed.tags.count("script") == 2
    assert html.count("</script") == 2
    assert "alert('x')" in html  # it is there, as text
    assert HOSTILE not in html
    assert not [v for k, v in parsed.attributes if k in ("src", "href", "srcset", "action")]
    # The namespace of SVG is a name that browsers know, not an address that they load.
    assert not re.findall(r"https?://(?!www\.w3\.org/)", html)
    assert not re.search(r"@import|url\(|<link|<iframe|\bimport\s*\(|^export |\bfetch\(", html, re.M)
    policy = next(v for k, v in parsed.attributes if v and "default-src" in v)
    assert policy == "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def test_a_saved_page_holds_what_the_explorer_answers(saved):
    widget, path = saved
    data = embedded(path)
    traits = data["traits"]
    for name in ("codes", "curves", "selected"):
        assert base64.b64decode(traits[name]["bytes"]) == getattr(widget, name)
    assert traits["texts"] == widget.texts
    assert (traits["layer"], traits["models"]) == (1, widget.models)
    assert traits["about"]["static"] is True
    assert "representer" not in traits["about"]["colours"]
    assert traits["colour"] == "label"
    assert traits["about"]["kinds"] == ["pca"]
    assert {"umap", "representers"} <= set(traits["about"]["missing"])
    asks = [json.dumps(a["ask"], sort_keys=True) for a in data["answers"]]
    assert len(asks) == len(set(asks))
    count = pd.Series([a["ask"]["ask"] for a in data["answers"]]).value_counts().to_dict()
    # Of alignment 3 + 3 + 2 + 3 layers; of similarity every model with the baseline, both ways, and what is shown.
    assert count == {"map": 4, "drift": 4, "alignment": 11, "similarity": 8}
    for given in data["answers"]:
        if given["give"]["give"] == "missing":
            assert given["ask"] == {"ask": "drift", "model": 3}  # of another width
            continue
        content, buffers = widget.answer(given["ask"])
        assert given["give"] == content
        assert [base64.b64decode(b) for b in given["buffers"]] == buffers
    near = data["neighbours"]
    assert (near["k"], near["dtype"]) == (5, "uint16")
    assert [m["model"] for m in near["models"]] == [0, 1, 2, 3]
    for one, reps in zip(near["models"], widget.answers.reps, strict=True):
        rows = np.frombuffer(base64.b64decode(one["rows"]), "<u2").reshape(reps.sizes["layer"], 3 * N, 5)
        c = cosines(reps["hidden"].values[1])
        np.fill_diagonal(c, -2)
        np.testing.assert_array_equal(rows[1], np.argsort(-c, axis=1, kind="stable")[:, :5])


def test_what_would_take_too_long_to_save_is_left_out_and_said(models, monkeypatch):
    monkeypatch.setattr(page, "_MOST_FOR_NEIGHBOURS", 1)
    monkeypatch.setattr(page, "_MOST_FOR_ALIGNMENT", 1)
    data = page.contents(Explorer(models))
    assert data["neighbours"] is None
    assert "left out of the saved page" in data["traits"]["about"]["missing"]["alignment"]
    assert any("nearest neighbours" in note for note in data["traits"]["about"]["notes"])
    assert "alignment" not in {a["ask"]["ask"] for a in data["answers"]}


def test_only_an_earlier_page_is_replaced_and_only_when_asked(saved, tmp_path):
    widget, path = saved
    with pytest.raises(InputError, match=r"exists\. Choose another path, or replace it"):
        widget.save(path)
    widget.save(path, overwrite=True)
    other = tmp_path / "thesis.html"
    other.write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is no saved explorer; it is left as it is"):
            widget.save(other, overwrite=overwrite)
    assert other.read_text() == "years of work"
    with pytest.raises(InputError, match="no such folder"):
        widget.save(tmp_path / "no" / "view.html")


# --- display ---


def test_a_picture_stays_where_no_kernel_runs(widget, monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda *a, **k: shown.append((a, k)))
    widget._ipython_display_()
    (bundle,), how = shown[0]
    assert how["raw"]
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    html = shown[1][0][0].data
    assert f'class="lsc-picture" data-of="{widget.about["token"]}"' in html
    png = base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])
    assert png.startswith(b"\x89PNG")
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(png))
    assert 0.01 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.5  # there are lines and points on white
    widget.layer = 0
    shown.clear()
    widget._ipython_display_()
    assert shown[1][0][0].data != html


def test_a_picture_of_little(comparison):
    from probes.views.picture import picture

    for one in (LayerCurves(comparison), LayerMap(bare(1, 1, 1)), AlignmentMatrix(bare(3))):
        assert picture(one, maps=True).startswith(b"\x89PNG")


def test_a_picture_has_a_curve_where_the_probe_has_no_layers(widget, monkeypatch):
    from matplotlib.axes import Axes

    from probes.views.picture import picture

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
    widget.probe, widget.colour = "accuracy", "prediction"
    picture(widget, maps=True)
    assert titles[0].startswith("signal-to-noise ratio")
    assert titles[1] == "base, layer 2, by prediction"


def test_the_package_imports_without_anywidget():
    code = (
        "import sys; sys.modules['anywidget'] = None\n"
        "import probes\n"
        "assert 'probes.widgets' not in sys.modules\n"
        "try:\n    import probes.widgets\n"
        "except probes.DependencyError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the package anywidget, which is not installed: pip install 'layerscope[lab]'" in run.stdout


def test_names_and_labels_of_others_are_escaped_too(tmp_path):
    reps = probes.from_arrays(
        np.random.default_rng(0).normal(size=(1, 20, 3)), label=np.repeat([HOSTILE, "\u2028b"], 10), name=HOSTILE
    )
    path = Explorer({HOSTILE: reps, "b": reps}).save(tmp_path / "v.html")
    html = path.read_text(encoding="utf-8")
    assert html.count("</script") == 2
    assert Page(html).tags.count("script") == 2
    assert "\u2028" not in html
    assert embedded(path)["traits"]["about"]["labels"] == sorted([HOSTILE, "\u2028b"])


def test_a_comparison_that_has_only_maps_of_layers_has_no_curves(models, tmp_path):
    comparison = probes.compare({"base": models["base"]}, probes=["cka"], draws=5)
    widget = comparison.explore()
    assert "all are maps of more than layers" in widget.about["missing"]["curves"]
    assert (widget.about["probes"], widget.probe, widget.language, widget.measure) == ([], "", "", "cka")
    every_answer(widget)
    widget.save(tmp_path / "v.html")
    assert comparison.explore().probe == ""
