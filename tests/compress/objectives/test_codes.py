"""Bits of codewords as what is trained for: formulas, gradients, and what is read in place of the text."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from speaking import masking_tokenizer, of_kind, of_masked_tokens, of_the_next_token, spoken_corpus
from stops import Stops
from trained import QUIET, same, weights

import compress
from compress.objectives.base import IGNORED, Pass
from compress.objectives.codes import CodedLabels, CodedTokens, bit_losses, nearest_words, very_slow
from compress.rows import training_rows
from compress.training.loop import train
from probes.errors import InputError
from probes.models.formats.output_codes import coded_output_of, saying_bits

tokenizer, corpus = masking_tokenizer, spoken_corpus


@pytest.fixture
def coded(tokenizer):
    return compress.code_outputs(of_the_next_token(tokenizer).double(), bits=9, assignment="random")


def by_hand(head, state, word):
    z = [
        float((w @ state + b).detach())
        for w, b in zip(head.linear.weight.detach(), head.linear.bias.detach(), strict=True)
    ]
    p = [1 / (1 + math.exp(-x)) for x in z]
    return -np.mean([math.log(q if c else 1 - q) for q, c in zip(p, head.table()[word].tolist(), strict=True)])


def a_batch(tokenizer, coded, objective, seed=0):
    ids = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": mask}
    return batch | {"modules": {objective.name: objective.prepare(coded, None, [], seed)}}


@pytest.mark.parametrize("says", ["words", "bits"])
def test_the_loss_is_that_of_each_bit_by_hand_and_so_is_its_gradient(tokenizer, coded, says):
    head = coded_output_of(coded)
    objective = CodedTokens(weight=2.0)
    states = torch.randn(2, 3, 16, dtype=torch.float64)
    targets = torch.tensor([[4, 7, IGNORED], [IGNORED, 9, 5]])
    batch = {"targets": targets, "modules": {}}

    def loss():
        with saying_bits(coded, says):
            return objective(Pass(coded, head(states)), None, batch)

    there = [(0, 0, 4), (0, 1, 7), (1, 1, 9), (1, 2, 5)]
    expected = 2 * np.mean([by_hand(head, states[i, j], w) for i, j, w in there])
    assert loss().item() == pytest.approx(expected, rel=1e-12)
    gradient = torch.autograd.grad(loss(), head.linear.weight)[0]
    with torch.no_grad():
        for at in ((0, 0), (4, 3), (8, 15)):
            ends = []
            for step in (1e-6, -1e-6):
                head.linear.weight[at] += step
                ends.append(2 * np.mean([by_hand(head, states[i, j], w) for i, j, w in there]))
                head.linear.weight[at] -= step
            assert float(gradient[at]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-9)
    with saying_bits(coded, says):
        each = objective.each(Pass(coded, head(states)), None, batch)
        none = objective(Pass(coded, head(states)), None, batch | {"targets": torch.full_like(targets, IGNORED)})
    assert float(each.mean()) == pytest.approx(expected, rel=1e-12)
    assert float(none) == 0


def test_the_loss_of_labels_is_minus_the_log_likelihood_over_bits(make_classifier):
    coded = compress.code_outputs(make_classifier().double(), bits=5, assignment="random")
    head, states = coded_output_of(coded), torch.randn(4, 12, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 2])
    expected = [by_hand(head, state, int(label)) for state, label in zip(states, labels, strict=True)]
    for says in ("words", "bits"):
        with saying_bits(coded, says):
            found = CodedLabels(weight=3.0).each(Pass(coded, head(states)), None, {"labels": labels})
        np.testing.assert_allclose(found.detach(), 3 * np.array(expected), rtol=1e-12)
        with saying_bits(coded, says):
            loss = CodedLabels(weight=3.0)(Pass(coded, head(states)), None, {"labels": labels})
        gradient = torch.autograd.grad(loss, head.linear.weight)[0]
        likely = head.linear(states).detach().sigmoid() - head.table(labels)  # by each bit, in closed form
        np.testing.assert_allclose(gradient, 3 * likely.T @ states / (4 * 5), rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="objective coded_labels: the batch has no labels"):
        CodedLabels()(Pass(coded, head(states)), None, {})


def test_nothing_is_read_otherwise_without_a_mixture_or_before_it_comes_in(tokenizer, coded):
    for objective in (CodedTokens(), CodedTokens(mixture="curriculum", batches=10)):
        batch = a_batch(tokenizer, coded, objective)
        altered = objective.alter(batch, tokenizer)
        assert altered["targets"].tolist() == [[6, 7, 8, 9, IGNORED], [11, 12, IGNORED, IGNORED, IGNORED]]
        assert torch.equal(altered.get("input_ids", batch["input_ids"]), batch["input_ids"])
    assert very_slow(0) < 1e-4
    assert very_slow(1) == 1


def test_with_all_bits_the_curriculum_reads_what_the_model_says(tokenizer, coded):
    objective = CodedTokens(mixture="curriculum", batches=1, most=1.0)
    batch = a_batch(tokenizer, coded, objective)
    batch["input_ids"][0, 2] = tokenizer.mask_token_id  # special: stays, though there is something before it
    batch["modules"][objective.name].batches += 1
    before = coded.training
    read = objective.alter(batch, tokenizer)["input_ids"]
    assert coded.training == before
    assert coded_output_of(coded).says == "words"
    with saying_bits(coded), torch.no_grad():
        said = coded(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    words = coded_output_of(coded).decoded(said, "hamming")
    expected = batch["input_ids"].clone()
    special = torch.tensor(tokenizer.all_special_ids)
    for i, j in ((0, 1), (0, 3), (0, 4), (1, 1), (1, 2)):
        if words[i, j - 1] not in special:
            expected[i, j] = words[i, j - 1]
    assert torch.equal(read, expected)
    assert not torch.equal(read, batch["input_ids"])


def test_bits_are_drawn_in_proportion_to_their_likelihood(tokenizer, coded):
    objective = CodedTokens(mixture="curriculum", batches=1, most=1 / 9)  # one bit of nine
    head = coded_output_of(coded)
    with torch.no_grad():
        head.linear.weight.zero_()
        p = torch.tensor([0.9, 0.9, 0.45, 0.3, 0.1, 0.6, 0.1, 0.2, 0.05], dtype=torch.float64)
        head.linear.bias.copy_(torch.logit(p))
    batch = a_batch(tokenizer, coded, objective)
    batch["input_ids"] = torch.full((60, 30), 7)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["modules"][objective.name].batches += 1
    seen = []
    head.decoded = lambda bits, by: seen.append(bits) or torch.full(bits.shape[:1], 7)
    objective.alter(batch, tokenizer)
    del head.decoded
    own = head.table(torch.tensor(7)) * 2 - 1
    taken = (seen[0] != own).sum(0).numpy()
    assert taken.sum() == 60 * 29
    assert chisquare(taken, taken.sum() * p.numpy() / float(p.sum())).pvalue > 1e-3


def test_the_differentiable_mixture_is_the_text_at_no_share_and_its_gradient_is_right(tokenizer):
    # Llama's norms round to float32, these do not.
    coded = compress.code_outputs(of_kind("gpt_neox", tokenizer).double(), bits=9, assignment="random")
    objective = CodedTokens(mixture="differentiable", batches=4)
    batch = a_batch(tokenizer, coded, objective)
    state = batch["modules"][objective.name].double()

    def loss():
        state.batches.fill_(2)  # half of the way
        altered = objective.alter(batch, tokenizer)
        out = coded(inputs_embeds=altered["inputs_embeds"], attention_mask=batch["attention_mask"]).logits
        return objective(Pass(coded, out), None, batch | altered)

    gradient, through = torch.autograd.grad(loss(), [state.mixing, coded_output_of(coded).linear.weight])
    assert float(gradient.abs()) > 1e-6
    assert bool(through.isfinite().all())
    with torch.no_grad():
        ends = []
        for step in (1e-5, -1e-5):
            state.mixing += step
            ends.append(float(loss()))
            state.mixing -= step
        assert float(gradient) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)
        state.mixing.fill_(-40.0)
        read = objective.alter(batch, tokenizer)["inputs_embeds"]
        torch.testing.assert_close(read, coded.get_input_embeddings()(batch["input_ids"]), rtol=1e-4, atol=1e-6)
        state.mixing.fill_(40.0)
        other = objective.alter(batch, tokenizer)["inputs_embeds"]
    moved = (other - read).abs().amax(-1) > 1e-3
    assert moved.tolist() == [[False, True, True, True, True], [False, True, True, False, False]]


def test_nearest_words_are_the_likeliest_of_all(coded):
    head = coded_output_of(coded)
    soft = torch.rand(7, 9, dtype=torch.float64).clamp(0.05, 0.95)
    table = head.table().double()
    each = (table[None] * soft.log()[:, None] + (1 - table[None]) * (1 - soft).log()[:, None]).sum(-1)
    assert nearest_words(head, soft, 3).tolist() == each.topk(3).indices.tolist()
    assert nearest_words(head, soft, 1000).shape == (7, len(table))
    assert nearest_words(head, soft[:0], 3).shape == (0, 3)
    words = torch.tensor([3, 4])
    assert bit_losses(head, head.likelihoods(torch.zeros(2, 9)), words).tolist() == pytest.approx([math.log(2)] * 2)


def test_an_interrupted_training_ends_as_it_would_have(tokenizer, corpus, tmp_path):
    model = compress.code_outputs(of_the_next_token(tokenizer), bits=7)
    settings = {**QUIET, "objective": [CodedTokens(mixture="differentiable", batches=3)], "steps": 3}
    whole, half, again = (copy.deepcopy(model) for _ in range(3))
    history = train(whole, tokenizer, corpus, **settings)
    settings |= {"folder": tmp_path, "save_every": 2}
    with pytest.raises(KeyboardInterrupt):
        train(half, tokenizer, corpus, callbacks=[Stops(2)], **settings)
    assert train(again, tokenizer, corpus, **settings).equals(history)
    assert same(weights(whole), weights(again))
    assert not same(weights(whole), weights(model), atol=1e-5)


def test_what_cannot_be_trained_is_refused_before(tokenizer, coded, corpus, make_classifier, make_tokenizer):
    rows, _ = training_rows(corpus, coded, tokenizer, numbered_by=None)
    for bad, message in [
        ({"weight": -1}, "objective coded_tokens: weight=-1"),
        ({"mixture": "some"}, "mixture='some' is not known; choose one of 'curriculum', 'differentiable'"),
        ({"batches": 0}, "batches=0: expected a whole number of at least 1"),
        ({"most": 1.5}, "most=1.5: expected a share above 0 and at most 1"),
        ({"most": 0}, "most=0: expected a finite number above 0"),
        ({"temperature": 0}, "temperature=0: expected a finite number above 0"),
    ]:
        with pytest.raises(InputError, match=message):
            CodedTokens(**bad)
    for objective, plain in ((CodedTokens(), of_the_next_token(tokenizer)), (CodedLabels(), make_classifier())):
        with pytest.raises(InputError, match="has no output codes: expected a model of"):
            objective.check(plain, None)
    with pytest.raises(InputError, match="every text is one token long"):
        CodedTokens().check_text(coded, tokenizer, [{"input_ids": [4]}])
    with pytest.raises(InputError, match="predicts masked tokens: expected a decoder"):
        CodedTokens().check_text(of_masked_tokens(tokenizer), tokenizer, rows)
    how = {"objective": [CodedTokens(mixture="curriculum")], "replace_words": compress.NearestWords("static", 0.5)}
    with pytest.raises(InputError, match=r"replace_words=... and mixture='curriculum' of .* coded_tokens both"):
        train(coded.float(), tokenizer, corpus, steps=1, **how)
    classes = compress.code_outputs(make_classifier(), bits=4)
    with pytest.raises(InputError, match="needs labels"):
        train(classes, make_tokenizer(), corpus, objective=[CodedLabels()], steps=1)
