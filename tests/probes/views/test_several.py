"""What is said and drawn of comparisons on several corpora."""

import numpy as np
import pytest

import probes

CODES = ["en", "sw", "yo"]


def compared(seed, noise, **more):
    rng = np.random.default_rng(seed)
    about = {"id": np.tile(np.arange(60), 3), "language": np.repeat(CODES, 60), "label": np.tile(np.arange(60) % 3, 3)}
    x = np.tile(rng.normal(size=(60, 8)), (3, 1))
    states = {
        name: np.stack([x + rng.normal(size=x.shape) * np.repeat(scale, 60)[:, None] for _ in range(2)])
        for name, scale in {"base <b>": [0.01] * 3, "fine": [0.02] * 3, "poor": noise}.items()
    }
    models = {name: probes.from_arrays(hidden, **about) for name, hidden in states.items()}
    asked = {"pivot": "en", "probes": ["retrieval", "snr", "cka"], "draws": 50, "progress": False} | more
    return probes.compare(models, **asked)


@pytest.fixture(scope="module")
def both():
    # Swahili is lost on both, Yoruba on the first alone.
    return probes.Comparisons({"news": compared(0, [0.01, 5, 5]), "tales": compared(1, [0.01, 5, 0.01])})


def test_words_say_what_is_lost_on_each_and_where_they_differ(both):
    found = both.verdict(tolerance={"retrieval": 0.1})
    first, *alone = str(found).split("on news alone:")
    poor = next(line for line in first.splitlines() if line.startswith("poor"))
    assert "LOST" in poor
    assert "lost on each; on each of them: Swahili (-" in poor
    assert "they differ on: Yoruba (-" in poor
    assert "0 of 2 languages that all have" in poor
    assert "on tales alone:" in alone[0]
    for name, one in both.items():
        assert all(
            sentence in str(found) for sentence in str(one.verdict(tolerance={"retrieval": 0.1})).split("  ")[2:3]
        )
        assert name in str(found)


def test_figures_have_a_column_a_corpus_on_one_scale(both):
    figure = both.plot()
    assert [a.get_title().split(":")[0] for a in figure.axes] == ["news", "tales"] * 2
    for row in (figure.axes[:2], figure.axes[2:]):
        assert row[0].get_ylim() == row[1].get_ylim()
    assert not any(a.get_legend() for a in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["base <b>", "fine", "poor"]
    change = both.plot_change("retrieval")
    heats = [a.collections[0] for a in change.axes if a.get_label() != "<colorbar>"]
    assert len(heats) == 4
    assert len({heat.get_clim() for heat in heats}) == 1
    languages = both.plot_languages(tolerance={"retrieval": 0.1}, models="poor")
    assert [a.get_title() for a in languages.axes] == ["news: poor: lost", "tales: poor: lost"]
    assert languages.axes[0].get_xlim() == languages.axes[1].get_xlim()
    # Lost languages are in both, kept ones in the second alone: both are said.
    assert {"lost", "kept"} <= {text.get_text() for text in languages.legends[0].get_texts()}
    assert len([a for a in both.plot("cka", models="poor").axes if a.get_label() != "<colorbar>"]) == 2
    for draw, message in (
        (lambda: both.plot("norm"), "corpus 'news': probe 'norm' was not measured"),
        (lambda: both.plot_change("cka"), "corpus 'news': cka has no differences"),
        (lambda: both.plot("snr", ax=figure.axes[0]), "ax= takes one panel"),
        (lambda: both.plot_languages("snr"), "'snr' is not judged on every corpus; judged are 'retrieval'"),
    ):
        with pytest.raises(probes.InputError, match=message):
            draw()


def test_the_page_holds_what_holds_on_all_and_the_page_of_each_escaped(both, tmp_path, monkeypatch):
    monkeypatch.setattr("probes.views.several.image", lambda figure: "data:,")
    monkeypatch.setattr("probes.views.several.page_of", lambda table: f"<!DOCTYPE html><p>{table.baseline}")
    page = both.report(tmp_path / "report.html").read_text()
    assert page.count("<iframe") == 2
    assert page.index("What holds on news, tales") < page.index("<iframe")
    assert "base <b>" not in page
    assert page.count('srcdoc="&lt;!DOCTYPE html&gt;') == 2
    assert both.report(tmp_path / "report.html").is_file()  # an earlier report is replaced
