"""Recipes that prune: the sparsity asked for, on their objectives."""

import pytest
import torch
from trained import QUIET

import probes
from compress import recipes, recovery
from compress.pruning.criteria import scores

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


@pytest.mark.parametrize("name", ["sparse_bert", "sparse_progressive_distillation"])
def test_attention_is_compared_before_the_softmax_and_weighted_as_the_authors_sum(
    classifier, make_tokenizer, corpus, name, monkeypatch
):
    seen = {}
    monkeypatch.setattr("compress.recipes.pruning.prune", lambda *_, **given: seen.update(given))
    settings = {"teacher": classifier} if name == "sparse_bert" else {}
    for attention in (None, "probabilities"):
        how = {} if attention is None else {"attention": attention}
        getattr(recipes, name)(classifier, make_tokenizer(), corpus, sparsity=0.7, steps=8, **settings, **how)
        maps, states, labels = seen["objective"]
        layers = classifier.config.num_hidden_layers
        assert (maps.form, maps.weight, states.weight) == (attention or "scores", layers, layers + 1)
        assert labels.weight == pytest.approx(1 / 3)  # classes


def test_copies_are_trained_on_beside_the_texts(classifier, make_tokenizer, corpus, monkeypatch):
    seen = {}
    monkeypatch.setattr("compress.recipes.pruning.prune", lambda *_, **given: seen.update(given))
    how = {"teacher": classifier, "sparsity": 0.7, "steps": 8}
    recipes.sparse_bert(classifier, make_tokenizer(), corpus, copies=2, **how)
    assert len(corpus) < len(seen["train"]) <= 3 * len(corpus)
    assert seen["train"]["text"][: len(corpus)] == corpus["text"][:]


def test_what_is_pruned_before_the_training_is_what_moves_the_loss_of_the_new_model_least(
    classifier, make_tokenizer, corpus
):
    pruned = recipes.snip(classifier, make_tokenizer(), corpus, sparsity=0.8, steps=2, **QUIET)
    matrices = {n: classifier.get_parameter(n) for n in pruned.config.compression["pruned"]}
    found = scores(classifier, matrices, "gradient", corpus=corpus, tokenizer=make_tokenizer())
    kept = {n: pruned.get_parameter(n) != 0 for n in matrices}
    assert sum(int((~k).sum()) for k in kept.values()) == round(0.8 * sum(w.numel() for w in matrices.values()))
    gone = max(float(found[n][~k].max()) for n, k in kept.items())
    assert min(float(found[n][k].min()) for n, k in kept.items() if k.any()) >= gone
    assert len({float(k.float().mean()) for k in kept.values()}) > 2  # compared over all matrices, not in each
    assert pruned.config.compression["criterion"] == "gradient, global, one shot"
    assert pruned.config.compression["objective"] == ["cross_entropy"]
