"""Adversaries: what they say of a text by hand, what they learn by, and that they find what is hard."""

import math

import numpy as np
import pytest
import torch
from banked import LABELS, some_rows
from scipy.special import log_softmax
from torch.autograd import gradcheck

from compress.objectives.robust_adversaries import Generator, Ratios, ratio_loss, ratios, relative_entropy

CPU = torch.device("cpu")
LOSSES = torch.tensor([0.3, 2.0, 0.1, 1.2], dtype=torch.float64)


def test_ratios_and_what_they_learn_by_are_their_formulas():
    logs = torch.tensor([0.5, -1.0, 0.2, 0.0], dtype=torch.float64)
    q = np.exp(logs.numpy())
    r = 4 * q / q.sum()
    np.testing.assert_allclose(ratios(logs, None), r, rtol=1e-12)
    expected = -(r * LOSSES.numpy()).mean() + 0.7 * (r * np.log(r)).mean()
    assert float(ratio_loss(logs, LOSSES, 0.7, None)) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(ratios(logs, 3.0), q, rtol=1e-12)
    expected = -(q * LOSSES.numpy()).mean() + 0.7 * (q * np.log(q)).mean() + 3 * np.log(q.mean()) ** 2
    assert float(ratio_loss(logs, LOSSES, 0.7, 3.0)) == pytest.approx(expected, rel=1e-12)
    assert relative_entropy(r) == pytest.approx((r * np.log(r)).mean())
    for penalty in (None, 3.0):
        assert gradcheck(lambda x, p=penalty: ratio_loss(x, LOSSES, 0.7, p), [logs.clone().requires_grad_()])


@pytest.mark.parametrize("temperature", [0.5, 1e6])
def test_the_best_ratios_are_those_of_the_exponential_of_the_loss(temperature):
    """And so, at a high temperature, all texts count alike."""
    logs = (LOSSES / temperature).requires_grad_()
    ratio_loss(logs, LOSSES, temperature, None).backward()
    np.testing.assert_allclose(logs.grad, 0, atol=1e-9)
    other = torch.tensor([0.1, -0.1, 0.0, 0.0], dtype=torch.float64) + logs.detach()
    assert float(ratio_loss(other, LOSSES, temperature, None)) > float(
        ratio_loss(logs, LOSSES, temperature, None).detach()
    )
    if temperature > 1:
        np.testing.assert_allclose(ratios(logs.detach(), None), 1, atol=1e-5)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_generator_is_its_formula(labelled):
    rows = some_rows() if labelled else some_rows(None, 12)
    adversary = Generator(3, None, rows, temperature=0.5, fitted=4, device=CPU)
    known = sorted({token for row in rows for token in row["input_ids"]})
    logs = []
    with torch.no_grad():
        for row in rows:  # one at a time, without padding: begin, label, text
            label = [len(known) + 2 + row["labels"]] if labelled else []
            ids = [len(known), *label, *(known.index(token) for token in row["input_ids"])]
            said = log_softmax(adversary.network(input_ids=torch.tensor([ids])).logits[0].double().numpy(), axis=1)
            logs.append(sum(said[i, token] for i, token in enumerate(ids[1:])))
    np.testing.assert_allclose(adversary.start, logs, rtol=1e-5)
    # Weights, and what it learns by, over batches: the scale is that of the last five.
    scales: list[float] = []
    for losses in np.random.default_rng(0).uniform(0, 2, (7, 3)):
        index = [1, 5, 9]
        with torch.no_grad():
            adversary.network.lm_head.weight.add_(0.01)
            now = adversary.logs([rows[i] for i in index]).numpy()
        r, own = adversary.weigh(torch.tensor(losses), {"index": torch.tensor(index)}, None)
        adversary.batches += 1
        np.testing.assert_allclose(r, np.exp(now - np.array(logs)[index]), rtol=1e-3)
        scales.append(np.exp(losses / 0.5).sum())
        expected = -(np.exp(losses / 0.5) / sum(scales[-5:]) * now).sum()
        assert float(own.detach()) == pytest.approx(expected, rel=1e-4)
    # No gradient flows through what the losses say.
    said = torch.tensor(np.exp(losses / 0.5) / sum(scales[-5:]))
    by_hand = -(said * adversary.logs([rows[i] for i in index])).sum()
    parameters = list(adversary.network.parameters())
    pairs = zip(*(torch.autograd.grad(loss, parameters) for loss in (own, by_hand)), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in pairs)


def test_a_generator_knows_its_text_and_follows_the_losses():
    """Fitted, the text it saw is likelier than another; and hard texts count more after some steps, easy ones less."""
    rows = [{"input_ids": [5, 6 + i % 2, 7 + i % 2] * 2, "labels": i % 2, "index": i} for i in range(16)]
    adversary = Generator(0, None, rows, temperature=0.5, fitted=40, device=CPU)
    other = [{"input_ids": [5, 6, 8, 5, 7, 7], "labels": 0}]
    with torch.no_grad():
        assert float(adversary.logs(other)) < float(adversary.start.min()) - 0.5
        assert math.isfinite(float(adversary.logs([{"input_ids": [999], "labels": 1}])))  # a token that no row has
    assert float(adversary.start.mean()) > -3  # of 14 at random; log 2, for the label, is all that there is to say
    index = torch.arange(16)
    optimizer = torch.optim.AdamW(adversary.network.parameters(), lr=1e-3)
    for _ in range(15):
        r, own = adversary.weigh((index % 2).double(), {"index": index}, None)
        adversary.batches += 1
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    assert float(r[index % 2 == 1].mean()) > 1.2
    assert float(r[index % 2 == 0].mean()) < 0.8


@pytest.mark.parametrize("labelled", [True, False])
def test_a_ratio_begins_at_one_and_follows_the_losses(student, labelled):
    rows = some_rows() if labelled else some_rows(None, 12)
    adversary = Ratios(0, None, rows, student, temperature=0.1, penalty=None)
    mask = torch.ones(12, 5, dtype=torch.long)
    ids = torch.zeros_like(mask)
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask[i, len(row["input_ids"]) :] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    if labelled:
        batch["labels"] = torch.tensor(LABELS)
    hard = torch.tensor([float(i % 3 == 0) for i in range(12)])
    r, _ = adversary.weigh(hard, batch, student)
    np.testing.assert_allclose(r, 1, atol=1e-6)
    before = student.state_dict()["bert.embeddings.word_embeddings.weight"].clone()
    optimizer = torch.optim.AdamW(adversary.parameters(), lr=1e-2)
    for _ in range(15):
        r, own = adversary.weigh(hard, batch, student)
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    assert float(r.mean()) == pytest.approx(1, rel=1e-5)
    assert float(r[hard == 1].mean()) > 1.5 > 1 > float(r[hard == 0].mean())
    assert torch.equal(before, student.state_dict()["bert.embeddings.word_embeddings.weight"])  # a copy
    assert not adversary.train().body.training
