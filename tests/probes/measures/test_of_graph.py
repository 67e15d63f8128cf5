"""Facts of a graph in a comparison: the numbers of `facts` alone, beside another corpus; messages."""

from dataclasses import replace

import numpy as np
import pytest

import compress
import probes
from probes.measures import catalogue
from probes.measures.own import named_in_modules


@pytest.fixture(scope="module")
def graph(request):
    whole = probes.load_graph(request.config.rootpath / "data" / "world")
    subjects = sorted(set(whole.sentences["group"]))[:32]
    there = np.flatnonzero(np.isin(np.asarray(whole.sentences["group"], object), subjects))
    return replace(whole, sentences=whole.sentences.select(there))


def test_a_comparison_has_the_facts_of_a_graph_beside_its_own_corpus(graph, monkeypatch):
    model, tokenizer = probes.load_checkpoint("bundled-decoder")
    monkeypatch.setattr(catalogue, "OWN", {})
    fits = []

    def read(given, states, relations):
        """Relations save a word what its first state says, more where there is a state."""
        ends = np.cumsum([len(words) for words in given[1].words])
        words = np.concatenate([states[1][:, :, :1], 0 * states[1][:1, :, :1]])[..., 0]  # (layer and none, word)
        summed = np.add.reduceat(words, np.r_[0, ends[:-1]], axis=1).T
        fits.append(len(given[1].words))
        return np.stack([summed, 0 * summed]), np.zeros((2, len(states[0]), len(given[1].sentence)))

    monkeypatch.setattr("probes.measures.attribution.facts._of_fold", read)
    models = {"base": model, "pruned": compress.prune(model, sparsity=0.9)}
    names = probes.declare_facts(graph, layers=[3, 6], languages=["en"])
    assert names == ["facts", "facts_over_none"]
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(6))
    corpus = corpus.add_column("group", ["a", "a", "b", "b", "c", "c"])
    how = {"tokenizer": tokenizer, "draws": 30, "timing": False, "progress": False}
    compared = probes.compare(models, corpus, probes=[*names, "nats_per_token"], **how)
    assert len(fits) == 2 * 3  # once each model and fold, groups of the corpus or none
    table = compared.table.query("probe != 'nats_per_token'")
    assert set(table["language"]) == {"en", "pooled"}
    how = {"layers": [3, 6], "draws": 30, "languages": ["en"], "progress": False}
    alone = {name: probes.facts(one, tokenizer, graph, **how) for name, one in models.items()}
    gap = probes.difference(alone["pruned"], alone["base"])
    for row in table.itertuples():
        one = alone[row.model].sel(layer=row.layer, language=row.language)
        of = ("value", "low", "high") if row.probe == "facts" else ("over_none", "over_none_low", "over_none_high")
        np.testing.assert_allclose([row.value, row.low, row.high], [float(one[k]) for k in of])
        if row.model == "pruned" and row.probe == "facts":
            apart = gap.sel(layer=row.layer, language=row.language)
            np.testing.assert_allclose([row.difference, row.difference_high], [apart.difference, apart.high])
    assert not compared.is_map("facts")


def test_the_command_line_takes_them_from_a_module(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "OWN", {})
    monkeypatch.chdir(tmp_path)
    lines = ["import probes", "graph = probes.load_graph('bundled')"]
    lines.append("facts, facts_over_none = probes.declare_facts(graph, languages=['en'])")
    (tmp_path / "of_my_world.py").write_text("\n".join(lines))
    assert named_in_modules(["of_my_world:facts_over_none", "snr"]) == ["facts_over_none", "snr"]
    assert {"facts", "facts_over_none"} <= set(catalogue.by_name())


def test_what_a_comparison_cannot_read_is_refused(graph, monkeypatch):
    monkeypatch.setattr(catalogue, "OWN", {})
    with pytest.raises(probes.InputError, match="the graph has sentences in 'en', 'fr'"):
        probes.declare_facts(graph, languages=["eo"])
    with pytest.raises(probes.InputError, match=r"expected a graph, as probes\.load_graph"):
        probes.declare_facts("bundled")
    names = probes.declare_facts(graph)
    reps = probes.from_arrays(np.zeros((2, 8, 3)))
    with pytest.raises(probes.InputError, match="facts, facts_over_none cannot be measured without predicted tokens"):
        probes.compare({"base": reps}, probes=names, progress=False)
