"""Losses of sparse vectors: each against its formula with its gradient, and which texts are drawn."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from translated import a_corpus

from compress.objectives.base import Pass
from compress.objectives.sparse import SparseActivations, Translations
from compress.rows import training_rows
from probes.errors import InputError
from probes.models.formats.sparse_embeddings import SparseHead


def test_flops_and_l1_are_their_formulas_with_their_gradients():
    f = torch.tensor(np.random.default_rng(0).standard_normal((5, 7)), requires_grad=True)
    x = f.detach().numpy()
    a = np.array([sum(abs(x[i, j]) for i in range(5)) / 5 for j in range(7)])
    flops, l1 = SparseActivations(), SparseActivations(form="l1")
    assert flops.of(f).item() == pytest.approx(sum(v**2 for v in a), rel=1e-12)
    assert l1.of(f).item() == pytest.approx(sum(a), rel=1e-12)
    (gradient,) = torch.autograd.grad(flops.of(f), f)
    np.testing.assert_allclose(gradient.numpy(), 2 * a[None] * np.sign(x) / 5, rtol=1e-12)
    assert gradcheck(flops.of, f)
    (gradient,) = torch.autograd.grad(l1.of(f), f)
    np.testing.assert_allclose(gradient.numpy(), np.sign(x) / 5, rtol=1e-12)


def test_at_equal_l1_flops_punishes_mass_in_one_feature_and_l1_does_not():
    one = torch.zeros(64, 64)
    one[:, 0] = 1
    spread = torch.eye(64)
    flops, l1 = SparseActivations(), SparseActivations(form="l1")
    assert float(flops.of(one)) == 1
    assert float(flops.of(spread)) == pytest.approx(1 / 64)
    assert float(l1.of(one)) == float(l1.of(spread)) == 1


def head_and_batch(features=6, texts=4, width=12):
    """A model that only has a head, states with padding, and the vectors by hand, in float64."""
    torch.manual_seed(0)
    head = SparseHead(width, features).double()
    model = torch.nn.Module()
    model.sparse_head = head
    states = torch.randn(texts, 3, width, dtype=torch.float64)
    mask = torch.ones(texts, 3, dtype=torch.long)
    mask[1, 2:] = mask[2, 1:] = 0
    states[1, 2] = math.nan  # padding
    weight, bias = (p.detach().numpy() for p in (head.linear.weight, head.linear.bias))
    vectors = []
    for x, m in zip(states.numpy(), mask.numpy(), strict=True):
        z = np.maximum(weight @ x[m == 1].mean(0) + bias, 0)
        vectors.append(z / np.linalg.norm(z))
    return Pass(model, None, hidden_states=(states,)), {"attention_mask": mask}, np.array(vectors)


def test_the_objective_reads_the_head_without_padding_and_its_weight_rises_by_the_square():
    student, batch, vectors = head_and_batch()
    objective = SparseActivations(3.0, ramp=4)
    batch["modules"] = {"flops": objective.prepare(student.model, None, [], 0)}
    whole = 3 * (np.abs(vectors).mean(0) ** 2).sum()
    found = [objective(student, None, batch).item() for _ in range(6)]
    np.testing.assert_allclose(found, [whole * min(1, (t / 4) ** 2) for t in range(1, 7)], rtol=1e-12)
    steady = SparseActivations(3.0)
    batch["modules"] = {"flops": steady.prepare(student.model, None, [], 0)}
    assert steady(student, None, batch).item() == pytest.approx(whole)


def test_a_moving_average_divides_the_weight():
    student, batch, vectors = head_and_batch()
    objective = SparseActivations(3.0, moving=0.9)
    state = objective.prepare(student.model, None, [], 0).double()
    batch["modules"] = {"flops": state}
    active = np.abs(vectors).mean(0)
    assert objective(student, None, batch).item() == pytest.approx(3 * (active**2).sum() / active.sum(), rel=1e-9)
    before = state.average.item()
    with torch.no_grad():
        student.model.sparse_head.linear.bias.add_(0.5)
    once = SparseActivations(1.0, form="l1")
    batch["modules"] = {"flops": state, "l1": once.prepare(student.model, None, [], 0)}
    now = once(student, None, batch).item()
    plain = SparseActivations(3.0, name="plain")
    batch["modules"]["plain"] = plain.prepare(student.model, None, [], 0)
    expected = plain(student, None, batch).item() / (0.9 * before + 0.1 * now)
    assert objective(student, None, batch).item() == pytest.approx(expected, rel=1e-9)
    for moving, message in ((1.0, "moving=1.0: expected below 1"), (-0.1, "moving=-0.1: expected a finite number")):
        with pytest.raises(InputError, match=message):
            SparseActivations(moving=moving)


def test_the_contrastive_loss_is_its_formula(tiny_models, make_tokenizer):
    model, tokenizer, corpus = tiny_models("BertModel"), make_tokenizer(), a_corpus()
    model.sparse_head = SparseHead(12, 24)
    rows, _ = training_rows(corpus, model, tokenizer)
    ids = corpus["id"][:]
    objective = Translations(ids, tokenizer, temperature=0.5, weight=2.0)
    index = [0, 1, 6, 9, 20]  # 0 and 1 are translations of each other
    modules = {objective.name: objective.prepare(model, None, rows, 3)}

    def vector(row):
        given = tokenizer([corpus[row]["text"]], return_tensors="pt")
        with torch.no_grad():
            z = model.sparse_head.linear(model(**given).last_hidden_state.mean(1))[0].clamp_min(0).double().numpy()
        return z / np.linalg.norm(z)

    given = tokenizer([corpus[i]["text"] for i in index], return_tensors="pt", padding=True)
    with torch.no_grad():
        states = model(**given, output_hidden_states=True).hidden_states
        batch = {"attention_mask": given["attention_mask"], "index": torch.tensor(index), "modules": modules}
        found = float(objective(Pass(model, None, hidden_states=states), None, batch))
    u = np.array([vector(i) for i in index])
    v = np.array([vector(i + 1 if i % 2 == 0 else i - 1) for i in index])  # the one translation there is
    total = 0.0
    for i in range(5):
        others = [j for j in range(5) if j == i or ids[index[j]] != ids[index[i]]]
        there, back = ([math.exp(float(s) / 0.5) for s in x] for x in (u[i] @ v[others].T, u[others] @ v[i]))
        total -= (math.log(there[others.index(i)] / sum(there)) + math.log(back[others.index(i)] / sum(back))) / 2
    assert found == pytest.approx(2 * total / 5, rel=1e-5)


def test_translations_are_drawn_of_the_same_sentence_all_alike_and_by_the_seed_and_batch_alone():
    ids = ["a", "b", "a", "c", "b", "a", "c", "a"]
    objective = Translations(ids, tokenizer=None)
    pairs = objective.prepare(None, None, [{"input_ids": [1]}] * 8, seed=0)
    drawn = np.array([pairs.draw(np.arange(8)) for _ in range(900)])
    for row, column in enumerate(drawn.T):
        others = [i for i in range(8) if i != row and ids[i] == ids[row]]
        counts = [int((column == i).sum()) for i in others]
        assert sum(counts) == 900  # never itself, never another sentence
        assert min(counts) > 0.8 * 900 / len(others)
    again = objective.prepare(None, None, [{"input_ids": [1]}] * 8, seed=0)
    again.load_state_dict({"batches": torch.tensor(500)})
    assert (again.draw(np.arange(8)) == drawn[500]).all()
    with pytest.raises(InputError, match=r"expected every id at least twice.*found 2 ids in 3 rows"):
        Translations(["a", "a", "b"], tokenizer=None)
    with pytest.raises(InputError, match="8 ids and 7 rows"):
        objective.prepare(None, None, [{}] * 7, seed=0)
