"""Facts read from a decoder's layers: out of the box, against shuffled graphs, between two models; messages."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

import probes
from probes.measures.attribution.facts import READ
from probes.states.graphs import Graph

HOW = {"layers": [3], "languages": ["en"], "draws": 50, "progress": False}


@pytest.fixture(scope="module")
def graph(request):
    whole = probes.load_graph(request.config.rootpath / "data" / "world")
    subjects = sorted(set(whole.sentences["group"]))[:64]
    there = np.flatnonzero(np.isin(np.asarray(whole.sentences["group"], object), subjects))
    return replace(whole, sentences=whole.sentences.select(there))


@pytest.fixture(scope="module")
def loaded():
    return probes.load_checkpoint("bundled-decoder")


@pytest.fixture(scope="module")
def found(loaded, graph):
    return probes.facts(*loaded, graph, **HOW)


def test_relations_are_read_out_of_the_box(found):
    assert found.value.dims == ("layer", "language")
    one = found.sel(layer=3, language="en")
    assert float(one.low) > 0.5
    assert float(one.low) <= float(one.value) <= float(one.high)
    nats = np.log(one.perplexity)
    assert float(nats.sel(reader="words") - nats.sel(reader="relations")) == pytest.approx(float(one.value), abs=1e-6)
    assert float(one.over_none_low) > 0  # states say which relation it is
    assert float(one.value - one.without_states) == pytest.approx(float(one.over_none))
    for text, start, end in zip(found.text.values, found.start.values, found.end.values, strict=True):
        assert text[start - 1] == " "
        assert text[end] in ",."
    assert float((found.chosen >= READ).mean()) > 0.6  # by chance of a quarter
    assert float(found.posterior.min()) >= 0
    assert float(found.posterior.max()) <= 1 + 1e-6


def test_of_a_shuffled_graph_nothing_is_saved(loaded, graph):
    rng = np.random.default_rng(0)
    of = {}
    for _, relation, there in graph.facts:
        of.setdefault(relation, []).append(there)
    shuffled = []
    for subject, relation, _ in graph.facts:  # none of its own, which is stated by chance
        own = {there for _, there in graph.about(subject)}
        shuffled.append((subject, relation, rng.choice([o for o in of[relation] if o not in own])))
    none = probes.facts(*loaded, Graph(graph.aliases, shuffled, graph.sentences), **HOW)
    assert none.sizes["statement"] == 0
    assert float(none.value.sel(language="en")[0]) < 0.03
    assert float(none.low.sel(language="en")[0]) < 0


def test_no_read_out_is_tested_on_a_subject_that_it_has_learned_from(loaded, graph, monkeypatch):
    module = importlib.import_module("probes.measures.attribution.facts")
    read, seen = module._sentences, []

    def spied(graph, language, rows, *rest):
        seen.append({graph.sentences["group"][row] for row in rows})
        return read(graph, language, rows, *rest)

    def unfitted(given, states, relations):
        spans = len(given[1].sentence)
        return np.zeros((2, len(given[1].words), len(states[0]) + 1)), np.zeros((2, len(states[0]), spans))

    monkeypatch.setattr(module, "_sentences", spied)
    monkeypatch.setattr(module, "_of_fold", unfitted)
    found = probes.facts(*loaded, graph, **HOW | {"languages": ["en", "fr"]})
    folds = list(zip(seen[::2], seen[1::2], strict=True))
    assert len(folds) == 6
    assert all(not learned & tested for learned, tested in folds)
    assert [tested for _, tested in folds[:3]] == [tested for _, tested in folds[3:]]  # nor on a translation
    assert found.units.sel(language="pooled") == 64  # draws are of subjects too


def test_what_is_lost_is_listed(found):
    other = found.copy(deep=True)
    first = int(np.flatnonzero(found.chosen[0].values >= READ)[0])
    other["chosen"][0, first] = 0.1
    lost = probes.lost_facts(found, other)
    assert len(lost) == 1
    row = lost.iloc[0]
    assert (row.subject, row.relation, row.after) == (found.subject.values[first], found.relation.values[first], 0.1)
    assert row.before == pytest.approx(float(found.chosen[0, first]))
    assert not len(probes.lost_facts(other, found))
    with pytest.raises(probes.InputError, match="layer 9 was not measured of both models; one has 3"):
        probes.lost_facts(found, other, layer=9)
    with pytest.raises(probes.InputError, match="the two are of other statements"):
        probes.lost_facts(found, found.isel(statement=slice(3)))
    with pytest.raises(probes.InputError, match=r"expected two results of probes\.facts"):
        probes.lost_facts(found, found.drop_vars("chosen"))


def test_what_does_not_fit_is_refused_before_the_model_runs(loaded, graph):
    with pytest.raises(probes.InputError, match="the graph has sentences in 'en', 'fr'"):
        probes.facts(*loaded, graph, languages=["eo"])
    few = replace(graph, sentences=graph.sentences.select(range(80)))
    with pytest.raises(probes.InputError, match="about at least 30 subjects, to learn from some and test on others"):
        probes.facts(*loaded, few)
    no_arabic = {k: {x: n for x, n in v.items() if x != "ar"} for k, v in graph.aliases.items()}
    with pytest.raises(probes.InputError, match="no alias in language 'ar'"):
        probes.facts(*loaded, replace(graph, aliases=no_arabic))
    with pytest.raises(probes.InputError, match="predicts no tokens"):
        probes.facts(*probes.load_checkpoint("bundled"), graph)
