"""Recipes that distil: on their objectives; three trainings one after another, also interrupted."""

import copy
import shutil

import pytest
import torch
from stops import Stops
from trained import QUIET

import compress
import probes
from compress import recipes
from compress.training.loop import train


@pytest.mark.parametrize(
    ("recipe", "settings", "objectives"),
    [
        (recipes.codir, {}, ["cross_entropy", "soft_labels", "codir"]),
        (recipes.patient_distillation, {"keep": "bottom"}, ["cross_entropy", "soft_labels", "patient_states"]),
        (recipes.contrastive_distillation, {"negatives": "classes"}, ["cross_entropy", "soft_labels", "crd"]),
        (recipes.contrastive_distillation, {"mixup": 0.2}, ["cross_entropy", "soft_labels", "crd"]),
        (recipes.relational_distillation, {}, ["cross_entropy", "soft_labels", "relational"]),
    ],
)
def test_distils_into_fewer_layers_on_its_objectives(classifier, make_tokenizer, corpus, recipe, settings, objectives):
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    layers = 2 if recipe is recipes.patient_distillation else 1  # which leaves out the last
    student = recipe(classifier, make_tokenizer(), corpus, layers=layers, steps=4, **settings, **QUIET)
    assert student.config.num_hidden_layers == layers
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


def test_the_recipe_passes_on_what_says_which_negatives_are_drawn(classifier, make_tokenizer, corpus, monkeypatch):
    seen = {}
    monkeypatch.setattr("compress.recipes.distillation.distill", lambda *_, **given: seen.update(given))
    vectors = {"x": [1.0]}
    how = {"negatives": "classes", "k": 7, "top_k": 2, "sharpness": 0.5, "vectors": vectors}
    recipes.contrastive_distillation(classifier, make_tokenizer(), corpus, layers=1, steps=4, **how)
    crd = seen["objective"][-1]
    assert (crd.k, crd.top_k, crd.sharpness, crd.vectors) == (7, 2, 0.5, vectors)
