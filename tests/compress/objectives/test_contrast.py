"""Contrastive objectives: each against its formula in float64, its gradient, its bank, and a training by it."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from banked import LABELS, ROWS, SIZE, a_batch, a_pass, some_rows
from stops import Stops
from torch.autograd import gradcheck

import probes
from compress.objectives.base import Pass
from compress.objectives.contrast import CRD, CoDIR
from compress.training.loop import train
from probes.errors import InputError

TEXT = "red dog ran on mat small bird sang under tree big cat sat over house"


def g_of(given, memory, side, objective, mask):
    """The latents of a batch in numpy, one text at a time."""
    linear = getattr(memory, side)
    weight, bias = (p.detach().numpy() for p in (linear.weight, linear.bias))
    states = [x.double().numpy() for x in given.hidden_states]
    if isinstance(objective, CRD):
        taken = [len(states) - 1]
    elif objective.layers is None:
        taken = list(range(1, len(states)))
    else:
        taken = list(objective.layers if side == "student" else objective.layers.values())
    out = []
    for text, m in enumerate(mask.numpy()):
        parts = []
        for layer in taken:
            tokens = states[layer][text][m == 1]
            parts.append(tokens[0] if objective.pooling == "first" else tokens.mean(0))
        g = weight @ np.concatenate(parts) + bias
        out.append(g / np.linalg.norm(g))
    return np.array(out)


def nce_by_hand(anchors, bank, rows, drawn, z, objective, shares):
    """One side of the two-sided form, one probability at a time; Z is made where it is None."""
    n, k, tau = len(bank), objective.k, objective.temperature
    scores = [[math.exp(bank[j] @ g / tau) for j in [r, *d]] for g, r, d in zip(anchors, rows, drawn, strict=True)]
    z = n * np.mean(scores) if z is None else z
    total = 0.0
    for b, (g, own) in enumerate(zip(anchors, rows, strict=True)):
        p = np.array(scores[b]) / z
        total += math.log(p[0] / (p[0] + k / n)) + sum(math.log((k / n) / (x + k / n)) for x in p[1:])
        for m, share in enumerate([] if shares is None else shares[b]):
            v = share * bank[own] + (1 - share) * bank[drawn[b][m]]
            x = math.exp(v / np.linalg.norm(v) @ g / tau) / z
            total += (1 - share) * math.log((k / n) / (x + k / n))
    return -total / len(anchors), z


VARIANTS = [
    CoDIR(k=3, size=SIZE),
    CoDIR(k=6, size=SIZE, weight=0.3, pooling="first", layers={0: 3, 2: 1}, temperature=0.5, momentum=0.9),
    CoDIR(k=3, size=SIZE, form="nce"),
    CoDIR(k=20, size=SIZE, form="nce", pooling="first", layers={1: 2}, momentum=0),
    CoDIR(size=SIZE, negatives="batch", temperature=0.2),
    CRD(k=3, size=SIZE),
    CRD(k=5, size=SIZE, negatives="instances", top_k=3, pooling="mean", weight=0.8),
    CRD(k=4, size=SIZE, negatives="classes", top_k=1),
    CRD(k=3, size=SIZE, mixup=1.0),
    CRD(k=5, size=SIZE, negatives="instances", top_k=3, mixup=0.2),
    CRD(k=2, size=SIZE, negatives="classes", mixup=0.2),
]


UNLABELLED = [o for o in VARIANTS if o.negatives != "classes"]


@pytest.mark.parametrize(
    ("objective", "labels"), [*((o, LABELS) for o in VARIANTS), *((o, None) for o in UNLABELLED)], ids=str
)
def test_losses_and_banks_are_their_formulas_over_updates(student, teacher, objective, labels):
    memory = objective.prepare(student, teacher, some_rows(labels, ROWS), seed=5).double()
    banks = {side: bank.numpy().copy() for side, bank in memory.named_buffers() if side.endswith("bank")}
    z = [None, None]
    for update, rows in enumerate([[0, 3, 7, 8], [1, 4, 9, 0], [0, 8, 11, 5], [2, 0, 10]]):
        own = None if labels is None else [labels[i] for i in rows]
        batch = a_batch(rows, memory, objective.name, own)
        passes = [a_pass(m, 10 * update + i, len(rows)) for i, m in enumerate((student, teacher))]
        s, t = (
            g_of(p, memory, side, objective, batch["attention_mask"])
            for p, side in zip(passes, ("student", "teacher"), strict=True)
        )
        generator = np.random.default_rng([5, update])
        if isinstance(objective, CoDIR) and objective.negatives == "batch":
            each = []
            for i, g in enumerate(s):
                others = [j for j in range(len(s)) if (own[j] != own[i] if own else j != i)]
                scores = np.exp([t[j] @ g / objective.temperature for j in [i, *others]])
                each.append(-math.log(scores[0] / scores.sum()))
            expected = np.mean(each)
        elif isinstance(objective, CoDIR) and objective.form == "softmax":
            drawn, _ = memory.draw(generator, np.array(rows), objective.k)
            each = []
            for i, g in enumerate(s):
                scores = np.exp([v @ g / objective.temperature for v in [t[i], *banks["teacher_bank"][drawn[i]]]])
                each.append(-math.log(scores[0] / scores.sum()))
            expected = np.mean(each)
        else:
            drawn, near = memory.draw(generator, np.array(rows), objective.k)
            shares, mixup = None, getattr(objective, "mixup", None)
            if mixup is not None:
                shares = np.minimum(generator.beta(mixup, mixup, (len(rows), near)), 0.5)
            sides = []
            for side, (anchors, bank) in enumerate(((s, "teacher_bank"), (t, "student_bank"))):
                loss, z[side] = nce_by_hand(anchors, banks[bank], rows, drawn, z[side], objective, shares)
                sides.append(loss)
            expected = np.mean(sides) if isinstance(objective, CoDIR) else np.sum(sides)
        got = objective(*passes, batch)
        assert got.item() == pytest.approx(objective.weight * expected, rel=1e-9)
        for name, bank in banks.items():
            for g, row in zip(s if name == "student_bank" else t, rows, strict=True):
                v = objective.momentum * bank[row] + (1 - objective.momentum) * g
                bank[row] = v / np.linalg.norm(v)
            np.testing.assert_allclose(memory.get_buffer(name).numpy(), bank, atol=1e-12)
        if z[0] is not None:
            np.testing.assert_allclose(memory.log_z.exp().numpy(), z, rtol=1e-9)  # of the first batch, whatever follows
        assert memory.batches == update + 1


@pytest.mark.parametrize("objective", VARIANTS, ids=str)
def test_the_gradient_is_right_and_reaches_the_student_and_projections_only(student, teacher, objective):
    memory = objective.prepare(student, teacher, some_rows(), seed=0).double()
    s, t = a_pass(student, 0), a_pass(teacher, 1)
    objective(s, t, a_batch([0, 3, 7, 8], memory, objective.name, [0, 1, 2, 2]))  # so that Z is set

    def loss(*given):
        m = copy.deepcopy(memory)
        for linear, weight in zip((m.student, m.teacher), given[-2:], strict=True):
            del linear.weight
            linear.weight = weight
        batch = a_batch([1, 2, 4, 9], m, objective.name, [0, 0, 1, 2])
        return objective(Pass(student, None, hidden_states=given[:-2]), t, batch)

    leaves = [x.clone().requires_grad_() for x in (*s.hidden_states, memory.student.weight, memory.teacher.weight)]
    assert gradcheck(loss, leaves, fast_mode=True)
    heard = [x.clone().requires_grad_() for x in t.hidden_states]
    loss_of = objective(
        Pass(student, None, hidden_states=tuple(leaves[:-2])),
        Pass(teacher, None, hidden_states=tuple(heard)),
        a_batch([1, 2, 4, 9], memory, objective.name, [0, 0, 1, 2]),
    )
    loss_of.backward()
    assert all(x.grad is None for x in heard)
    taken = getattr(objective, "layers", None) or ([2] if isinstance(objective, CRD) else [1, 2])
    assert [x.grad is not None and bool(x.grad.any()) for x in leaves[:-2]] == [i in taken for i in range(3)]
    assert memory.student.weight.grad.abs().sum() > 0
    grad = memory.teacher.weight.grad
    # Of a bank without gradient the teacher's map would hear of positives alone.
    assert (grad is None) is ((getattr(objective, "form", ""), objective.negatives) == ("softmax", "bank"))
    assert grad is None or grad.abs().sum() > 0
    assert not any(b.requires_grad for b in memory.buffers())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_states_of_less_precision_are_computed_in_float32(student, teacher, dtype):
    for objective in (CoDIR(k=3, size=SIZE), CRD(k=3, size=SIZE)):
        memory = objective.prepare(student, teacher, some_rows(), seed=0)
        s, t = a_pass(student, 0, dtype=dtype), a_pass(teacher, 1, dtype=dtype)
        wide = [Pass(p.model, None, hidden_states=tuple(x.double() for x in p.hidden_states)) for p in (s, t)]
        expected = objective(*wide, a_batch([0, 3, 7, 8], copy.deepcopy(memory).double(), objective.name))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = objective(s, t, a_batch([0, 3, 7, 8], memory, objective.name))
        assert got.dtype == torch.float32
        assert got.item() == pytest.approx(expected.item(), rel=1e-4)


def test_padding_plays_no_part(student, teacher):
    for objective in (CoDIR(k=3, size=SIZE), CRD(k=3, size=SIZE), CRD(k=3, size=SIZE, pooling="mean")):
        losses = []
        for other in (0.0, 1e3):
            s, t = a_pass(student, 0), a_pass(teacher, 1)
            for p in (s, t):
                for x in p.hidden_states:
                    x[0, 2:] += other
            memory = objective.prepare(student, teacher, some_rows(), seed=0).double()
            losses.append(objective(s, t, a_batch([0, 3, 7, 8], memory, objective.name)).item())
            for p in (s, t):
                for x in p.hidden_states:
                    x[0, 0] += other
            memory = objective.prepare(student, teacher, some_rows(), seed=0).double()
            moved = objective(s, t, a_batch([0, 3, 7, 8], memory, objective.name)).item()
        assert losses[0] == losses[1]
        assert moved != losses[0]  # a token that is one


@pytest.mark.parametrize("labels", [None, [0, 1, 0, 1, 0, 1]], ids=["unlabelled", "labelled"])
def test_bank_and_batch_agree_where_the_bank_holds_the_batch(student, teacher, labels):
    rows = some_rows(labels, 6)
    s, t = a_pass(student, 0, 6), a_pass(teacher, 1, 6)
    found = {}
    for negatives in ("bank", "batch"):
        objective = CoDIR(k=3 if labels else 5, size=SIZE, negatives=negatives)  # all that may be
        memory = objective.prepare(student, teacher, rows, seed=0).double()
        batch = a_batch(list(range(6)), memory, "codir", labels)
        if negatives == "bank":
            memory.teacher_bank.copy_(torch.from_numpy(g_of(t, memory, "teacher", objective, batch["attention_mask"])))
        loss = objective(s, t, batch)
        found[negatives] = (loss.item(), torch.autograd.grad(loss, memory.student.weight)[0])
    assert found["bank"][0] == pytest.approx(found["batch"][0], rel=1e-12)
    torch.testing.assert_close(found["bank"][1], found["batch"][1])
    if labels is None:  # which is the usual contrastive loss of a batch
        g, h = (
            torch.from_numpy(g_of(p, memory, side, objective, batch["attention_mask"]))
            for p, side in ((s, "student"), (t, "teacher"))
        )
        assert found["batch"][0] == pytest.approx(F.cross_entropy(g @ h.T / 0.07, torch.arange(6)).item(), rel=1e-12)


def test_a_text_without_negatives_in_its_batch_has_no_loss(student, teacher):
    objective = CoDIR(size=SIZE, negatives="batch")
    memory = objective.prepare(student, teacher, some_rows(), seed=0).double()
    s, t = a_pass(student, 0), a_pass(teacher, 1)
    assert objective(s, t, a_batch([0, 1, 2, 0], memory, "codir", [0, 0, 0, 0])).item() == 0
    assert objective(s, t, a_batch([0, 1, 2, 3], memory, "codir", [0, 0, 0, 1])).item() > 0


def test_the_teacher_is_left_as_it_was_and_decoders_work(tiny_models):
    decoder = tiny_models("LlamaForSequenceClassification")
    decoder.train()
    before = {k: v.clone() for k, v in decoder.state_dict().items()}
    objective = CRD(k=3, negatives="classes", pooling="mean")
    memory = objective.prepare(decoder, decoder, some_rows(), seed=0)  # token_type_ids are not for it
    assert decoder.training
    assert all(torch.equal(v, before[k]) for k, v in decoder.state_dict().items())
    given = a_pass(decoder, 0, dtype=torch.float32)
    assert torch.isfinite(objective(given, given, a_batch([0, 3, 7, 8], memory, "crd")))


BAD = [
    (lambda: CoDIR(k=0), "objective codir: k=0: expected a whole number of at least 1"),
    (lambda: CRD(k=2.5), "objective crd: k=2.5: expected a whole number"),
    (lambda: CRD(k=True), "objective crd: k=True: expected a whole number"),
    (lambda: CRD(size=0), "size=0: expected a whole number"),
    (lambda: CRD(temperature=0), "temperature=0: expected a finite number above 0"),
    (lambda: CRD(sharpness=0), "sharpness=0: expected a finite number above 0"),
    (lambda: CRD(mixup=0), "mixup=0: expected a finite number above 0"),
    (lambda: CoDIR(momentum=1), "momentum=1: expected below 1"),
    (lambda: CoDIR(momentum=-0.1), "momentum=-0.1: expected a finite number at least 0"),
    (lambda: CoDIR(weight=-1), "weight=-1: expected a finite number at least 0"),
    (lambda: CoDIR(pooling="last"), "pooling='last': expected one of"),
    (lambda: CoDIR(form="l2"), "form='l2': expected one of"),
    (lambda: CoDIR(layers={}), "layers is empty"),
    (lambda: CoDIR(form="nce", negatives="batch"), 'form="nce" draws from a bank'),
    (lambda: CRD(negatives="hard"), "negatives='hard': expected one of"),
    (lambda: CRD(negatives="instances", top_k=0), "top_k=0: expected a whole number of at least 1"),
    (lambda: CRD(top_k=3), 'top_k is of negatives="classes" or "instances"'),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_bad_calls(student, teacher):
    s, t = a_pass(student, 0), a_pass(teacher, 1)
    for objective in (CoDIR(k=2), CRD(k=2)):
        name = objective.name
        memory = objective.prepare(student, teacher, some_rows(), seed=0)
        batch = a_batch([0, 3, 7, 8], memory, name)
        bare = Pass(student, None)
        for given, message in (
            ((s, None, batch), f"objective {name} needs a teacher"),
            ((bare, t, batch), "BertForSequenceClassification gave no hidden states"),
            ((s, bare, batch), "BertForSequenceClassification gave no hidden states"),
            ((s, t, {**batch, "modules": {}}), "the batch has no module of it, found .*: call prepare once"),
            ((s, t, {k: v for k, v in batch.items() if k != "modules"}), "the batch has no module of it"),
            ((s, t, {k: v for k, v in batch.items() if k != "index"}), "the batch has no index"),
            ((s, t, {k: v for k, v in batch.items() if k != "attention_mask"}), "the batch has no attention_mask"),
            ((s, t, {**batch, "index": torch.tensor([0, 3, 7, 12])}), "row 12, the memory bank holds 12"),
            ((t, t, batch), "the projection of the student was prepared for"),
        ):
            with pytest.raises(InputError, match=message):
                objective(*given)
    short = Pass(student, None, hidden_states=s.hidden_states[:2])
    objective = CoDIR(k=2, layers={2: 2})
    memory = objective.prepare(student, teacher, some_rows(), seed=0)
    with pytest.raises(InputError, match=r"layers has 2, .* gave the states of 2: expected at most 1"):
        objective(short, t, a_batch([0, 3, 7, 8], memory, "codir"))


@pytest.mark.parametrize(
    ("objective", "learning_rate"),
    [
        (CoDIR(k=4), 1e-3),
        (CoDIR(k=11, form="nce"), 1e-2),
        (CRD(k=4, negatives="instances", mixup=0.2, pooling="mean", temperature=0.2), 1e-2),
    ],
    ids=str,
)
def test_training_brings_each_text_to_its_own_of_the_teacher(
    tiny_models, make_tokenizer, objective, learning_rate, monkeypatch
):
    """By the loop: most of 12 texts find their own among the teacher's latents; before, hardly any."""
    words = TEXT.split()
    texts = [" ".join(words[i : i + 4]) for i in range(12)]
    corpus = probes.load_corpus(pd.DataFrame([{"id": i, "language": "en", "text": t} for i, t in enumerate(texts)]))
    models = [
        tiny_models("BertForSequenceClassification", num_hidden_layers=2, hidden_size=8),
        tiny_models("BertForSequenceClassification"),
    ]
    with torch.no_grad():
        for model in models:
            model.bert.embeddings.word_embeddings.weight.mul_(20)  # so that words are what states are of
    tokenizer, made, prepare = make_tokenizer(), [], type(objective).prepare
    monkeypatch.setattr(type(objective), "prepare", lambda *given: made.append(prepare(*given)) or made[-1])
    inputs = tokenizer(texts, padding=True, return_tensors="pt")

    def found():
        with torch.no_grad():
            states = [m(**inputs, output_hidden_states=True).hidden_states for m in models]
        s, t = (
            g_of(Pass(m, None, hidden_states=x), made[-1], side, objective, inputs["attention_mask"])
            for m, x, side in zip(models, states, ("student", "teacher"), strict=True)
        )
        return ((s @ t.T).argmax(1) == np.arange(12)).mean()

    objective.prepare(*models, [{"input_ids": ids} for ids in inputs["input_ids"].tolist()], 0)
    assert found() <= 0.25
    settings = {"teacher": models[1], "batch_size": 6, "learning_rate": learning_rate, "progress": False}
    train(models[0], tokenizer, corpus, objective=[objective], steps=150, **settings)
    assert len(made) == 2
    assert found() >= 0.5


def test_a_training_that_was_interrupted_ends_as_it_would_have(student, teacher, make_tokenizer, tmp_path):
    corpus = probes.load_corpus(
        pd.DataFrame([{"id": i, "language": "en", "text": f"{w} sat on mat"} for i, w in enumerate(["cat", "dog"] * 6)])
    )
    objective = [CRD(k=3, negatives="instances", mixup=0.2)]
    settings = {"objective": objective, "teacher": teacher, "batch_size": 4, "progress": False, "steps": 6}
    whole, stopped = copy.deepcopy(student), copy.deepcopy(student)
    expected = train(whole, make_tokenizer(), corpus, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, make_tokenizer(), corpus, folder=tmp_path, save_every=2, callbacks=[Stops(5)], **settings)
    again = copy.deepcopy(student)
    log = train(again, make_tokenizer(), corpus, folder=tmp_path, save_every=2, **settings)
    pd.testing.assert_frame_equal(log, expected)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in again.state_dict().items())
