"""Slopes and curvatures of the loss: against derivatives in float64, and against what taking a weight away does."""

import numpy as np
import pandas as pd
import pytest
import torch

import probes
from compress.matrices import block_matrices
from compress.pruning.criteria import scores
from compress.pruning.gradients import curvatures, mean_gradients
from compress.pruning.prune import prune

TEXTS = ["red dog ran", "small bird sang under tree", "cat", "big cat sat over house and mat"]
NAME = "bert.encoder.layer.1.intermediate.dense.weight"
PLACES = [(0, 0), (3, 7), (19, 11)]


def rows(texts=TEXTS, labels="xyzx"):
    pairs = zip(texts, labels, strict=True)
    return probes.load_corpus(
        pd.DataFrame([{"id": i, "language": "en", "text": t, "label": k} for i, (t, k) in enumerate(pairs)])
    )


@pytest.fixture(scope="module")
def given(make_classifier, make_tokenizer):
    """A classifier whose texts do not look alike, and its tokenizer."""
    model = make_classifier()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, make_tokenizer()


def logs(model, tokenizer, text):
    """Log probabilities of the classes, in float64."""
    return model(**tokenizer(text, return_tensors="pt")).logits[0].log_softmax(-1)


def by_hand(model, tokenizer, weight, at, step=1e-5):
    """Log probabilities (text, class), and how they change with one weight."""
    ends = []
    with torch.no_grad():
        value = weight[at].item()
        for moved in (value, value + step, value - step):
            weight[at] = moved
            ends.append(torch.stack([logs(model, tokenizer, t) for t in TEXTS]).numpy())
        weight[at] = value
    return ends[0], (ends[1] - ends[2]) / (2 * step)


def test_slopes_and_curvatures_are_finite_differences_in_float64(given):
    model, tokenizer = given
    corpus, double = rows(), type(model)(model.config).double().eval()
    double.load_state_dict(model.state_dict())
    matrices = block_matrices(model)
    slope = mean_gradients(model, matrices, corpus, tokenizer)[NAME]
    fisher, obd = (curvatures(model, matrices, corpus, tokenizer, c)[NAME] for c in ("fisher", "obd"))
    codes = ["xyz".index(label) for label in corpus["label"]]
    for at in PLACES:
        log, change = by_hand(double, tokenizer, double.get_parameter(NAME), at)
        own = change[range(len(TEXTS)), codes]
        assert float(slope[at]) == pytest.approx(-own.mean(), rel=1e-3, abs=1e-7)
        assert float(fisher[at]) == pytest.approx((own**2).mean(), rel=1e-3, abs=1e-10)
        # Of the Gauss-Newton matrix by its definition, from the change of the logits and diag(p) - p p'.
        p = np.exp(log)
        gauss = [j @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(change, p, strict=True)]
        assert float(obd[at]) == pytest.approx(np.mean(gauss), rel=1e-3, abs=1e-10)
    assert all(p.grad is None for p in model.parameters())


def test_optimal_brain_damage_is_how_far_predictions_move_when_a_weight_goes(given):
    model, tokenizer = given
    small = type(model)(model.config).double().eval()
    small.load_state_dict(model.state_dict())
    weight = small.get_parameter(NAME)
    with torch.no_grad():
        weight.mul_(1e-3)  # as far as a second order reaches
        found = scores(small, {NAME: weight}, "obd", corpus=rows(), tokenizer=tokenizer)[NAME]
        before = torch.stack([logs(small, tokenizer, t) for t in TEXTS])
        for at in PLACES:
            value = weight[at].item()
            weight[at] = 0.0
            after = torch.stack([logs(small, tokenizer, t) for t in TEXTS])
            weight[at] = value
            divergence = (before.exp() * (before - after)).sum(1).mean()
            assert float(found[at]) == pytest.approx(float(divergence), rel=0.02)


def test_only_fisher_reads_labels(given):
    model, tokenizer = given
    matrices = {NAME: model.get_parameter(NAME)}
    bare = rows().remove_columns("label")
    ours, other, without = (
        curvatures(model, matrices, corpus, tokenizer, "obd")[NAME] for corpus in (rows(), rows(labels="zzxy"), bare)
    )
    assert torch.equal(ours, other)
    assert torch.equal(ours, without)
    shuffled = [curvatures(model, matrices, rows(labels=k), tokenizer, "fisher")[NAME] for k in ("xyzx", "zzxy")]
    assert not torch.allclose(*shuffled)
    for criterion in ("fisher", "gradient"):
        with pytest.raises(probes.InputError, match=f"criterion='{criterion}' needs labels, and the corpus has none"):
            prune(model, sparsity=0.5, criterion=criterion, train=bare, tokenizer=tokenizer)


def test_a_text_counts_the_same_beside_which_ones_it_stands(given):
    model, tokenizer = given
    matrices = {NAME: model.get_parameter(NAME)}
    for criterion in ("fisher", "obd"):
        alone = [
            curvatures(model, matrices, rows([t], [k]), tokenizer, criterion)[NAME]
            for t, k in zip(TEXTS, "xyzx", strict=True)
        ]
        together = curvatures(model, matrices, rows(), tokenizer, criterion)[NAME]
        torch.testing.assert_close(together, torch.stack(alone).mean(0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("criterion", ["fisher", "obd"])
def test_large_weights_that_nothing_reads_go_first_and_by_size_they_stay(criterion, given):
    model, tokenizer = given
    planted = type(model)(model.config).eval()
    planted.load_state_dict(model.state_dict())
    layer = planted.bert.encoder.layer[1]
    with torch.no_grad():
        layer.output.dense.weight[:, 4] = 0  # what channel 4 gives is read by none
        layer.intermediate.dense.weight[4] *= 100
    how = {"sparsity": 0.2, "only": r"layer\.1\.intermediate", "scope": "matrix"}
    by_loss = prune(planted, criterion=criterion, train=rows(), tokenizer=tokenizer, **how).get_parameter(NAME)
    by_size = prune(planted, **how).get_parameter(NAME)
    assert bool((by_loss[4] == 0).all())
    assert bool((by_size[4] != 0).all())


def test_a_model_that_is_sure_has_no_curvature_and_equal_scores_still_go_in_exact_number(given):
    model, tokenizer = given
    sure = type(model)(model.config).eval()
    sure.load_state_dict(model.state_dict())
    with torch.no_grad():
        sure.classifier.weight.zero_()
    found = curvatures(sure, {NAME: sure.get_parameter(NAME)}, rows(), tokenizer, "obd")[NAME]
    assert not found.any()
    pruned = prune(sure, sparsity=0.3, criterion="obd", train=rows(), tokenizer=tokenizer)
    assert pruned.config.compression["sparsity_of_pruned"] == pytest.approx(0.3, abs=1e-3)


def test_a_head_of_another_kind_is_refused(tiny_models, tokenizer):
    model = tiny_models("BertForSequenceClassification", problem_type="multi_label_classification")
    with pytest.raises(probes.InputError, match="criterion='obd' is of the loss of one class a text, and the head of"):
        prune(model, sparsity=0.5, criterion="obd", train=rows(), tokenizer=tokenizer)
