"""Comparisons on several corpora: each as if it were alone, and what is said of all."""

import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from planted import parallel_corpus

import probes

ABOUT = {"pivot": "en", "probes": ["retrieval", "snr"], "draws": 20, "progress": False, "timing": False}
WORDS = ["a", "the", "red", "big", "small", "dog", "cat", "bird", "sat", "ran", "sang", "on", "under", "over", "mat"]


def corpus(seed, languages=("en", "fr"), count=12):
    rows = [(i, language) for language in languages for i in range(count)]
    text = [" ".join(WORDS[(7 * i + 3 * k * seed + len(x)) % len(WORDS)] for k in range(2 + i % 4)) for i, x in rows]
    frame = pd.DataFrame({"id": [str(i) for i, _ in rows], "language": [x for _, x in rows], "text": text})
    return probes.load_corpus(frame.assign(label=[str(i % 2) for i, _ in rows]))


@pytest.fixture(scope="module")
def made(tiny_models, make_tokenizer, tmp_path_factory):
    models = {"base": tiny_models("BertModel"), "small": tiny_models("BertModel", num_hidden_layers=2)}
    corpora = {"news": corpus(1), "tales/2": corpus(2, languages=("fr", "en", "de"))}
    how = ABOUT | {"tokenizer": make_tokenizer()}
    store = tmp_path_factory.mktemp("states")
    return models, corpora, how, store, probes.compare(models, corpora, store=store, **how)


def test_each_corpus_is_as_if_it_were_compared_alone(made):
    models, corpora, how, store, both = made
    assert list(both) == list(corpora)
    for name, own in corpora.items():
        alone = probes.compare(models, own, **how)
        pd.testing.assert_frame_equal(both[name].table, alone.table, check_exact=True)
        rows = both.to_dataframe().query("corpus == @name").drop(columns="corpus").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone.table, check_dtype=False)
    assert list(both.table)[:3] == ["corpus", "model", "layer"]
    assert set(both.summary()["corpus"]) == set(both.models["corpus"]) == set(corpora)
    assert sorted(p.name for p in store.iterdir()) == ["news", "tales%2F2"]  # states kept apart
    assert {p.name for p in (store / "news").iterdir()} == {"base.zarr", "small.zarr"}


