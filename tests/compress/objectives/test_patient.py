"""Patient distillation: against numpy, which layers are compared, its gradient, and what is refused."""

import numpy as np
import pytest
import torch
from passes import a_pass
from torch.autograd import gradcheck

from compress.objectives.base import Pass, check
from compress.objectives.patient import PatientStates
from probes.errors import InputError


def deep(model, seed, layers):
    make = torch.Generator().manual_seed(seed)
    states = [torch.randn(6, 5, 4, generator=make, dtype=torch.float64) for _ in range(layers + 1)]
    return Pass(model, None, hidden_states=tuple(states))


@pytest.mark.parametrize(
    ("layers", "pairs"),
    [("skip", [(1, 2), (2, 4), (3, 6)]), ("last", [(1, 5), (2, 6), (3, 7)]), ({2: 8, 4: 1}, [(2, 8), (4, 1)])],
    ids=str,
)
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_it_is_the_squared_distance_of_directions_summed_over_layers(model, batch, layers, pairs, pooling):
    student, teacher = deep(model, 0, 4), deep(model, 1, 8)
    mask, expected = batch["attention_mask"].numpy(), 0.0
    for i, j in pairs:
        sides = []
        for x in (student.hidden_states[i], teacher.hidden_states[j]):
            texts = [t[m == 1] for t, m in zip(x.numpy(), mask, strict=True)]
            h = np.array([t[0] if pooling == "first" else t.mean(0) for t in texts])
            sides.append(h / np.linalg.norm(h, axis=1, keepdims=True))
        expected += (2 - 2 * (sides[0] * sides[1]).sum(1)).mean()
    which = {"strategy": layers} if isinstance(layers, str) else {"layers": layers}
    objective = PatientStates(weight=0.3, pooling=pooling, **which)
    assert objective(student, teacher, batch).item() == pytest.approx(0.3 * expected, rel=1e-9)
    longer = Pass(model, None, hidden_states=tuple(7 * x for x in student.hidden_states))
    assert objective(longer, teacher, batch).item() == pytest.approx(0.3 * expected, rel=1e-9)  # lengths play no part


def test_the_gradient_is_right_and_not_the_teachers(model, batch):
    student, teacher = deep(model, 0, 3), deep(model, 1, 3)

    def loss(x):
        states = (student.hidden_states[0], x, *student.hidden_states[2:])
        return PatientStates()(Pass(model, None, hidden_states=states), teacher, batch)

    assert gradcheck(loss, [student.hidden_states[1].clone().requires_grad_()], fast_mode=True)


def test_a_narrower_student_learns_a_map(tiny_models, model, batch):
    student = tiny_models("BertForSequenceClassification", hidden_size=8)
    learned = PatientStates().prepare(student, model, [], seed=0)
    assert sorted(learned) == ["1", "2"]
    states = tuple(torch.randn(6, 5, 8) for _ in range(4))
    theirs = tuple(torch.randn(6, 5, 12) for _ in range(4))
    given = {**batch, "modules": {"patient_states": learned}}
    PatientStates()(
        Pass(student, None, hidden_states=states), Pass(model, None, hidden_states=theirs), given
    ).backward()
    assert all(p.grad.any() for p in learned.parameters())


def test_what_is_refused(tiny_models, model, batch):
    one = tiny_models("BertForSequenceClassification", num_hidden_layers=1)
    for make, message in (
        (lambda: PatientStates(layers={}), "layers is empty"),
        (lambda: PatientStates(strategy="first"), "strategy='first': expected one of"),
        (lambda: PatientStates(pooling="last"), "pooling='last': expected one of"),
        (lambda: PatientStates(weight=-1), "weight=-1: expected a finite number"),
        (lambda: check([PatientStates()], one, model, labelled=False), r"the student has 1 block\(s\)"),
        (lambda: check([PatientStates()], model, one, labelled=False), "the student has 4 layers to compare"),
        (lambda: PatientStates()(a_pass(model, 0), None, batch), "patient_states needs a teacher"),
    ):
        with pytest.raises(InputError, match=message):
            make()
