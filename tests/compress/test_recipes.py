"""Each recipe prunes to what was asked for, on the objectives that its paper names."""

import copy
import shutil

import pandas as pd
import pytest
import torch
from stops import Stops

import compress
import probes
from compress import recipes, recovery
from compress.training.loop import train

QUIET = {"progress": False, "batch_size": 8, "learning_rate": 1e-3}
RECIPES = {
    "magnitude": (recipes.magnitude_pruning, {}, ["cross_entropy"]),
    "cross_correlation": (recipes.self_distilled_pruning, {}, ["cross_entropy", "cross_correlation"]),
    "soft_labels": (recipes.self_distilled_pruning, {"variant": "soft_labels"}, ["cross_entropy", "soft_labels"]),
    "mse": (recipes.self_distilled_pruning, {"variant": "mse"}, ["cross_entropy", "representation_mse"]),
    "cosine": (recipes.self_distilled_pruning, {"variant": "cosine"}, ["cross_entropy", "representation_cosine"]),
    "aligned, cosine": (recipes.aligned_weights, {}, ["cross_entropy", "aligned_weights_cosine"]),
    "aligned, frobenius": (
        recipes.aligned_weights,
        {"form": "frobenius"},
        ["cross_entropy", "aligned_weights_frobenius"],
    ),
    "sparse_progressive_distillation": (
        recipes.sparse_progressive_distillation,
        {},
        ["attentions", "hidden_states", "soft_labels"],
    ),
    "sparse_bert": (recipes.sparse_bert, {"teacher": None}, ["attentions", "hidden_states", "soft_labels"]),
}


@pytest.fixture
def corpus():
    words = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}
    rows = [{"id": i, "language": "en", "text": words[k], "label": k} for i, k in enumerate("xyz" * 8)]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def classifier(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    return model


@pytest.mark.parametrize("name", RECIPES)
def test_prunes_to_the_sparsity_on_its_objectives(classifier, make_tokenizer, corpus, name):
    recipe, settings, objectives = RECIPES[name]
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    settings = {k: classifier if k == "teacher" else v for k, v in settings.items()}
    pruned = recipe(classifier, make_tokenizer(), corpus, sparsity=0.7, steps=8, **settings, **QUIET)
    done = pruned.config.compression
    assert done["objective"] == objectives
    assert set(objectives) < set(pruned.history)
    for matrix in done["pruned"]:
        weight = pruned.get_parameter(matrix)
        assert int((weight == 0).sum()) == round(0.7 * weight.numel())
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())


def test_settings_go_through_and_recovery_reads_the_history(classifier, make_tokenizer, corpus):
    pruned = recipes.magnitude_pruning(
        classifier,
        make_tokenizer(),
        corpus,
        sparsity=0.6,
        steps=9,
        prunings=2,
        schedule="cubic",
        evaluate=lambda model: {"accuracy": float(model.classifier.weight.abs().sum())},
        evaluate_at=range(1, 10),
        **QUIET,
    )
    assert pruned.history.attrs["pruned_at"] == [3, 6]
    assert recovery(pruned.history)["step"].tolist() == [3, 6]


def test_an_unknown_variant_is_refused(classifier, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"variant='kl' is not known; choose one of 'cross_corr"):
        recipes.self_distilled_pruning(classifier, make_tokenizer(), corpus, sparsity=0.5, steps=2, variant="kl")


@pytest.mark.parametrize(
    ("variant", "objectives"),
    [
        ("attention_and_logits", ["cross_entropy", "soft_labels", "attention_outputs"]),
        ("logits", ["cross_entropy", "soft_labels"]),
        ("attention", ["cross_entropy", "attention_outputs"]),
        ("hidden_states", ["cross_entropy", "hidden_states"]),
    ],
)
@pytest.mark.parametrize("host", ["quant_noise", "product"])
def test_quantises_in_training_on_its_objectives(classifier, make_tokenizer, corpus, variant, objectives, host):
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    how = {"bits": 4, "activation_bits": None} if host == "quant_noise" else {"codes": 4, "block": 2}
    quantized = recipes.self_distilled_quantization(
        classifier, make_tokenizer(), corpus, steps=8, variant=variant, host=host, **how, **QUIET
    )
    assert quantized.config.compression["objective"] == objectives
    assert set(objectives) < set(quantized.history)
    for matrix in quantized.config.compression["quantized"]:
        weight = quantized.get_parameter(matrix)
        parts = weight if host == "quant_noise" else weight.reshape(1, -1, 2)
        most = 15 if host == "quant_noise" else 4
        assert max(len(row.unique(dim=0)) for row in parts) <= most
        assert not torch.equal(weight, before[matrix])
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())


def test_an_unknown_variant_or_host_of_quantisation_is_refused(classifier, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"variant='kl' is not known; choose one of 'attention_and_logits'"):
        recipes.self_distilled_quantization(classifier, make_tokenizer(), corpus, steps=2, variant="kl")
    with pytest.raises(probes.InputError, match=r"host='none' is not known; choose one of 'quant_noise', 'product'"):
        recipes.self_distilled_quantization(classifier, make_tokenizer(), corpus, steps=2, host="none")


