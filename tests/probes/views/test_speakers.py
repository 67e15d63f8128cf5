import numpy as np
import pytest
from shown import Comm, N

from probes.widgets import Explorer


def test_representers_are_those_of_the_probe(widget, siblings):
    comm = Comm(widget)
    row = N - 1  # of the split "test"
    content, buffers = comm.ask(ask="sentence", row=row, layer=1)
    first, second = [c for c, _ in comm.given()]
    assert first["representers"] is None
    assert "being computed" in first["why"]
    assert second is content
    assert all("more" not in c for c, _ in comm.given())
    values = widget.numbers.speakers.fitted[0]
    assert values.certificate.relative_error < 1e-6
    reps = siblings["base"]
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


def test_why_there_are_no_representers_is_kept_and_said(siblings, monkeypatch):
    broken = siblings["base"].copy(deep=True)
    broken["logits"][3] = np.nan
    comm = Comm(Explorer(broken))
    content, _ = comm.ask(ask="sentence", row=N - 1, layer=0)
    assert content["representers"] is None
    assert "not finite" in content["why"]
    assert len(content["neighbours"][0]["found"]) == 5
