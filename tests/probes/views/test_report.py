import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from judged import right_answers, table_of

import probes
from probes.costs import COLUMNS
from probes.results.cells import LAYERS, NO_LAYER
from probes.results.verdict import verdict
from probes.views.language_names import language_names
from probes.views.report import write

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


def test_every_number_on_the_first_screen_is_that_of_the_table(tmp_path):
    rng = np.random.default_rng(0)
    codes = ["fra_Latn", "swh_Latn", "arb_Arab", "fin_Latn"]
    losses = [([0.0, 0.3, 0.1, 0.0], 0.01), (0.0, 0.02), ([-0.15, 0.2, -0.15, 0.0], 0.16)]
    table = table_of(right_answers(rng, 400, 4, 0.8, losses), rng, names=codes)
    about = {"p_adjusted": "", "seed": 0, "pivot": None, "drawn": "", "versions": {}}
    table.provenance |= about | {"corpus": {"cautions": [], "languages": {}}}
    table.models = pd.DataFrame({"model": [f"m{i}" for i in range(4)]}).reindex(columns=["model", *COLUMNS])
    table.models[["bytes", "stored_bytes", "stored_as"]] = [[4e8, b, "packed"] for b in (4e8, 1e8, 2e8, 3.5e8)]
    table.models[["parameters", "embeddings", "speed_32"]] = [[100, 80, s] for s in (1, 2, 0.5, 1.2)]
    table.models["speed_32_low"], table.models["speed_32_high"] = (table.models["speed_32"] * f for f in (0.9, 1.1))
    (tmp_path / "x").mkdir()
    page = write(table, tmp_path / "x" / "report.html").read_text(encoding="utf-8")
    values = table.table.set_index(["model", "language"])["value"]
    found = table.once("none", lambda: verdict(table)).languages.set_index(["model", "language"])
    names = dict(zip(language_names(codes), codes, strict=True)) | {"all languages together": "pooled"}
    said = dict(re.findall(r"<b>(m\d)</b>(.*?)</ul>", page, re.DOTALL))
    assert len(said) == 3
    number, checked = r"[+-][\d.]+", 0
    for model, text in said.items():
        for name, change, low, high in re.findall(
            rf"({'|'.join(names)}) ({number})(?: \[({number}), ({number})\])?", text
        ):
            gap = 100 * (values[model, names[name]] - values["m0", names[name]])
            ends = 100 * found.loc[(model, names[name]), ["low", "high"]].to_numpy(float)
            wanted = [gap, *ends] if low else [gap]
            for shown, exact in zip([change, low, high], wanted, strict=False):
                assert float(shown) == pytest.approx(exact, abs=0.051 if "." in shown else 0.51)
            checked += 1
        for count, of, state in re.findall(r"(\d+) of (\d+) languages (lost|gained)", text):
            alone = found.loc[model].drop("pooled")
            assert (int(count), int(of)) == ((alone["state"] == state).sum(), len(alone))
        row = table.models.set_index("model").loc[model]
        assert f"{row['stored_bytes'] / 1e6:.1f} MB ({row['stored_bytes'] / 4e6:.2g} %), packed" in text
        faster, slower = f"{row['speed_32']:.2g}x faster", f"{1 / row['speed_32']:.2g}x slower"
        assert (faster if row["speed_32"] > 1 else slower) in text
    assert checked >= 5


def test_the_summary_tells_layer_0_from_the_output(page, comparison):
    summary = comparison.summary()
    rows = re.findall(r'<tr[^>]*><td class="text">(\w+)</td><td class="text">(?:higher|lower)</td><td>(\w+)</td>', page)
    wanted = [(r.probe, "output" if r.layer == NO_LAYER else str(r.layer)) for r in summary.itertuples()]
    assert rows == wanted
    assert "0" in {layer for _, layer in rows}
