"""Contrast of classes without a teacher: against its formula in float64, its gradient, and a training by it."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from banked import LABELS, ROWS, SIZE, a_batch, a_pass, some_rows
from torch.autograd import gradcheck

import probes
from compress.objectives.base import Pass, check
from compress.objectives.labels import CrossEntropy
from compress.objectives.supervised import SupervisedContrast
from compress.training.loop import train
from probes.errors import InputError

NAME = "supervised_contrast"
VARIANTS = [
    SupervisedContrast(k=3, size=SIZE),
    SupervisedContrast(k=3, size=SIZE, negatives="uniform", pooling="mean", weight=0.3, momentum=0),
    SupervisedContrast(k=4, size=SIZE, negatives="classes", temperature=0.5),
]


@pytest.mark.parametrize("objective", VARIANTS, ids=str)
def test_losses_and_the_bank_are_their_formulas_over_updates(student, objective):
    memory = objective.prepare(student, None, some_rows(), seed=5).double()
    bank, y = memory.student_bank.numpy().copy(), np.array(LABELS)
    weight, bias = (p.detach().numpy() for p in (memory.student.weight, memory.student.bias))
    for update, rows in enumerate([[0, 3, 7, 8], [1, 4, 9, 0], [2, 0, 10]]):
        batch, given = a_batch(rows, memory, NAME), a_pass(student, update, len(rows))
        last = given.hidden_states[-1].numpy()
        taken = [x[m == 1] for x, m in zip(last, batch["attention_mask"].numpy(), strict=True)]
        g = np.array([x[0] if objective.pooling == "first" else x.mean(0) for x in taken]) @ weight.T + bias
        g /= np.linalg.norm(g, axis=1, keepdims=True)
        generator = np.random.default_rng([5, update])
        drawn, _ = memory.draw(generator, np.array(rows), objective.k)
        same = memory.like(generator, np.array(rows))
        assert (y[same] == y[rows]).all()
        assert (same != rows).all()
        each = []
        for i in range(len(rows)):
            e = [math.exp(bank[j] @ g[i] / objective.temperature) for j in [same[i], *drawn[i]]]
            each.append(-math.log(e[0] / sum(e)))
        got = objective(given, None, batch)
        assert got.item() == pytest.approx(objective.weight * np.mean(each), rel=1e-9)
        for x, row in zip(g, rows, strict=True):
            v = objective.momentum * bank[row] + (1 - objective.momentum) * x
            bank[row] = v / np.linalg.norm(v)
        np.testing.assert_allclose(memory.student_bank.numpy(), bank, atol=1e-12)
        assert memory.batches == update + 1


def test_the_gradient_is_right(student):
    memory = SupervisedContrast(k=3, size=SIZE).prepare(student, None, some_rows(), seed=0).double()

    def loss(last):
        batch = a_batch([1, 4, 9, 2], copy.deepcopy(memory), NAME)
        return SupervisedContrast(k=3, size=SIZE)(Pass(student, None, hidden_states=(last,)), None, batch)

    assert gradcheck(loss, [a_pass(student, 0).hidden_states[-1].clone().requires_grad_()], fast_mode=True)


def test_another_row_of_the_class_is_any_of_it_alike(student):
    memory = SupervisedContrast(k=1).prepare(student, None, some_rows(), seed=0)
    drawn = memory.like(np.random.default_rng(0), np.full(4000, 9))
    counts = np.bincount(drawn, minlength=ROWS)
    assert counts[[7, 8, 10, 11]] == pytest.approx(1000, abs=5 * math.sqrt(1000 * 0.75))
    assert counts.sum() == counts[[7, 8, 10, 11]].sum()
    alone = SupervisedContrast(k=1).prepare(student, None, some_rows([0, 1, 1, 2]), seed=0)
    assert alone.like(np.random.default_rng(0), np.array([0, 3, 1])).tolist() == [0, 3, 2]


def test_nothing_told_apart_costs_the_logarithm_of_what_is_compared(student):
    objective = SupervisedContrast(k=7, size=SIZE)
    memory = objective.prepare(student, None, some_rows(), seed=0).double()
    memory.student_bank.copy_(torch.ones(ROWS, SIZE) / SIZE**0.5)
    loss = objective(a_pass(student, 0), None, a_batch([0, 3, 7, 8], memory, NAME))
    assert loss.item() == pytest.approx(math.log(8), rel=1e-12)


def test_training_brings_texts_of_a_class_together(tiny_models, make_tokenizer):
    """Cosines within classes rise above those between them; by shuffled labels they do not."""
    texts = [f"{a} {b}" for a in ("red dog", "small bird", "big cat") for b in ("sat", "ran", "sang", "on mat")]
    gaps = {}
    for kind, order in (("planted", range(12)), ("shuffled", [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])):
        labels = ["abc"[i // 4] for i in order]
        rows = [
            {"id": i, "language": "en", "text": t, "label": k}
            for i, (t, k) in enumerate(zip(texts, labels, strict=True))
        ]
        model = tiny_models(
            "BertForSequenceClassification", id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2}
        )
        tokenizer, objective = make_tokenizer(), SupervisedContrast(k=4, pooling="mean", temperature=0.3)
        train(
            model, tokenizer, probes.load_corpus(pd.DataFrame(rows)), objective=[objective], steps=25, batch_size=6,
            learning_rate=3e-3, progress=False,
        )  # fmt: skip
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model.base_model(**inputs).last_hidden_state
        z = (
            (states * inputs["attention_mask"][..., None]).sum(1) / inputs["attention_mask"].sum(1, keepdim=True)
        ).numpy()
        z = (z - z.mean(0)) / np.linalg.norm(z - z.mean(0), axis=1, keepdims=True)
        same = np.array(texts)[:, None] != np.array(texts)
        of = np.arange(12) // 4
        within = (of[:, None] == of) & same
        gaps[kind] = (z @ z.T)[within].mean() - (z @ z.T)[of[:, None] != of].mean()
    assert gaps["planted"] > 0.5
    assert gaps["planted"] > gaps["shuffled"] + 0.2


def test_what_is_refused(student, tiny_models):
    plain = tiny_models("BertModel")
    for make, message in (
        (lambda: SupervisedContrast(momentum=1), "momentum=1: expected below 1"),
        (lambda: SupervisedContrast(k=0), "k=0: expected a whole number of at least 1"),
        (lambda: SupervisedContrast(negatives="hard"), "negatives='hard': expected one of"),
        (lambda: SupervisedContrast(negatives="uniform", top_k=3), 'top_k is of negatives="classes" or "instances"'),
        (
            lambda: SupervisedContrast().prepare(student, None, some_rows(None, 6), 0),
            f"{NAME} needs labels, the rows have",
        ),
        (lambda: SupervisedContrast().prepare(student, None, some_rows([1] * 4), 0), "all 4 rows have the label 1"),
        (lambda: SupervisedContrast(top_k=9).prepare(student, None, some_rows(), 0), "top_k=9: expected at most 7"),
        (
            lambda: check([CrossEntropy(), SupervisedContrast()], student, None, False),
            "needs labels, the data has none",
        ),
        (lambda: SupervisedContrast(negatives="classes").check(plain, None), "BertModel has no head"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    objective = SupervisedContrast(k=2)
    memory = objective.prepare(student, None, some_rows(), 0)
    with pytest.raises(InputError, match="gave no hidden states"):
        objective(Pass(student, None), None, a_batch([0, 3, 7, 8], memory, NAME))
    with pytest.raises(InputError, match="row 12, the memory bank holds 12"):
        objective(a_pass(student, 0, dtype=torch.float32), None, a_batch([0, 3, 7, 12], memory, NAME))
