"""Objectives of labels and classes: formulas, gradients, and labels that do not fit."""

import dataclasses

import numpy as np
import pytest
import torch
from passes import (
    BATCH,
    CLASSES,
    ENCODER,
    TOKENS,
    a_pass,
    by_hand,
)
from scipy.special import log_softmax
from torch.autograd import gradcheck

from compress.objectives.base import Pass, check
from compress.objectives.labels import CrossEntropy, SoftLabels
from probes.errors import InputError


@pytest.mark.parametrize("temperature", [1, 2])
def test_soft_labels_of_tokens_leave_padding_out(model, batch, temperature):
    student, teacher = a_pass(model, 0, tokens=True), a_pass(model, 1, tokens=True)
    objective = SoftLabels(temperature=temperature)
    assert float(objective(student, teacher, batch)) == pytest.approx(by_hand(objective, student, teacher, batch))


def test_cross_entropy_is_its_formula_for_texts_and_tokens(model, batch):
    student = a_pass(model, 0)
    expected = -log_softmax(student.logits.numpy(), axis=-1)[np.arange(BATCH), batch["labels"].numpy()].mean()
    assert float(CrossEntropy(weight=0.5)(student, None, batch)) == pytest.approx(0.5 * expected)
    student = a_pass(model, 0, tokens=True)
    labels = torch.randint(0, CLASSES, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    labels[batch["attention_mask"] == 0] = -100
    labels[:, 0] = -100
    chosen = [(b, t) for b in range(BATCH) for t in range(TOKENS) if labels[b, t] != -100]
    logs = log_softmax(student.logits.numpy(), axis=-1)
    expected = -np.mean([logs[b, t, labels[b, t]] for b, t in chosen])
    assert float(CrossEntropy()(student, None, {"labels": labels})) == pytest.approx(expected)
    assert float(CrossEntropy()(student, None, {"labels": torch.full_like(labels, -100)})) == 0
    one = {"labels": batch["labels"].to(torch.int32)}
    assert CrossEntropy()(a_pass(model, 0), None, one) == CrossEntropy()(a_pass(model, 0), None, batch)


@pytest.mark.parametrize("architecture", [ENCODER, "GPT2LMHeadModel", "LlamaForCausalLM", "T5ForConditionalGeneration"])
def test_cross_entropy_is_the_loss_of_transformers(tiny_models, architecture):
    model = tiny_models(architecture, **({"decoder_start_token_id": 0} if architecture.startswith("T5") else {}))
    ids = torch.randint(4, 20, (3, 7), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1]) if architecture == ENCODER else ids.clone()
    if architecture != ENCODER:
        labels[0, 4:] = -100
    with torch.no_grad():
        out = model(input_ids=ids, labels=labels)
    found = CrossEntropy()(Pass(model, out.logits), None, {"labels": labels})
    assert float(found) == pytest.approx(float(out.loss), rel=1e-6)


def test_the_gradient_of_cross_entropy_is_that_of_the_loss(model, batch):
    logits = a_pass(model, 0).logits.requires_grad_()
    assert gradcheck(lambda x: CrossEntropy(weight=0.3)(Pass(model, x), None, batch), (logits,))


@pytest.mark.parametrize("temperature", [1, 2])
def test_soft_labels_have_the_gradient_of_soft_cross_entropy(model, temperature):
    student, teacher = a_pass(model, 0), a_pass(model, 1)
    s = student.logits.requires_grad_()
    p = (teacher.logits / temperature).softmax(-1)
    (expected,) = torch.autograd.grad(-(p * (s / temperature).log_softmax(-1)).mean(), s)  # over texts and classes
    weight = 1 / (CLASSES * temperature**2)
    (found,) = torch.autograd.grad(SoftLabels(weight=weight, temperature=temperature)(student, teacher, {}), s)
    torch.testing.assert_close(found, expected)


def test_soft_labels_at_the_limits_of_the_temperature(model):
    student, teacher = a_pass(model, 0), a_pass(model, 1)
    difference = (student.logits - teacher.logits).numpy()
    hot = float(SoftLabels(temperature=1e4)(student, teacher, {}))
    assert hot == pytest.approx(0.5 * difference.var(axis=-1).mean(), rel=1e-3)
    # Cold, a text costs nothing where both prefer the same class, else temperature x what the student's logits lack.
    cold = 1e-3
    best = teacher.logits.argmax(-1, keepdim=True)
    lack = (student.logits.max(-1, keepdim=True).values - student.logits.gather(-1, best)).mean()
    assert float(SoftLabels(temperature=cold)(student, teacher, {})) == pytest.approx(cold * float(lack), rel=1e-6)
    # A constant added to all logits of a text says nothing.
    moved = dataclasses.replace(student, logits=student.logits + 7)
    assert float(SoftLabels()(moved, student, {})) == pytest.approx(0, abs=1e-12)


def test_check_refuses_data_without_labels_and_models_without_a_head(tiny_models, model):
    with pytest.raises(InputError, match="cross_entropy needs labels, the data has none"):
        check([CrossEntropy()], model, None, labelled=False)
    for objective, student in [(CrossEntropy(), tiny_models("BertModel")), (SoftLabels(), model)]:
        with pytest.raises(InputError, match="BertModel has no head"):
            check([objective], student, tiny_models("BertModel"), labelled=True)


@pytest.mark.parametrize(
    "labels", [None, torch.zeros(BATCH), torch.zeros(BATCH, 1, dtype=torch.long), torch.zeros(2, dtype=torch.long)]
)
def test_labels_that_do_not_fit_the_logits_are_refused(model, labels):
    message = (
        "the batch has no labels" if labels is None else r"expected labels of whole numbers of shape \(6,\), found"
    )
    with pytest.raises(InputError, match=message):
        CrossEntropy()(a_pass(model, 0), None, {} if labels is None else {"labels": labels})
    with pytest.raises(InputError, match="gave no logits"):
        CrossEntropy()(Pass(model, None), None, {"labels": torch.zeros(BATCH, dtype=torch.long)})
