import base64
import json
import re

import numpy as np
import pandas as pd
import pytest
from shown import HOSTILE, Comm, N, Page, bare, cosines, embedded, every_answer

import probes
from probes.errors import InputError
from probes.views import page
from probes.widgets import Explorer


@pytest.fixture(scope="module")
def saved(compared, tmp_path_factory):
    widget = Explorer(compared, layer=1, selection=["2"], colour="representer")
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
    for one, reps in zip(near["models"], widget.scene.reps, strict=True):
        rows = np.frombuffer(base64.b64decode(one["rows"]), "<u2").reshape(reps.sizes["layer"], 3 * N, 5)
        c = cosines(reps["hidden"].values[1])
        np.fill_diagonal(c, -2)
        np.testing.assert_array_equal(rows[1], np.argsort(-c, axis=1, kind="stable")[:, :5])


@pytest.mark.parametrize(
    ("fits", "held"),
    # 4,800 pairs of sentences in two languages, 27 features in all models.
    [(1, [1, 2]), (2 * 4800 * 27, [0, 1, 2]), (10**9, [0, 1, 2])],
)
def test_the_alignment_of_the_last_layer_is_always_saved_and_of_others_as_fits(
    siblings, monkeypatch, tmp_path, fits, held
):
    monkeypatch.setattr(page, "MOST_FOR_ALIGNMENT", fits)
    widget = Explorer(siblings, layer=0)
    data = embedded(widget.save(tmp_path / "v.html"))
    every = {(a["ask"]["model"], a["ask"]["layer"]): a for a in data["answers"] if a["ask"]["ask"] == "alignment"}
    assert len(every) == 3 + 3 + 2 + 3  # there is an answer of each, be it why there is none
    there = {key for key, a in every.items() if a["give"]["give"] == "alignment"}
    assert {(0, 2), (1, 2), (2, 1), (3, 2)} <= there  # each model's last
    for key in there:
        content, buffers = widget.answer(every[key]["ask"])
        assert every[key]["give"] == content
        assert [base64.b64decode(b) for b in every[key]["buffers"]] == buffers
    layers = sorted({layer for _, layer in there})
    notes = [note for note in data["traits"]["about"]["notes"] if "alignment" in note]
    assert layers == held  # the last of the short model is its layer 1
    assert bool(notes) == (len(there) < len(every)) == (fits < 10**9)
    if not notes:
        return
    said = f"alignment of languages at layers {', '.join(map(str, layers[:-1]))} and {layers[-1]}."
    assert said in notes[0]
    assert all(said in every[key]["give"]["why"] for key in every.keys() - there)
    if fits > 1:
        assert {(0, 0), (1, 0), (2, 0), (3, 0)} <= there  # the layer that was shown comes next


def test_layers_are_taken_so_that_the_first_few_lie_far_apart():
    for deepest in (1, 2, 3, 13, 49):
        found = page._spread(deepest)
        assert sorted(found) == list(range(deepest))
        assert found[:2] == [deepest - 1, 0][: len(found)] or deepest == 1


def test_what_would_take_too_long_to_save_is_left_out_and_said(siblings, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "MOST_FOR_NEIGHBOURS", 1)
    data = embedded(Explorer(siblings).save(tmp_path / "v.html"))
    assert data["neighbours"] is None
    assert any("nearest neighbours" in note for note in data["traits"]["about"]["notes"])


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
