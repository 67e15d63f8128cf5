"""The objective of heads that give a number: its formula, its gradient, what it refuses."""

import pytest
import torch
from labelled import model_of

from compress.objectives.base import Pass, check
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.numbers import SquaredError
from probes.errors import InputError


def test_it_is_the_loss_that_transformers_trains_such_a_head_by(tiny_models):
    model = model_of("numbers", tiny_models)
    ids, labels = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]]), torch.tensor([1.5, -2.0])
    out = model(input_ids=ids, labels=labels)
    found = SquaredError()(Pass(model, out.logits), None, {"labels": labels})
    assert float(found) == pytest.approx(float(out.loss), rel=1e-6)
    by_hand = ((out.logits[:, 0].double() - labels) ** 2).mean()
    assert float(SquaredError(weight=0.5)(Pass(model, out.logits), None, {"labels": labels})) == pytest.approx(
        0.5 * float(by_hand)
    )


def test_a_teacher_is_compared_and_gets_no_gradient():
    one, two = (torch.tensor([[x], [2 * x]], requires_grad=True) for x in (1.0, 3.0))
    loss = SquaredError(of="teacher")(Pass(None, one), Pass(None, two), {})
    assert float(loss) == pytest.approx((2**2 + 4**2) / 2)
    loss.backward()
    assert one.grad.flatten().tolist() == [-2.0, -4.0]
    assert two.grad is None


def test_both_can_stand_beside_each_other(tiny_models):
    model = model_of("numbers", tiny_models)
    assert [o.name for o in (SquaredError(), SquaredError(of="teacher"))] == [
        "squared_error",
        "squared_error_to_teacher",
    ]
    check([SquaredError(), SquaredError(of="teacher")], model, model, labelled=True)


@pytest.mark.parametrize(
    ("objective", "kind", "message"),
    [
        (SquaredError(), "classes", "squared_error: BertForSequenceClassification gives 3 classes or numbers a text"),
        (SquaredError(of="teacher"), "several", "gives 3 classes or numbers a text: expected a head of one number"),
        (CrossEntropy(), "numbers", "cross_entropy takes labels of one class a text or none or several classes a text "
            "or one class a word, and the head of BertForSequenceClassification is for one number a text"),
        (SoftLabels(), "numbers", r"soft_labels: BertForSequenceClassification gives 1 number\(s\) a text or token"),
    ],
)  # fmt: skip
def test_other_heads_are_refused(tiny_models, objective, kind, message):
    model = model_of(kind, tiny_models)
    with pytest.raises(InputError, match=message):
        check([objective], model, model, labelled=True)


def test_bad_settings_and_shapes_are_refused():
    with pytest.raises(InputError, match="of='teachers': expected one of"):
        SquaredError(of="teachers")
    with pytest.raises(InputError, match="weight=-1: expected a finite number at least 0"):
        SquaredError(weight=-1)
    said = Pass(None, torch.zeros(2, 1))
    with pytest.raises(InputError, match=r"numbers of shape \(2, 1\) .* torch.int64 of shape \(2, 1\): expected"):
        SquaredError()(said, None, {"labels": torch.tensor([1, 2])})
    with pytest.raises(InputError, match="the batch has no labels"):
        SquaredError()(said, None, {})
