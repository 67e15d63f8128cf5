"""What models and corpus allow: chosen, left out and said, or refused before a model has run."""

import pytest
from labelled import corpus_of, model_of
from planted import parallel_corpus

import compress
import probes
from compress import quality
from probes.measures.catalogue import by_name, families

FAMILIES = families()
SIX = [*FAMILIES["labels"], *FAMILIES["alignment"]]


def test_without_labels_their_probes_are_left_out_and_the_run_says_so(models):
    bare = {k: models[k].drop_vars("label") for k in ("base", "worse")}
    with pytest.warns(probes.LayerscopeWarning, match="no labels: class_separability, variability, snr left out"):
        comparison = probes.compare(bare, pivot="l0")
    assert set(comparison.table["probe"]) == {*SIX[3:], *FAMILIES["drift"], "cka"}
    with pytest.raises(probes.InputError, match="snr cannot be measured without labels"):
        probes.compare(bare, pivot="l0", probes=["snr"])


def test_without_pivot_alignment_is_left_out_and_the_run_says_so(models):
    with pytest.warns(probes.LayerscopeWarning, match="no pivot: retrieval, margin_retrieval, alignment_gap left out"):
        comparison = probes.compare({"base": models["base"]})
    assert set(comparison.table["probe"]) == {*SIX[:3], "cka"}
    with pytest.raises(probes.InputError, match="retrieval cannot be measured without pivot"):
        probes.compare({"base": models["base"]}, probes=["retrieval"])


def test_by_default_all_that_models_corpus_and_pivot_allow_is_measured(with_heads, models):
    found = probes.compare(with_heads, pivot="l0", draws=20).table
    assert set(found["probe"]) == {*SIX, *FAMILIES["drift"], *FAMILIES["loyalty"], "accuracy", "cka"}
    alone = probes.compare({"base": models["base"]}, pivot="l0", draws=20).table
    assert set(alone["probe"]) == {*SIX, "cka"}


def test_a_family_is_all_of_its_probes(with_heads):
    found = probes.compare(with_heads, probes=["drift", "loyalty", "rsa"], draws=20).table
    assert set(found["probe"]) == {*FAMILIES["drift"], *FAMILIES["loyalty"], "rsa"}


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("drift", "cannot be measured without another model. Give at least two models"),
        ("accuracy", "cannot be measured without logits. Give models for sequence classification"),
        (
            "representer_support",
            "cannot be measured without splits. Give a corpus with a column 'split' that holds 'train'",
        ),
        ("linear_probe", "cannot be measured without pivot"),
    ],
)
def test_what_a_probe_needs_and_is_not_there_is_named_with_what_to_do(models, probe, message):
    with pytest.raises(probes.InputError, match=message):
        probes.compare({"base": models["base"]}, probes=[probe])


def test_labels_that_are_no_classes_of_the_model_leave_accuracy_out_and_say_so(with_heads):
    named = {k: r.assign_coords({"class": [*"abcd"], "label": "x" + r.label}) for k, r in with_heads.items()}
    with pytest.warns(probes.LayerscopeWarning, match="no classes named as the labels are: accuracy left out"):
        table = probes.compare(named, pivot="l0", draws=10).table
    assert "label_loyalty" in set(table["probe"])
    with pytest.raises(
        probes.InputError, match=r"accuracy cannot be measured without classes named .* model.config.id2l"
    ):
        probes.compare(named, probes=["accuracy"])


def narrow(models):
    return {"base": models["base"], "narrow": models["worse"].isel(feature=slice(0, 9))}


def test_models_of_different_width_are_compared_without_drift_and_the_run_says_so(models):
    with pytest.warns(
        probes.LayerscopeWarning, match="no models of one width: cosine_to_baseline, signal_to_error, norm"
    ):
        table = probes.compare(narrow(models), pivot="l0", draws=10).table
    assert set(table["probe"]) == {*SIX, "cka"}
    with pytest.raises(
        probes.InputError, match=r"measured without models of one width. Give models .* measure similarity"
    ):
        probes.compare(narrow(models), probes=["drift"])


def test_models_of_other_classes_are_compared_without_loyalty_and_the_run_says_so(with_heads):
    other = with_heads | {"worse": with_heads["worse"].assign_coords({"class": [*"1032"]})}
    with pytest.warns(
        probes.LayerscopeWarning, match="no models of the same classes: label_loyalty, probability_loyalty"
    ):
        table = probes.compare(other, pivot="l0", draws=10).table
    assert "accuracy" in set(table["probe"])
    with pytest.raises(
        probes.InputError, match=r"without models of the same classes. Give models whose config.id2label"
    ):
        probes.compare(other, probes=["loyalty"])


def test_errors_of_modules_need_one_architecture_before_a_model_is_run(tiny_models, make_tokenizer, monkeypatch):
    pair = {"a": tiny_models("BertModel"), "b": tiny_models("BertModel", num_hidden_layers=2)}
    monkeypatch.setattr("transformers.BertModel.forward", lambda *_, **__: pytest.fail("a model was run"))
    with pytest.raises(probes.InputError, match=r"without models of one architecture. Give models of one type, depth"):
        probes.compare(pair, parallel_corpus(), tokenizer=make_tokenizer(), probes=["module_error"])


