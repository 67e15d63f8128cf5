"""Scores of whole sentences: noise and its chances, losses by hand, trainings, and models that score nothing."""

import itertools
import math

import numpy as np
import pytest
import torch
import transformers
from scipy.stats import chisquare
from speaking import masking_tokenizer, of_masked_tokens, of_the_next_token, spoken_corpus
from stops import goes_on
from trained import QUIET, same, weights

import compress
from compress.objectives.base import Pass
from compress.objectives.ngrams import Ngrams
from compress.objectives.sampled import left_out
from compress.objectives.sentence_noise import (
    PseudoLikelihood,
    SentenceContrast,
    log_chances,
    noise_texts,
    predicts_from,
    text_scores,
)
from compress.rows import training_rows
from compress.training.loop import train
from probes.errors import InputError

tokenizer, corpus = masking_tokenizer, spoken_corpus


def from_both_sides(tokenizer):
    torch.manual_seed(0)
    return compress.BiLSTMLanguageModel(compress.BiLSTMConfig(len(tokenizer), hidden_size=8)).eval()


@pytest.mark.parametrize("order", [1, 3])
def test_chances_of_texts_add_up_to_one_and_are_how_often_they_are_drawn(order):
    noise = Ngrams([[0, 1], [0], [1, 0, 0]], order, 2, ends=True)
    every = [list(text) for size in (1, 2, 3) for text in itertools.product((0, 1), repeat=size)]
    chances = np.exp(log_chances(noise, every, 3))
    assert chances.sum() == pytest.approx(1)
    texts, logs = noise_texts(noise, 2000, 3, np.random.default_rng(0))
    np.testing.assert_allclose(logs, log_chances(noise, texts, 3))
    assert chisquare([texts.count(text) for text in every], 2000 * chances).pvalue > 1e-3


def test_the_loss_from_both_sides_is_by_hand(tokenizer):
    model = from_both_sides(tokenizer)
    ids = torch.tensor([[5, 6, 7], [9, 10, 0]])
    logits = model(ids, attention_mask=(ids > 0).long()).logits
    found = PseudoLikelihood(weight=2.0)(Pass(model, logits), None, {"input_ids": ids, "attention_mask": ids > 0})
    logs = logits.double().log_softmax(-1)
    by_hand = -sum(logs[i, j, ids[i, j]] for i in range(2) for j in range(3) if ids[i, j]) / 5 * 2
    assert found.item() == pytest.approx(by_hand.item())
    (gradient,) = torch.autograd.grad(found, [logits])
    there = (ids > 0).double()[..., None]
    by_formula = (logs.exp() - torch.nn.functional.one_hot(ids, logits.shape[-1])) * there / 5 * 2
    torch.testing.assert_close(gradient.double(), by_formula.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("make", [from_both_sides, of_the_next_token])
def test_the_loss_against_sentences_of_noise_and_its_gradient_are_by_hand(tokenizer, corpus, make):
    model, k, c = make(tokenizer).double(), 2, 0.5
    objective = SentenceContrast(noise="bigram", k=k, log_normalizer=c, weight=3.0)
    rows, _ = training_rows(corpus, model, tokenizer)
    state = objective.prepare(model, None, rows, seed=1)
    ids = torch.tensor([[5, 6, 7], [9, 10, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "modules": {"sentence_contrast": state}}
    drawn, log_q = noise_texts(state.noise, 2 * k, state.longest, state.generator())

    def score(text):
        logits = model(torch.tensor([text])).logits[0]
        shift = int(make is of_the_next_token)
        return sum(logits[i - shift, text[i]] for i in range(shift, len(text)))

    losses = []
    for number, text in enumerate([[5, 6, 7], [9, 10]]):
        own = score(text) - c - math.log(k) - log_chances(state.noise, [text], state.longest)[0]
        loss = -torch.nn.functional.logsigmoid(own)
        for other in range(k * number, k * number + k):
            loss = loss - torch.nn.functional.logsigmoid(-(score(drawn[other]) - c - math.log(k) - log_q[other]))
        losses.append(loss)
    expected = 3 * sum(losses) / 2
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    given = {k: batch[k] for k in ("input_ids", "attention_mask")}
    found = objective(Pass(model, model(**given).logits), None, batch)
    state.batches.zero_()
    with left_out(model) as fed:
        model(**given)
    rows = objective(Pass(model, None, output_inputs=fed[0]), None, batch)
    assert state.samples
    assert rows.item() == pytest.approx(found.item(), rel=1e-9)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    for one, two in zip(torch.autograd.grad(found, list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


def test_a_training_tells_texts_from_noise_goes_on_and_leaves_the_model(tokenizer, corpus, tmp_path):
    model = from_both_sides(tokenizer)
    before = weights(model)

    def run(folder, *callbacks):
        given = {"folder": folder, "save_every": 10, "callbacks": callbacks, **QUIET, "learning_rate": 0.1}
        objective = SentenceContrast(noise="bigram", k=4)
        made = compress.finetune(model, tokenizer, corpus, objective=objective, steps=12, **given)
        return made.history, made

    (history, _), _ = goes_on(run, tmp_path, 11)
    assert same(weights(model), before)
    assert history["loss"][-3:].mean() < 0.6 * history["loss"][0]


def test_a_learned_constant_begins_where_noise_is_even(tokenizer, corpus):
    model = from_both_sides(tokenizer)
    rows, _ = training_rows(corpus, model, tokenizer)
    state = SentenceContrast(k=5).prepare(model, None, rows, seed=1)
    drawn, log_q = noise_texts(state.noise, 64, state.longest, np.random.default_rng(1))
    with torch.no_grad():
        scores = [
            float(text_scores(model(ids).logits, ids, ids >= 0, "both sides"))
            for ids in (torch.tensor([text]) for text in drawn)
        ]
    assert np.mean(np.array(scores) - state.log_z.item() - math.log(5) - log_q) == pytest.approx(0, abs=1e-3)
    assert state.log_z.requires_grad


def test_models_that_score_no_text_are_refused_before_a_step(tokenizer, corpus):
    masked, decoder = of_masked_tokens(tokenizer), of_the_next_token(tokenizer)
    assert predicts_from(decoder, "x") == "before"
    assert predicts_from(from_both_sides(tokenizer), "x") == "both sides"
    for model, objective, message in (
        (
            masked,
            SentenceContrast(),
            "sentence_contrast: BertForMaskedLM predicts masked tokens: expected a model",
        ),
        (decoder, PseudoLikelihood(), "LlamaForCausalLM predicts the next token: expected a model that .* both sides"),
        (transformers.BertModel(masked.config), PseudoLikelihood(), "BertModel predicts no tokens"),
        (from_both_sides(tokenizer), compress.LanguageModel(), "BiLSTMLanguageModel sees the token that it is to pre"),
    ):
        with pytest.raises(InputError, match=message):
            train(model, tokenizer, corpus, objective=[objective], steps=1, **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "objective sentence_contrast: k=0: expected a whole number of at least 1"),
        ({"noise": [1.0]}, r"noise=\[1.0\]: expected one of \('unigram', 'bigram', 'trigram', '4-gram'\)"),
        ({"log_normalizer": None}, "log_normalizer=None: expected a finite number"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        SentenceContrast(**options)
