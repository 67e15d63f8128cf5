"""Poolings that are made of functions: as ours where they do the same, and what is said where they cannot be."""

import numpy as np
import pandas as pd
import pytest
from capturing import capture, make_corpus

import probes
from probes.__main__ import main

TEXTS = ["the red dog sat on the mat", "a cat", "she ran", "it"]


@probes.pooling
def own_mean(x):
    """The mean, once more."""
    return x.mean(axis=0)


@probes.pooling(means="the largest of each feature", words=True)
def largest(x):
    return x.max(axis=0)


@pytest.fixture(scope="module")
def tiny(tiny_models, make_tokenizer):
    return tiny_models("BertModel"), make_tokenizer()


def test_a_mean_is_ours_and_a_function_stays_one(tiny, tmp_path):
    ours, own = (capture(*tiny, make_corpus(TEXTS), pooling=p, batch_size=3) for p in ("mean", own_mean))
    np.testing.assert_allclose(own.hidden, ours.hidden, atol=1e-5)
    assert own.attrs["pooling"].startswith("own_mean(")
    assert own.attrs["pooling_means"] == "The mean, once more.; of tokens"
    np.testing.assert_array_equal(own_mean(np.eye(4)), np.full(4, 0.25))
    by_name = capture(*tiny, make_corpus(TEXTS), pooling="own_mean", store=tmp_path / "s.zarr")
    np.testing.assert_allclose(by_name.hidden, own.hidden, atol=1e-5)


def test_it_is_given_what_a_text_alone_has_of_tokens_or_words(tiny):
    corpus = make_corpus(TEXTS)
    each = capture(*tiny, corpus, tokens=True)
    ends = np.cumsum(each.token_count.values)
    found = capture(*tiny, corpus, pooling=largest)
    for text, (end, count) in enumerate(zip(ends, each.token_count.values, strict=True)):
        wanted = each.tokens.values[:, end - count : end].max(axis=1)  # here each token is a word
        np.testing.assert_allclose(found.hidden[:, text], wanted, atol=1e-5)
    assert found.attrs["pooling_means"] == "the largest of each feature; of words"


def test_states_are_captured_again_where_its_code_is_another(tiny, tmp_path):
    def made(by):
        space = {}
        exec(f"def scaled(x):\n    return {by} * x.mean(axis=0)", space)
        return probes.pooling(space["scaled"])

    one, two = made(1), made(2)
    first = capture(*tiny, make_corpus(TEXTS), pooling=one, store=tmp_path / "s.zarr")
    before = first.hidden.values
    with pytest.warns(probes.LayerscopeWarning, match="captured from another model, corpus or settings"):
        second = capture(*tiny, make_corpus(TEXTS), pooling=two, store=tmp_path / "s.zarr")
    np.testing.assert_allclose(second.hidden, 2 * before, rtol=1e-5)


def test_a_comparison_by_it_is_saved_and_goes_on(tiny, tmp_path):
    rows = pd.DataFrame({"id": range(4), "language": "en", "text": TEXTS, "label": list("abab")})
    corpus, (model, tokenizer) = probes.load_corpus(rows), tiny
    how = {"tokenizer": tokenizer, "probes": ["norm"], "draws": 4, "timing": False, "progress": False}
    made = probes.compare({"a": model}, corpus, pooling=largest, store=tmp_path / "states", **how)
    opened = probes.Comparison.open(made.save(tmp_path / "run"), store=tmp_path / "states")
    grown = opened.add("b", model, tokenizer=tokenizer, corpus=corpus, timing=False, progress=False)
    assert grown.provenance["models"]["b"]["pooling"] == largest.name
    assert (grown.table["difference"].dropna() == 0).all()
    opened.provenance["asked"]["settings"]["pooling"] = "gone(12345678)"
    with pytest.raises(probes.InputError, match=r"made with pooling=gone.12345678., .*give it as pooling=\.\.\."):
        opened.add("b", model, tokenizer=tokenizer, corpus=corpus)


def a_number(x):
    return float(x.sum())


def a_matrix(x):
    return x


def a_word(x):
    return ["word"]


def all_tokens(x):
    return x[:, 0]


def raises(x):
    return x[1]


def mean(x):
    return x[0]


def fails_later(x):
    return x[0] if len(x) < 7 else x[99]


def grows_later(x):
    return x[0] if len(x) < 7 else x.ravel()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[0], "expected a function with a name, made by def"),
        (mean, "'mean' is a pooling of layerscope: give the function another name"),
        (a_number, "pooling a_number of a text of 1 token and 8 features: expected one vector of numbers, found float"),
        (a_matrix, r"expected one vector of numbers, found an array of shape .1, 8.\. Return one, as by"),
        (a_word, "expected one vector of numbers, found an array of shape"),
        (raises, "pooling raises of a text of 1 token and 8 features raised IndexError: index 1 is out of bounds"),
        (all_tokens, "on planted texts of 1, 2 and 5 tokens: expected vectors of one length, found 1, 2, 5 numbers"),
    ],
)
def test_what_is_wrong_with_it_is_said_when_it_is_made(function, message):
    with pytest.raises(probes.InputError, match=message):
        probes.pooling(function)


def test_what_is_wrong_with_it_on_real_texts_is_said_there(tiny):
    for function, message in (
        (fails_later, "pooling fails_later of a text of 7 tokens and 12 features raised IndexError"),
        (grows_later, "pooling grows_later of a text of .* tokens: expected as many numbers as of other texts"),
    ):
        with pytest.raises(probes.InputError, match=message):
            capture(*tiny, make_corpus(TEXTS), pooling=probes.pooling(function))
    with pytest.raises(probes.InputError, match=r"a function is made a pooling by @probes.pooling, and this"):
        capture(*tiny, make_corpus(TEXTS), pooling=raises)
    with pytest.raises(probes.InputError, match="pooling='meen' is not known"):
        capture(*tiny, make_corpus(TEXTS), pooling="meen")


def test_the_command_line_takes_the_one_of_a_module_that_is_named(tmp_path, monkeypatch, capsys, tiny_folder):
    monkeypatch.setattr("probes.views.report.image", lambda figure: "data:,")
    monkeypatch.chdir(tmp_path)
    code = "import probes\n@probes.pooling\ndef last_two(x):\n    return x[-2:].mean(0)\ndef plain(x):\n    return x[0]"
    (tmp_path / "poolings_of_mine.py").write_text(code)
    pd.DataFrame({"id": range(4), "language": "en", "text": TEXTS}).to_csv("text.csv", index=False)
    given = ["compare", f"a={tiny_folder}", "--corpus", "text.csv", "--probes", "norm", "--draws", "4", "--no-timing"]
    assert main([*given, "--pooling", "poolings_of_mine:last_two", "--out", "run"]) == 0
    assert probes.Comparison.open("run").provenance["models"]["a"]["pooling"].startswith("last_two(")
    capsys.readouterr()
    for name, message in (
        ("poolings_of_mine:plain", "expected a function 'plain' in it that is made a pooling by @probes.pooling"),
        ("nowhere:last_two", "the module 'nowhere' cannot be imported (ModuleNotFoundError"),
    ):
        assert main([*given, "--pooling", name, "--out", "other"]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*given, "--pooling", "meen", "--out", "other"])
    assert "or MODULE:FUNCTION; found 'meen'" in capsys.readouterr().err
