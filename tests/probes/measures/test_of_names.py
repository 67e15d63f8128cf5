"""Names of classes in a comparison: the numbers of `label_names` alone, with differences; messages."""

import numpy as np
import pytest

import compress
import probes
from probes.measures import catalogue
from probes.measures.own import named_in_modules
from probes.results.result import split_measures


@pytest.fixture(autouse=True)
def few_factors(monkeypatch):
    monkeypatch.setattr(catalogue, "OWN", {})
    monkeypatch.setattr("probes.measures.classes.label_names.BETAS", (1.0, 10.0))
    monkeypatch.setattr("probes.measures.classes.linear_probe.STRENGTHS", (1e-2,))


@pytest.fixture(scope="module")
def corpus():
    rows = probes.load_corpus("bundled", languages=["en", "fr"])
    ids = sorted(set(rows["id"]))[::24]
    return rows.filter(lambda row: row["id"] in ids)


def names_of(corpus):
    return {label: [f"They talk about {label}.", label] for label in sorted(set(corpus["label"]))}


def test_a_comparison_has_what_label_names_says_of_each_model(corpus):
    model, tokenizer = probes.load_checkpoint("bundled")
    models = {"base": model, "pruned": compress.prune(model, sparsity=0.8)}
    found = probes.declare_names(names_of(corpus))
    assert found == ["label_names", "label_names_support", "label_names_gain"]
    how = {"pivot": "en", "draws": 30}
    quiet = {"prompt": "a: ", "progress": False}
    compared = probes.compare(models, corpus, tokenizer=tokenizer, probes=found, timing=False, **how, **quiet)
    alone = {}
    for name, one in models.items():
        reps = probes.capture(one, tokenizer, corpus, **quiet)
        alone[name] = split_measures(probes.label_names(reps, names_of(corpus), model=one, tokenizer=tokenizer, **how))
    assert set(compared.table["probe"]) == set(found)
    gap = probes.difference(alone["pruned"]["label_names"], alone["base"]["label_names"])
    for row in compared.table.itertuples():
        one = alone[row.model][row.probe].sel(layer=row.layer, language=row.language)
        np.testing.assert_allclose([row.value, row.low, row.high], [one.value, one.low, one.high])
        if row.model == "pruned" and row.probe == "label_names":
            apart = gap.sel(layer=row.layer, language=row.language)
            np.testing.assert_allclose([row.difference, row.difference_low], [apart.difference, apart.low])


def test_the_command_line_takes_them_from_a_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["import probes", "declared = probes.declare_names({'a': 'about a', 'b': 'about b'})"]
    lines.append("label_names, label_names_support, label_names_gain = declared")
    (tmp_path / "of_my_names.py").write_text("\n".join(lines))
    assert named_in_modules(["of_my_names:label_names_gain", "snr"]) == ["label_names_gain", "snr"]
    assert {"label_names", "label_names_support"} <= set(catalogue.by_name())


def test_what_a_comparison_cannot_name_is_refused_before_a_model_runs(corpus, monkeypatch):
    for names, message in (
        ("food", "names: expected the texts of every class, .* found str"),
        ({"a": []}, "label 'a' has no name"),
        ({"a": ["a", " "]}, "label 'a': expected texts, none of them empty"),
        (probes.from_arrays(np.ones((2, 3)), label=[0, 1]), "each model of a comparison runs; found Representations"),
    ):
        with pytest.raises(probes.InputError, match=message):
            probes.declare_names(names)
    model, tokenizer = probes.load_checkpoint("bundled")
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("the model was run"))
    how = {"tokenizer": tokenizer, "pivot": "en", "draws": 5, "progress": False}
    few = names_of(corpus)
    last = list(few)[-1]
    found = probes.declare_names({k: v for k, v in few.items() if k != last})
    with pytest.raises(probes.InputError, match=f"label '{last}' has no name"):
        probes.compare({"base": model}, corpus, probes=found, **how)
    found = probes.declare_names(few)
    with pytest.raises(probes.InputError, match="no row of the pivot 'en' has the split 'dev'"):
        probes.compare({"base": model}, corpus.filter(lambda row: row["split"] != "dev"), probes=found, **how)
    with pytest.raises(probes.InputError, match="cannot be measured without models to run"):
        probes.compare({"base": probes.from_arrays(np.ones((9, 2)), label=[0, 1, 2] * 3)}, probes=found, progress=False)