def test_where_nothing_is_renamed_they_are_saved_and_opened_too(made, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    url = made[-1].save("memory://bucket/run")
    pd.testing.assert_frame_equal(probes.Comparisons.open(url).table, made[-1].table, check_dtype=False)
    with pytest.raises(probes.InputError, match=f"{url} already holds a run"):
        made[-1].save(url)
    with pytest.raises(probes.InputError, match=rf"{url}/news: expected corpora\.json in it.* it holds one comparison"):
        probes.Comparisons.open(f"{url}/news")


def test_saved_and_opened_grown_and_turned_they_are_what_each_is(made, tmp_path, tiny_models, make_tokenizer):
    _, corpora, _, store, both = made
    opened = probes.Comparisons.open(both.save(tmp_path / "run"), store=store)
    pd.testing.assert_frame_equal(opened.table, both.table, check_dtype=False)
    other = tiny_models("BertModel", intermediate_size=24)
    grown = opened.add("other", other, tokenizer=make_tokenizer(), corpus=corpora, timing=False, progress=False)
    turned = grown.against("small")
    for name in corpora:
        alone = both[name].add("other", other, tokenizer=make_tokenizer(), timing=False, progress=False)
        pd.testing.assert_frame_equal(grown[name].table, alone.table)
        pd.testing.assert_frame_equal(turned[name].table, alone.against("small").table)
    assert turned.baseline == "small"
    with pytest.raises(probes.InputError, match="already holds a run"):
        both.save(tmp_path / "run")
    with pytest.raises(probes.InputError, match=r"holds comparisons on several corpora. Open them with probes.Compar"):
        probes.Comparison.open(tmp_path / "run")
    with pytest.raises(probes.InputError, match=r"it holds one comparison: open it with probes.Comparison.open"):
        probes.Comparisons.open(tmp_path / "run" / "news")
    both["news"].against("small").save(tmp_path / "run" / "news", overwrite=True)
    with pytest.raises(probes.InputError, match=r"this is not the comparison that corpora.json belongs to"):
        probes.Comparisons.open(tmp_path / "run")


@pytest.mark.parametrize(
    ("corpora", "models", "message"),
    [
        ({}, {}, "expected at least one corpus by name"),
        ({"a": "text.csv"}, {}, "corpus 'a': expected a datasets.Dataset, found str"),
        ({"": corpus(1)}, {}, "corpus '': expected a name"),
        (
            {"a": corpus(1), "b": corpus(1, languages=("eng_Latn", "swh_Latn"))},
            {},
            r"no language in common, which are matched by their codes .a: 'en', 'fr'; b: 'eng_Latn', 'swh_Latn'.*"
            "'en' of a and 'eng_Latn' of b are both English",
        ),
        ({"a": corpus(1), "b": corpus(1, languages=("fr", "de"))}, {}, "corpus 'b': pivot 'en': no such language"),
        (
            {"a": corpus(1)},
            {"a": probes.from_arrays([[1.0], [2.0]])},
            "model 'a': Representations are of one corpus.*probes.Comparisons",
        ),
    ],
)
def test_bad_input_is_refused_before_a_model_is_run(corpora, models, message, monkeypatch):
    monkeypatch.setattr("probes.comparing.load_checkpoint", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(probes.InputError, match=message):
        probes.compare(models or {"a": "bundled"}, corpora, pivot="en")


def test_tables_for_papers_have_the_corpus_first(made):
    def cells(table):
        lines = [line for line in table.splitlines() if line.startswith("| ") and ":--" not in line]
        header, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
        return pd.DataFrame(rows, columns=header)

    both = made[-1]
    found = cells(both.to_markdown(["snr"]))
    assert found.columns[:3].tolist() == ["corpus", "probe", "model"]
    assert set(found.columns[3:]) == {"all", "English", "French", "German"}
    assert (found.loc[found["corpus"] == "news", "German"] == "").all()
    for name in both:
        alone = cells(both[name].to_markdown(["snr"]))
        mine = found[found["corpus"] == name].reset_index(drop=True)[list(alone)]
        pd.testing.assert_frame_equal(mine, alone)
    latex = both.to_latex(["snr"], label="tab:snr")
    assert r"\begin{tabular}{lllrrrr}" in latex
    assert r"\multirow[t]{2}{*}{tales/2}" in latex
    assert latex.count("At the last layer of each model") == 1
    with pytest.raises(probes.InputError, match="corpus 'news': languages='de'"):
        both.to_markdown(languages=["de"])


def test_steps_are_those_of_each_corpus(made):
    models, corpora, how, *_ = made
    series = probes.series([(k, model) for k, model in enumerate(models.values())])
    both = probes.compare({"run": series}, corpora, **how | {"probes": ["snr"]})
    for table in (both.steps(against="before"), both.since()):
        assert next(iter(table)) == "corpus"
    for name in corpora:
        rows = both.steps().query("corpus == @name").drop(columns="corpus").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, both[name].steps().reset_index(drop=True), check_dtype=False)


def test_comparisons_made_apart_are_joined_where_they_are_of_the_same_models(made):
    both = made[-1]
    joined = probes.Comparisons(dict(both))
    pd.testing.assert_frame_equal(joined.table, both.table)
    with pytest.raises(probes.InputError, match="expected the same models and baseline, found 'base', 'small'"):
        probes.Comparisons({"a": both["news"], "b": both["news"].against("small")})
    with pytest.raises(probes.InputError, match="corpus 'a': expected a Comparison, found int"):
        probes.Comparisons({"a": 3})
    assert both.get("other") is None
    with pytest.raises(KeyError, match="no corpus 'other'; there are 'news', 'tales/2'"):
        both["other"]
    with pytest.raises(AttributeError, match=r"'explore' is of one corpus: say which, as in comparisons\['news'\]"):
        both.explore()
    with pytest.raises(probes.InputError, match=r"corpus=...: there is no corpus 'x'"):
        both.add("more", "bundled", corpus={"x": parallel_corpus()})
