import numpy as np
import pandas as pd
import pytest
from shown import LANGUAGES, Comm, N

import probes
from probes.errors import InputError
from probes.widgets import Explorer


def test_only_what_changed_is_sent(widget):
    comm = Comm(widget)
    for layer in (0, 1, 2, 0):
        widget.layer = layer
    assert comm.updated() == [{"layer"}] * 4
    comm.sent.clear()
    comm.hand({"method": "update", "state": {"layer": 1}, "buffer_paths": []})
    assert widget.layer == 1
    assert all(names <= {"layer"} for names in comm.updated())


def test_a_closed_explorer_answers_no_more(widget):
    sent = Comm(widget).sent
    widget.close()
    before = len(sent)
    widget.line.put({"ask": "map", "model": 0, "kind": "pca"})
    widget.wait()
    assert len(sent) == before


def test_selection_goes_both_ways(widget, siblings):
    comm = Comm(widget)
    widget.selection = ["3", 5]
    rows = [3, N + 3, 2 * N + 3, 5, N + 5, 2 * N + 5]
    assert np.frombuffer(widget.selected, "<i4").tolist() == rows
    assert widget.selection["id"].tolist() == ["3"] * 3 + ["5"] * 3
    assert widget.selection["language"].tolist() == LANGUAGES * 2
    assert widget.selection["text"].tolist() == siblings["base"]["text"].values[rows].tolist()
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
        ("models", [], "expected one model or more, each once"),
        ("models", ["base", "base"], "expected one model or more, each once"),
        ("probe", "variability", "probe: 'variability' is not known; there are"),
        ("language", "de", "there are 'pooled', 'en'"),
        ("colour", "weather", "there are 'label', 'language', 'prediction', 'drift', 'representer'"),
        ("kind", "tsne", "there are 'pca', 'umap'"),
        ("compared", ["base"], "expected the names of two models"),
        ("compared", ["base", "x"], "'x' is not known"),
        ("focus", "x", "focus: 'x' is not known"),
        ("measure", "x", "measure: 'x' is not known; there are 'cka'"),
        ("selected", b"\1\0", "expected rows 0 to 119"),
        ("weather", "fine", "unknown setting 'weather'; there are most, seed, latent, parts, layer"),
        ("parts", ["map"], "expected some of 'controls'"),
        ("parts", "maps", "expected some of 'controls'"),
        ("most", 0, "most=0: expected a whole number of at least 1"),
        ("seed", -1, "seed=-1"),
    ],
)
def test_a_choice_that_is_not_there_is_refused(widget, compared, name, value, message):
    if widget.has_trait(name) and name != "parts":
        before = getattr(widget, name)
        with pytest.raises(InputError, match=message):
            setattr(widget, name, value)
        assert getattr(widget, name) == before
    if name != "selected":
        with pytest.raises(InputError, match=message):
            Explorer(compared, **{name: value})


def test_four_maps_are_shown_at_first_and_more_by_choice(siblings):
    five = {**siblings, "fifth": siblings["base"]}
    widget = Explorer(five)
    assert widget.models == list(siblings)
    widget.models = ["fifth", *siblings]
    assert widget.models == ["fifth", *siblings]


def test_state_survives_and_explorers_are_independent(compared):
    compared = probes.Comparison(compared.table, compared.provenance, compared.draws, compared.representations)
    first = compared.explore(layer=1)
    first.models, first.probe, first.colour = ["near", "base"], "snr", "drift"
    first.selection = ["4"]
    second = compared.explore()
    assert (second.layer, second.models, second.probe, second.colour) == (1, ["near", "base"], "snr", "drift")
    assert second.selection["id"].tolist() == ["4"] * 3
    assert second.numbers is first.numbers  # nothing is computed again
    second.layer, second.selection = 0, None
    assert first.layer == 1
    assert len(first.selection) == 3
    third = compared.explore(layer=2, most=30)
    assert third.layer == 2
    assert third.about["n"] <= 30
    assert third.numbers is not first.numbers
    assert third.about["token"] != second.about["token"]
    # What is no longer there is chosen anew.
    second = compared.explore(most=5000)
    second.colour = "label"
    compared.representations = {}
    assert compared.explore().colour == ""


def test_a_step_shows_the_models_of_a_training_at_it(siblings):
    run = probes.series([(0, siblings["base"]), (10, siblings["base"]), (35, siblings["base"])])
    made = probes.compare({"base": siblings["base"], "run": run}, probes=["snr"], draws=5, progress=False)
    widget = Explorer(made)
    assert widget.about["series"] == [{"name": "run", "models": [1, 2, 3], "steps": [0, 10, 35]}]
    assert widget.about["steps"] == [0, 10, 35]
    assert (widget.step, widget.models, widget.focus) == (35, ["base", "run 35"], "run 35")
    widget.step = 10
    assert (widget.models, widget.compared, widget.focus) == (["base", "run 10"], ["base", "run 10"], "run 10")
    assert Explorer(made, step=0).models == ["base", "run 0"]
    with pytest.raises(InputError, match="step=20: not known; there are 0, 10, 35"):
        widget.step = 20
    assert widget.step == 10
    # Where the baseline is the first step, it is compared with still, and shown by the map of the training.
    alone = Explorer(made := probes.compare({"run": run}, probes=["snr"], draws=5, progress=False))
    assert (alone.models, alone.compared) == (["run 35"], ["run 0", "run 35"])
    alone.step = 0
    assert (alone.models, alone.compared, alone.focus) == (["run 0"], ["run 0", "run 0"], "run 0")
    alone.step = 10
    assert (alone.models, alone.compared[0]) == (["run 10"], "run 0")


def test_without_a_training_there_is_no_step(widget):
    assert (widget.about["series"], widget.about["steps"], widget.step) == ([], [], 0)
    with pytest.raises(InputError, match="step=1: not known; there is no series of checkpoints"):
        widget.step = 1