@pytest.mark.parametrize(
    ("recipe", "settings", "objectives"),
    [
        (recipes.codir, {}, ["cross_entropy", "soft_labels", "codir"]),
        (recipes.contrastive_distillation, {"negatives": "classes"}, ["cross_entropy", "soft_labels", "crd"]),
        (recipes.contrastive_distillation, {"mixup": 0.2}, ["cross_entropy", "soft_labels", "crd"]),
        (recipes.relational_distillation, {}, ["cross_entropy", "soft_labels", "relational"]),
    ],
)
def test_distils_into_fewer_layers_on_its_objectives(classifier, make_tokenizer, corpus, recipe, settings, objectives):
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    student = recipe(classifier, make_tokenizer(), corpus, layers=1, steps=4, **settings, **QUIET)
    assert student.config.num_hidden_layers == 1
    assert student.config.compression["objective"] == objectives
    assert set(objectives) < set(student.history)
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())


@pytest.mark.parametrize("folder", [False, True])
def test_meta_distillation_is_its_three_trainings_one_after_another(
    classifier, make_tokenizer, corpus, folder, tmp_path
):
    """The recipe against its parts called by hand: the same student, weight by weight."""
    before, tokenizer = {k: v.clone() for k, v in classifier.state_dict().items()}, make_tokenizer()
    settings = {"seed": 3, **QUIET}
    how = {"folder": tmp_path / "runs"} if folder else {}
    student = recipes.meta_distillation(
        classifier, tokenizer, corpus, layers=1, steps=5, domain="label", keep="bottom", domain_weight=0.3,
        temperature=3.0, **settings, **how,
    )  # fmt: skip
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())

    transfer = compress.transferability(classifier, tokenizer, corpus, domain="label", progress=False)
    head = compress.DomainHead(["x", "y", "z"], width=classifier.config.hidden_size, seed=3)
    teacher = copy.deepcopy(classifier)
    objective = [compress.MetaTeacher(transfer, head, domain_weight=0.3)]
    train(teacher, tokenizer, corpus, objective=objective, steps=3, **settings)  # 24 rows in batches of 8
    given = {"train": corpus, "tokenizer": tokenizer, "teacher": teacher, **settings}
    objective = [compress.Transferable(transfer, head, domain_weight=0.3)]
    first = compress.distill(classifier, layers=1, keep="bottom", steps=2, objective=objective, **given)
    second = compress.distill(
        classifier, student=first, steps=3, objective=[compress.SoftLabels(temperature=3.0)], **given
    )
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in student.state_dict().items())

    assert student.history["step"].tolist() == [1, 2, 3, 4, 5]
    assert student.history["transferable"].notna().tolist() == [True, True, False, False, False]
    assert student.history["soft_labels"].notna().tolist() == [False, False, True, True, True]
    done = student.config.compression
    assert (done["objective"], done["before"]["objective"]) == (["soft_labels"], ["transferable"])
    assert done["before"]["keep"] == "bottom"
    if folder:
        assert sorted(f.name for f in (tmp_path / "runs").iterdir()) == ["layers", "probabilities", "teacher"]


def test_meta_distillation_refuses_what_it_cannot_mean(classifier, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match="steps=1: expected at least 2, one by layers and one by class"):
        recipes.meta_distillation(classifier, make_tokenizer(), corpus, layers=1, steps=1)
    with pytest.raises(probes.InputError, match="all 24 texts have the language 'en': expected at least two domains"):
        recipes.meta_distillation(classifier, make_tokenizer(), corpus, layers=1, steps=2, progress=False)


def test_meta_distillation_goes_on_after_each_of_its_trainings(classifier, make_tokenizer, corpus, tmp_path):
    def run(folder=tmp_path, **more):
        options = {"layers": 1, "steps": 4, "domain": "label", "save_every": 1, "folder": folder, **QUIET, **more}
        return recipes.meta_distillation(classifier, make_tokenizer(), corpus, **options).state_dict()

    whole = run(tmp_path / "whole")
    for step in (1, 2):  # of the student: after the teacher, then after its own first checkpoint
        with pytest.raises(KeyboardInterrupt):
            run(callbacks=[Stops(step)])
        assert [f.name for f in (tmp_path / "layers").glob("checkpoint-*")] == ["checkpoint-1"] * (step - 1)
    found = [run()]
    shutil.rmtree(tmp_path / "probabilities")
    found.append(run())
    assert all(torch.equal(v, whole[k]) for weights in found for k, v in weights.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 99}, r"layers=99: expected a whole number from 1 to 3"),
        ({"layers": 99, "keep": "matched"}, r"layers=99: expected a whole number from 1 to 3"),
        ({"hidden_size": 5}, r"hidden_size=5: expected a multiple of 6"),
        ({"keep": "foo"}, r"keep='foo' is not known"),
        ({"stepz": 1}, r"stepz=1: no such setting"),
        ({"temperature": 0}, r"temperature=0: expected"),
        ({"teacher": None}, r"teacher=\.\.\.: this recipe trains its own"),
        ({"batch_size": 0}, r"batch_size=0: expected a whole number of at least 1"),
        ({"teacher_steps": 0}, r"steps=0: expected a whole number of at least 1"),
    ],
)
def test_meta_distillation_trains_no_teacher_by_a_bad_setting(
    classifier, make_tokenizer, corpus, monkeypatch, settings, message
):
    options = {"layers": 1, "steps": 2, "domain": "label", "folder": None, **QUIET, **settings}
    steps, update = [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a, **k: (steps.append(1), update(*a, **k))[1])
    with pytest.raises(probes.InputError, match=message):
        recipes.meta_distillation(classifier, make_tokenizer(), corpus, **options)
    assert not steps
