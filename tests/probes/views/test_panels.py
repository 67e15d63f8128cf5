import numpy as np
from shown import Comm

import probes
from probes.widgets import AlignmentMatrix, LayerCurves, LayerMap, RepresenterPanel, SimilarityMatrix


def test_each_part_alone(compared, siblings):
    assert LayerCurves(compared, probe="retrieval").parts == ["controls", "curves"]
    assert LayerMap(siblings["base"]).parts == ["controls", "maps"]
    assert AlignmentMatrix(siblings, layer=1).layer == 1
    assert SimilarityMatrix(siblings).parts == ["controls", "similarity"]
    panel = RepresenterPanel(siblings["base"])
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
    assert panel.about["first"] == "the head's input"
    predicted = [panel.about["classes"][c] for c in np.frombuffer(panel.codes, "<i2").reshape(3, 90)[2, 60:]]
    assert predicted == values.predicted.tolist()
