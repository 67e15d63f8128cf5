"""Sentences in parts: no letter is lost or cut, the colour is that of the tokens; in the report, escaped."""

from html.parser import HTMLParser

import numpy as np
import pytest
from speaking import masking, of_kind, spoken

import probes
from probes.views.said import parts_of, sentences_of


def token(place, start, end, kl):
    top = [[("<b>", 0.5)], [("x", 0.25)]]
    return {"place": place, "start": start, "end": end, "p": [0.5, 0.25], "kl": kl, "top": top}


def test_tokens_of_one_letter_and_marks_are_one_part_and_spaces_have_no_colour():
    text = "a कि猫!"
    tokens = [token(1, 0, 1, 0.5), token(2, 2, 3, 0.2), token(3, 3, 4, 9.0), token(4, 4, 5, 0.1), token(5, 4, 5, 1.0)]
    parts = parts_of({"text": text, "tokens": [*tokens, token(6, 0, 0, 3.0)], "worst": 3})
    assert [p["text"] for p in parts] == ["a", " ", "कि", "猫", "!"]
    assert [p["shade"] for p in parts] == [0.25, 0.0, 1.0, 0.5, 0.0]
    assert [p["worst"] for p in parts] == [False, False, True, False, False]
    assert parts[2]["about"].count("baseline: '<b>' 0.50") == 2
    assert parts[1]["about"] == ""


def test_surprise_is_of_the_smaller_model_and_a_part_has_the_layers_of_the_token_that_moved_most():
    one, two = token(1, 0, 1, 0.5) | {"layers": [[("a", 0.5)], [("b", 0.25)]]}, token(2, 0, 1, 1.0)
    two |= {"p": [0.5, 0.0], "layers": [[("c", 0.5)], [("<i>", 0.25)]]}
    first, second = (parts_of({"text": "猫", "tokens": tokens})[0] for tokens in ([one], [one, two]))
    assert first["surprise"] == pytest.approx(-np.log(0.25) / 10)
    assert first["layers"] == [["0", "'a' 0.50", "'b' 0.25"]]
    assert second["surprise"] == 1.0  # it has no probability
    assert second["layers"] == [["0", "'c' 0.50", "'<i>' 0.25"]]
    assert parts_of({"text": "a b", "tokens": [one]})[1]["layers"] == []


def test_a_first_token_says_that_nothing_predicts_it():
    first = token(0, 0, 1, None) | {"p": [None, None], "top": [[], []]}
    assert parts_of({"text": "a", "tokens": [first]})[0]["about"] == "nothing predicts the first token"


class Shown(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.titles, self.words, self.tags = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.titles += [v for k, v in attrs if k == "title"]

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_shows_them_escaped_and_a_saved_comparison_keeps_them(make_tokenizer, tmp_path):
    tokenizer = masking(lambda words: make_tokenizer(words=["[MASK]", "<script>", *words[1:-1]]))
    models = {"base": of_kind("llama", tokenizer), "<i>other": of_kind("llama", tokenizer, seed=1)}
    corpus = spoken().map(lambda row: {"text": f"<script> {row['text']}"})
    comparison = probes.compare(
        models, corpus, tokenizer=tokenizer, probes=["next_token"], draws=4, timing=False, progress=False
    )
    page = comparison.report(tmp_path / "page.html").read_text(encoding="utf-8")
    shown = Shown(page)
    assert "Tokens that moved most" in shown.words
    assert shown.tags.count("script") == 2  # the page's own
    assert any(title.startswith("KL ") and "baseline: " in title for title in shown.titles)
    opened = probes.Comparison.open(comparison.save(tmp_path / "run"))
    names = {"en": "English"}
    assert sentences_of(opened.provenance, names) == sentences_of(comparison.provenance, names)
    one = sentences_of(opened.provenance, names)["<i>other"][0]
    assert "".join(part["text"] for part in one["parts"]).startswith("<script> ")
    assert sum(part["worst"] for part in one["parts"]) <= 1
    spoken_in = probes.widgets.Explorer(comparison).about["spoken"]
    assert len(spoken_in) in (10, 11)  # the one that is drawn may be one of the worst
    texts = comparison.representations["base"].text.values
    for row, found in spoken_in.items():
        assert [one["model"] for one in found] == [1]
        assert "".join(part[0] for part in found[0]["parts"]) == texts[int(row)]
        assert any(part[4] for part in found[0]["parts"])
    assert sum(found[0]["worst"] >= 0 for found in spoken_in.values()) <= 10


@pytest.mark.parametrize("provenance", [{}, {"tokens": {}}])
def test_a_comparison_without_them_shows_none(provenance):
    assert sentences_of(provenance, {}) == {}
