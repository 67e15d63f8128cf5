import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import probes
from probes.results.cells import LAYERS, NO_LAYER

HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.text, self.scripts = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action")]

    def handle_data(self, data):
        (self.scripts if self.lasttag == "script" else self.text).append(data)


@pytest.fixture(scope="module")
def comparison():
    rng = np.random.default_rng(0)
    label = np.tile(np.repeat([HOSTILE, "b"], 15), 2)
    language = np.repeat(["<b>en</b>", "ar"], 30)
    text = np.where(language == "ar", "مرحبا", HOSTILE)
    make = lambda scale: probes.from_arrays(  # noqa: E731
        rng.normal(size=(2, 60, 8)) + scale * (label == "b")[:, None],
        id=np.tile(np.arange(30), 2),
        language=language,
        label=label,
        text=text,
    )
    return probes.compare({HOSTILE: make(1.0), "b & c": make(2.0)}, pivot="ar")


@pytest.fixture(scope="module")
def page(comparison, tmp_path_factory):
    return comparison.report(tmp_path_factory.mktemp("r") / "report.html").read_text(encoding="utf-8")


def test_text_of_others_is_escaped(page):
    parsed = Page(page)
    assert parsed.tags.count("script") == 2  # the data and what draws it
    assert "b" in parsed.tags  # the parser does see tags
    assert "<b>en</b>" not in page
    assert HOSTILE in "".join(parsed.text)
    assert not any("<script>alert" in text for text in parsed.scripts)
    assert data_of(page)["models"] == [HOSTILE, "b & c"]


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_what_an_interval_is_for_is_said_of_each_probe(comparison, page):
    wanted = {name: about["interval"] for name, about in comparison.provenance["probes"].items()}
    assert len(set(wanted.values())) > 1
    for name, interval in wanted.items():
        row = page[page.index(f'<tr><td class="text">{name}</td><td class="prose">') :]
        assert f'<td class="prose">{interval or "none"}</td>' in row[: row.index("</tr>")]


def test_nothing_is_loaded_from_outside(page):
    links = Page(page).links
    assert links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links)
    assert not re.search(r"@import|url\(|<link|<iframe", page)


def test_every_value_of_the_table_is_there(page, comparison):
    table = data_of(page)["table"]
    assert list(table) == list(comparison.table)
    for column in comparison.table:
        codes, names = table[column]["codes"], table[column].get("names")
        wanted = comparison.table[column]
        if column in LAYERS:
            wanted = wanted.where(wanted != NO_LAYER)
        if names is not None:
            assert [names[code] for code in codes] == wanted.fillna("").astype(str).tolist()
        else:
            there = [np.nan if code is None else float(code) for code in codes]
            np.testing.assert_allclose(there, wanted.astype("Float64").to_numpy(float, na_value=np.nan), rtol=1e-3)


def test_maps_hold_the_differences_of_all_languages_and_layers_at_once(page, comparison):
    data = data_of(page)
    adjusted = comparison.adjusted(["layer", "language"])
    for probe, cells in data["maps"].items():
        about = comparison.provenance["probes"][probe]
        rows = adjusted[(adjusted["probe"] == probe) & (adjusted["language"] != "pooled")]
        rows = rows[rows["model"] != comparison.baseline]
        shown = rows["value" if about["compares"] else "difference"]
        there = [np.nan if x is None else x for x in cells["shown"]]
        np.testing.assert_allclose(there, shown.replace([np.inf, -np.inf], np.nan), rtol=1e-3)
    assert "alignment_gap" in data["maps"]
    assert "cka" not in data["maps"]  # which has more to a number than language and layer


def test_the_verdict_stands_first(page, comparison):
    text = "".join(Page(page).text)
    assert text.index("What compression did to") < text.index("Layer by layer") < text.index("All values")
    assert comparison.verdict().state("b & c") in text


def test_without_anything_to_judge_by_it_says_why(comparison, tmp_path):
    unjudged = probes.compare(comparison.representations, probes=["norm"]).report(tmp_path / "report.html")
    assert "No verdict: there is nothing to judge by" in unjudged.read_text(encoding="utf-8")


def test_where_the_numbers_come_from_is_there(page, comparison):
    for version in ("torch", "transformers", "numpy", "layerscope"):
        assert f"<code>{version} {comparison.provenance['versions'][version]}</code>" in page
    for about in ("Seed: 0", "200 bootstrap draws", "Westfall and Young", "arXiv 2210.10041"):
        assert about in page


def test_right_to_left_text_is_set_by_its_own_direction(page):
    assert '<td class="prose" dir="auto">مرحبا</td>' in page


def test_an_earlier_report_is_replaced_and_nothing_else(comparison, tmp_path):
    path = comparison.report(tmp_path / "report.html")
    comparison.report(path)
    path.write_text("my notes", encoding="utf-8")
    with pytest.raises(probes.InputError, match="exists and is no layerscope report; it is left as it is"):
        comparison.report(path)
    assert path.read_text(encoding="utf-8") == "my notes"
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]


def test_a_missing_folder_is_named(comparison, tmp_path):
    with pytest.raises(probes.InputError, match="no such folder"):
        comparison.report(tmp_path / "nowhere" / "report.html")


def test_one_model_has_a_report_without_differences(comparison, tmp_path):
    name, reps = next(iter(comparison.representations.items()))
    alone = probes.compare({name: reps}, pivot="ar")
    html = alone.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Language by language" not in html


def test_the_same_comparison_gives_the_same_bytes(models, tmp_path):
    reports = [probes.compare(models, probes=["snr"]).report(tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert reports[0] == reports[1]
