"""Statements marked in their sentences: what is shown, escaped, and what is refused."""

import numpy as np
import pytest
import xarray as xr

import probes
from probes.views.marked import MarkedFacts


def found(text="Ann & <i>Bo</i>: home Oz, trade smith.", spans=((22, 24), (32, 37)), language="en"):
    n = len(spans)
    names = {"subject": "ann", "relation": "<b>lives", "object": "oz", "id": "1", "of_language": language, "text": text}
    coords = {k: ("statement", np.array([v] * n, object)) for k, v in names.items()}
    coords |= {k: ("statement", [s[i] for s in spans]) for i, k in enumerate(("start", "end"))}
    values = np.array([[0.25, 0.9], [0.5, np.nan]])[:, :n]
    return xr.Dataset({"chosen": (("layer", "statement"), values)}, coords=coords | {"layer": [0, 6]})


def test_spans_are_marked_and_all_text_is_escaped():
    html = MarkedFacts(found(), layer=0).html
    assert "Ann &amp; &lt;i&gt;Bo&lt;/i&gt;: home <mark" in html
    assert ">Oz</mark>, trade <mark" in html
    assert ">smith</mark>." in html
    assert "<i>" not in html
    assert "<b>" not in html
    assert "ann, &lt;b&gt;lives, oz: 0.25; ann, &lt;b&gt;lives, oz: 0.90" in html
    assert "0.64" in html  # the deeper, the more
    assert "not known" in MarkedFacts(found())._repr_html_()
    assert 'dir="auto"' in html


def test_of_spans_that_overlap_one_is_marked_and_both_are_told():
    html = MarkedFacts(found(spans=((22, 24), (22, 24))), layer=0).html
    assert html.count("<mark") == 1
    assert "0.25" in html
    assert "0.90" in html


def test_what_is_left_out_is_said_and_what_is_not_there_is_refused():
    two = xr.concat([found(), found(language="ar")], "statement")
    assert MarkedFacts(two, most=1).html.count("<mark") == 2
    assert "1 more sentences are not shown" in MarkedFacts(two, most=1).html
    assert MarkedFacts(two, language="ar").html.count("<mark") == 2
    for how, says in (
        ({"layer": 3}, "layer=3 was not measured; there are 0, 6"),
        ({"language": "fr"}, "language='fr': there are statements in 'en'"),
    ):
        with pytest.raises(probes.InputError, match=says):
            MarkedFacts(found(), **how)
    with pytest.raises(probes.InputError, match=r"expected a result of probes\.facts; found str"):
        MarkedFacts("x")
