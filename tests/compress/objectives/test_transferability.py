"""Meta-distillation: objectives against their formula in float64, gradients, the stages, and bad input."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.autograd import gradcheck

from compress import SoftLabels, prune_heads
from compress.objectives.base import Pass, check
from compress.objectives.domains import DomainHead, transferability
from compress.objectives.transferability import MetaTeacher, Transferable
from compress.training.loop import train
from probes.errors import InputError

TOKENS, CLASSES = 4, 3
DOMAINS = ["de", "en", "zh"]


@pytest.fixture(scope="module")
def student(tiny_models):
    return tiny_models("BertForSequenceClassification", num_hidden_layers=2, hidden_size=8, num_attention_heads=4)


@pytest.fixture(scope="module")
def teacher(tiny_models):
    return tiny_models("BertForSequenceClassification", num_hidden_layers=4)


def frame(count=6):
    draw = np.random.default_rng(0)
    weights = draw.uniform(-0.2, 1, size=count)
    weights[1] = -0.1
    return pd.DataFrame({"domain": [DOMAINS[i % 3] for i in range(count)], "transferability": weights})


def some_rows(count=6):
    return [{"input_ids": [4, 5], "labels": i % 3, "index": i} for i in range(count)]


def a_pass(model, seed, count):
    make = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    c = model.config
    return Pass(
        model,
        logits=2 * draw(count, CLASSES),
        hidden_states=tuple(draw(count, TOKENS, c.hidden_size) for _ in range(1 + c.num_hidden_layers)),
        attentions=tuple(
            draw(count, c.num_attention_heads, TOKENS, TOKENS).softmax(-1) for _ in range(c.num_hidden_layers)
        ),
    )


def a_batch(index, module, name):
    mask = torch.ones(len(index), TOKENS, dtype=torch.long)
    mask[0, 2:], mask[1, 3:] = 0, 0
    labels = torch.tensor([i % 3 for i in index])
    return {"attention_mask": mask, "index": torch.tensor(index), "labels": labels, "modules": {name: module}}


def array(x):
    return x.detach().double().numpy()


def features(head, state, domain):
    w, b, e = (array(p) for p in (head.dense.weight, head.dense.bias, head.embedding.weight))
    return np.tanh(w @ (e[domain] + state) + b)


@pytest.mark.parametrize("domain_weight", [0.5, 0, 2.0])
def test_the_meta_teacher_is_its_formula(teacher, domain_weight):
    transfer, head = frame(), DomainHead(DOMAINS, width=12, seed=1).double()
    objective = MetaTeacher(transfer, head, weight=0.7, domain_weight=domain_weight)
    module = objective.prepare(teacher, None, some_rows(), seed=3).double()
    given, index = a_pass(teacher, 0, 4), [4, 1, 0, 5]
    orders = set()
    for update in range(3):
        order = np.random.default_rng([3, update]).permutation(4)
        orders.add(tuple(order))
        batch, total = a_batch(index, module, "meta_teacher"), 0.0
        classifier = array(head.classifier.weight), array(head.classifier.bias)
        for i, row in enumerate(index):
            own = array(given.logits[i])
            ce = np.log(np.exp(own).sum()) - own[row % 3]
            state = array(given.hidden_states[-1][i])[array(batch["attention_mask"][i]) == 1].mean(0)
            told = classifier[0] @ features(head, state, row % 3) + classifier[1]
            ce += domain_weight * (np.log(np.exp(told).sum()) - told[index[order[i]] % 3])
            total += max(transfer["transferability"][row], 0) * ce / 4
        assert objective(given, None, batch).item() == pytest.approx(0.7 * total, rel=1e-6)
    assert len(orders) > 1  # another order in every batch
    assert module.batches == 3


VARIANTS = [
    {},
    {"weight": 0.3, "layers": {0: 4, 2: 1}},
    {"layers": {0: 3}},
    {"layers": {1: 0, 2: 3}},
    {"head": True},
    {"head": True, "domain_weight": 3.0, "layers": {1: 1, 2: 2}},
]


def transferable(settings):
    head = {"head": DomainHead(DOMAINS, width=12, seed=1)} if settings.get("head") else {}
    return Transferable(frame(), **{**settings, **head})


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_transferable_is_its_formula(student, teacher, settings):
    objective = transferable(settings)
    module = objective.prepare(student, teacher, some_rows(), seed=0).double()
    s, t, index = a_pass(student, 0, 4), a_pass(teacher, 1, 4), [4, 1, 0, 5]
    batch, total = a_batch(index, module, "transferable"), 0.0
    fit, bias = array(module.fit.weight), array(module.fit.bias)
    mix = None if objective.layers == {0: 3} else array(module.heads.weight)  # no maps are compared then
    layers = objective.layers or {0: 0, 1: 2, 2: 4}
    for i, row in enumerate(index):
        m = array(batch["attention_mask"][i]) == 1
        mine, theirs = ([array(x[i])[m] for x in p.hidden_states] for p in (s, t))
        mine = [x @ fit.T + bias for x in mine]
        loss = np.mean([((mine[a] - theirs[b]) ** 2).mean() for a, b in layers.items()])
        maps = []
        for a, b in layers.items():
            if a > 0 and b > 0:
                x, y = (array(p.attentions[k - 1][i])[:, m][:, :, m] for p, k in ((s, a), (t, b)))
                maps.append(((np.einsum("ts,sij->tij", mix, x) - y) ** 2).mean())
        loss += np.mean(maps) if maps else 0
        if objective.head is not None:
            x, y = (features(module.head, z[-1].mean(0), row % 3) for z in (mine, theirs))
            loss += objective.domain_weight * ((x - y) ** 2).mean()
        p = np.exp(array(t.logits[i]))
        g = 1 / (1 + math.exp((p[row % 3] / p.sum() - 1) ** 2))
        total += (1 + objective.transfer["transferability"][row]) * g * loss / 4
    assert objective(s, t, batch).item() == pytest.approx(objective.weight * total, rel=1e-6)


def test_a_student_of_fewer_heads_is_compared_by_a_mixture_of_those_it_has(teacher):
    """Maps (text, 1, token, token) and (text, 2, token, token) were stretched to one another."""
    student = prune_heads(teacher, 0.5)
    assert student.config.heads_kept == [1] * 4
    assert student.config.num_attention_heads == 2
    objective = Transferable(frame(), layers={1: 1, 3: 2})
    module = objective.prepare(student, teacher, some_rows(), seed=0)
    assert module.heads.weight.shape == (2, 1)
    ids = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 11]])
    batch = a_batch([4, 1], module, "transferable") | {"attention_mask": torch.ones(2, 4, dtype=torch.long)}
    given = []
    for model in (student, teacher):
        eager = copy.deepcopy(model)
        eager.set_attn_implementation("eager")
        with torch.no_grad():
            out = eager(ids, output_hidden_states=True, output_attentions=True)
        given.append(Pass(model, out.logits, out.hidden_states, out.attentions))
    s, t = given
    total, mix = 0.0, array(module.heads.weight)[:, 0]
    for i, row in enumerate((4, 1)):
        loss = 0.0
        for a, b in ((1, 1), (3, 2)):
            x, y = array(s.attentions[a - 1][i, 0]), array(t.attentions[b - 1][i])
            loss += np.mean([(mix[h] * x - y[h]) ** 2 for h in range(2)]) / 2
            loss += ((array(s.hidden_states[a][i]) - array(t.hidden_states[b][i])) ** 2).mean() / 2
        p = np.exp(array(t.logits[i]))
        g = 1 / (1 + math.exp((p[row % 3] / p.sum() - 1) ** 2))
        total += (1 + objective.transfer["transferability"][row]) * g * loss / 2
    assert objective(s, t, batch).item() == pytest.approx(total, rel=1e-5)
    with pytest.raises(InputError, match="the map of the student's heads was prepared for 1, found 2: prepare"):
        objective(t, t, batch)
    whole = objective.prepare(teacher, teacher, some_rows(), seed=0)
    with pytest.raises(InputError, match=r"attention maps, heads last, of shape \(2, 4, 4, 1\) by the student, \(2, 4"):
        objective(s, t, batch | {"modules": {"transferable": whole}})


def test_heads_that_differ_from_block_to_block_are_refused_where_a_mixture_is_to_be_learned(teacher):
    uneven = copy.deepcopy(teacher)
    uneven.config.heads_kept = [1, 2, 1, 2]
    with pytest.raises(
        InputError, match=r"blocks of the student that are compared have \[1, 2, 1, 2\] heads: expected"
    ):
        check([Transferable(frame())], uneven, teacher, True)
    with pytest.raises(InputError, match=r"blocks of the teacher that are compared have \[1, 2, 1, 2\] heads"):
        check([Transferable(frame())], teacher, uneven, True)
    alike = Transferable(frame(), layers={1: 1, 3: 4})
    assert alike.prepare(uneven, teacher, some_rows(), 0).heads.weight.shape == (2, 1)
    for own in (uneven, teacher):
        assert isinstance(Transferable(frame()).prepare(own, own, some_rows(), 0).heads, torch.nn.Identity)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_what_is_learned_reads_states_of_any_precision(student, teacher, dtype):
    objective = Transferable(frame(), DomainHead(DOMAINS, width=12))
    module = objective.prepare(student, teacher, some_rows(), seed=0)
    s, t = a_pass(student, 0, 4), a_pass(teacher, 1, 4)
    batch = a_batch([0, 1, 2, 3], module, "transferable")
    exact = objective(s, t, batch | {"modules": {"transferable": copy.deepcopy(module).double()}})

    def cast(p):
        return Pass(
            p.model, p.logits.to(dtype), *(tuple(x.to(dtype) for x in y) for y in (p.hidden_states, p.attentions))
        )

    tolerance = 1e-6 if dtype == torch.float64 else 0.02
    assert objective(cast(s), cast(t), batch).item() == pytest.approx(exact.item(), rel=tolerance)


def test_equal_models_have_no_loss_and_padding_none(teacher):
    objective = Transferable(frame(), DomainHead(DOMAINS, width=12))
    module = objective.prepare(teacher, teacher, some_rows(), seed=0).double()
    t = a_pass(teacher, 1, 4)
    assert objective(t, t, a_batch([0, 1, 2, 3], module, "transferable")).item() == 0
    other = Pass(teacher, t.logits, tuple(x.clone() for x in t.hidden_states), t.attentions)
    for x in other.hidden_states:
        x[0, 2:] += 100
    assert objective(other, t, a_batch([0, 1, 2, 3], module, "transferable")).item() == 0
    other.hidden_states[1][0, 1] += 1
    assert objective(other, t, a_batch([0, 1, 2, 3], module, "transferable")).item() > 0


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_gradient_of_transferable(student, teacher, settings):
    objective = transferable(settings)
    module = objective.prepare(student, teacher, some_rows(), seed=0).double()
    s, t = a_pass(student, 0, 3), a_pass(teacher, 1, 3)
    batch, n = a_batch([4, 1, 2], module, "transferable"), len(s.hidden_states)
    leaves = [x.clone().requires_grad_() for x in (*s.hidden_states, *s.attentions)]
    heard = Pass(
        teacher, *(t.logits.requires_grad_(),), tuple(x.requires_grad_() for x in t.hidden_states), t.attentions
    )

    def loss(*given):
        return objective(Pass(student, s.logits, given[:n], given[n:]), heard, batch)

    assert gradcheck(loss, leaves, fast_mode=True)
    loss(*leaves).backward()
    assert all(x.grad is None for x in (t.logits, *t.hidden_states))
    assert module.fit.weight.grad.any()
    assert all(p.grad is None for p in (module.head.parameters() if module.head else []))


def test_the_gradient_of_the_meta_teacher_reaches_its_head(teacher):
    head = DomainHead(DOMAINS, width=12).double()
    objective, given = MetaTeacher(frame(), head), a_pass(teacher, 0, 4)
    module = objective.prepare(teacher, None, some_rows(), seed=0).double()
    last = given.hidden_states[-1].clone().requires_grad_()

    def loss(logits, last):
        batch = a_batch([0, 2, 3, 4], copy.deepcopy(module), "meta_teacher")
        return objective(Pass(teacher, logits, (last,)), None, batch)

    assert gradcheck(loss, [given.logits.clone().requires_grad_(), last], fast_mode=True)
    objective(Pass(teacher, given.logits, (last,)), None, a_batch([0, 2, 3, 4], module, "meta_teacher")).backward()
    assert last.grad.any()
    assert all(p.grad.any() for p in head.parameters())


def test_the_stages_train_teacher_head_and_student(student, teacher, make_tokenizer, corpus):
    tokenizer, settings = make_tokenizer(), {"batch_size": 6, "learning_rate": 1e-2, "progress": False}
    transfer = transferability(teacher, tokenizer, corpus, progress=False)
    meta, small, head = copy.deepcopy(teacher), copy.deepcopy(student), DomainHead(DOMAINS, width=12)
    for model in (meta, small):
        model.config.id2label = {0: "a", 1: "b", 2: "c"}
    before = copy.deepcopy(head.state_dict())
    first = train(meta, tokenizer, corpus, objective=[MetaTeacher(transfer, head)], steps=30, **settings)
    assert first["loss"].iloc[-5:].mean() < 0.8 * first["loss"].iloc[:5].mean()
    assert any(not torch.equal(v, before[k]) for k, v in head.state_dict().items())
    known, kept = copy.deepcopy(head.state_dict()), copy.deepcopy(meta.state_dict())
    goal = [Transferable(transfer, head)]
    second = train(small, tokenizer, corpus, objective=goal, teacher=meta, steps=30, **settings)
    assert second["loss"].iloc[-5:].mean() < 0.8 * second["loss"].iloc[:5].mean()
    assert all(torch.equal(v, known[k]) for k, v in head.state_dict().items())
    third = train(small, tokenizer, corpus, objective=[SoftLabels(temperature=2)], teacher=meta, steps=10, **settings)
    assert np.isfinite(third["loss"]).all()
    assert all(torch.equal(v, kept[k]) for k, v in meta.state_dict().items())
    # One student a domain: its rows, and their weights.
    of = [i for i, language in enumerate(corpus["language"]) if language == "en"]
    own = [Transferable(transfer[transfer["domain"] == "en"], head)]
    train(copy.deepcopy(small), tokenizer, corpus.select(of), objective=own, teacher=meta, steps=1, **settings)


def test_bad_input(student, teacher, tiny_models):
    head = DomainHead(DOMAINS, width=12)
    nan = frame().assign(transferability=math.nan)
    for make, message in (
        (lambda: MetaTeacher(frame()), "objective meta_teacher needs a head: give DomainHead"),
        (lambda: MetaTeacher(frame(), DomainHead(["de", "en"], 12)), r"domains \['zh'\], which the head does not know"),
        (lambda: Transferable(frame().drop(columns="domain")), "transfer has no column domain"),
        (lambda: Transferable(nan), "weights that are not finite"),
        (lambda: Transferable(frame(), layers={}), "layers is empty"),
        (lambda: Transferable(frame(), weight=-1), "weight=-1: expected a finite number at least 0"),
        (lambda: Transferable(frame(), domain_weight=-1), "domain_weight=-1: expected"),
        (lambda: Transferable(frame()).prepare(student, teacher, some_rows(5), 0), "weighs 6 texts, there are 5 rows"),
        (lambda: check([Transferable(frame(), layers={3: 1})], student, teacher, True), "layers has 3: 1"),
        (lambda: check([Transferable(frame())], student, teacher, False), "transferable needs labels"),
        (lambda: check([Transferable(frame())], student, None, True), "transferable needs a teacher"),
        (lambda: check([Transferable(frame())], student, tiny_models("BertModel"), True), "has no head"),
        (lambda: check([MetaTeacher(frame(), head)], student, None, True), "of 12 features, .* gives 8"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    objective = Transferable(frame())
    module = objective.prepare(student, teacher, some_rows(), seed=0).double()
    s, t, batch = a_pass(student, 0, 4), a_pass(teacher, 1, 4), a_batch([0, 1, 2, 3], module, "transferable")
    for given, message in (
        ((s, None, batch), "objective transferable needs a teacher"),
        ((Pass(student, s.logits), t, batch), "gave no hidden states"),
        ((s, Pass(teacher, t.logits, t.hidden_states), batch), "gave no attention maps"),
        ((s, t, {k: v for k, v in batch.items() if k != "labels"}), "the batch has no labels"),
        ((s, t, {k: v for k, v in batch.items() if k != "index"}), "the batch has no index"),
        ((s, t, {**batch, "modules": {}}), "the batch has no module of it"),
    ):
        with pytest.raises(InputError, match=message):
            objective(*given)