@pytest.mark.parametrize(
    ("asked", "columns", "message"),
    [
        ("neighbour_overlap", {}, "neighbour_overlap: language 'en' has 8 examples, and needs at least 11"),
        ("linear_probe", {}, "class 'x' has 4 ids to train on in the pivot 'en', and folds need at least 5"),
        ("linear_probe", {"split": ["train"] * 8 + ["test"] * 8}, "id 'a' is in split 'train' and in split 'test'"),
        ("representer_support", {"split": ["train"] * 8 + ["test"] * 8}, "id 'a' is in split 'train' and in split"),
    ],
)
def test_what_the_examples_do_not_allow_is_said_before_a_model_is_run(
    tiny_models, make_tokenizer, monkeypatch, asked, columns, message
):
    model = tiny_models("BertModel")
    monkeypatch.setattr("transformers.BertModel.forward", lambda *_, **__: pytest.fail("a model was run"))
    with pytest.raises(probes.InputError, match=message):
        probes.compare({"a": model}, parallel_corpus(**columns), tokenizer=make_tokenizer(), probes=[asked], pivot="en")


def compared(kind, tiny_models, make_tokenizer, **asked):
    """A model of a kind of head beside a pruned copy, on a corpus with labels of the kind."""
    model = model_of(kind, tiny_models)
    pair = {"base": model, "pruned": compress.prune(model, sparsity=0.5)}
    given = {"tokenizer": make_tokenizer(), "draws": 20, "progress": False, "timing": False}
    return probes.compare(pair, corpus_of(kind), **given | asked)


@pytest.mark.parametrize(
    ("kind", "measured", "said"),
    [
        ("numbers", ("number_quality", "number_loyalty"), "These labels are numbers"),
        ("several", ("accuracy", "loyalty"), "Its labels are several of a text: accuracy and loyalty read them"),
        (
            "words",
            ("accuracy", "loyalty"),
            "Its tags are of words: accuracy and loyalty read them, and probes.each_token",
        ),
    ],
)
def test_each_kind_of_head_has_its_probes_and_those_of_classes_of_texts_are_left_out(
    kind, measured, said, tiny_models, make_tokenizer
):
    with pytest.warns(probes.LayerscopeWarning) as warned:
        found = compared(kind, tiny_models, make_tokenizer)
    assert any(f"snr left out: {said}" in str(w.message) for w in warned)
    measured = {probe for name in measured for probe in FAMILIES.get(name, [name])}
    assert set(found.table["probe"]) == {*measured, *FAMILIES["drift"], "cka"}
    own = quality(model_of(kind, tiny_models), make_tokenizer(), corpus_of(kind)).set_index(["measure", "language"])
    rows = found.table.query("model == 'base' and language == 'pooled'").set_index("probe")
    for name in {"accuracy", *FAMILIES["number_quality"]} & measured:
        assert rows.loc[name, "value"] == pytest.approx(own.loc[(name, "pooled"), "value"], abs=1e-6)
    assert all(found.plot(name).axes for name in measured)
    judged = {"pearson", "pearson_to_baseline"} if kind == "numbers" else {"accuracy", "label_loyalty"}
    assert set(found.verdict().models["probe"]) == judged


@pytest.mark.parametrize(
    ("kind", "probe", "message"),
    [
        (
            "words",
            "snr",
            "without labels. Its tags are of words: accuracy and loyalty read them, and probes.each_token",
        ),
        ("several", "snr", "snr cannot be measured without labels. Its labels are several of a text"),
        ("numbers", "snr", "snr cannot be measured without labels. These labels are numbers, as the head of the model"),
        ("numbers", "loyalty", "cannot be measured without logits"),
        ("classes", "pearson", "without predicted numbers. Give models whose head gives one number a text"),
    ],
)
def test_a_kind_that_a_probe_cannot_take_is_refused_by_name_before_a_model_is_run(
    kind, probe, message, tiny_models, make_tokenizer, monkeypatch
):
    monkeypatch.setattr("transformers.BertModel.forward", lambda *_, **__: pytest.fail("a model was run"))
    with pytest.raises(probes.InputError, match=message):
        compared(kind, tiny_models, make_tokenizer, probes=[probe])


def test_a_model_of_another_head_is_measured_without_its_predictions(tiny_models, make_tokenizer):
    pair = {kind: model_of(kind, tiny_models) for kind in ("classes", "words")}
    given = {"tokenizer": make_tokenizer(), "draws": 20, "progress": False, "timing": False}
    with pytest.warns(probes.LayerscopeWarning) as warned:
        table = probes.compare(pair, corpus_of("classes"), **given).table
    assert any(str(w.message).startswith("no logits of 'words', without a head") for w in warned)
    assert set(table.query("probe == 'accuracy'")["model"]) == {"classes"}
    assert {"classes", "words"} == set(table.query("probe == 'snr'")["model"])


def test_one_language_needs_no_pivot_for_a_linear_probe(models):
    alone = models["base"].isel(example=slice(0, 60))
    table = probes.compare({"base": alone}, probes=["linear_probe"], draws=10, progress=False).table
    assert set(table["probe"]) == {"linear_probe"}


def test_no_family_hides_a_probe():
    assert not set(FAMILIES) & set(by_name())


def test_modules_that_are_captured_by_name_have_no_head(bundled):
    model, tokenizer = probes.load_checkpoint("bundled")
    few = bundled.select(range(0, len(bundled), 6))
    names = ["bert.encoder.layer.1", "bert.encoder.layer.3"]
    pair = {"a": model, "b": compress.prune(model, sparsity=0.5)}
    table = probes.compare(pair, few, tokenizer=tokenizer, modules=names, probes=["cka", "drift"], progress=False).table
    assert set(table["probe"]) == {"cka", *FAMILIES["drift"]}
    with pytest.raises(probes.InputError, match="loyalty cannot be measured without logits"):
        probes.compare(pair, few, tokenizer=tokenizer, modules=names, probes=["loyalty"])
