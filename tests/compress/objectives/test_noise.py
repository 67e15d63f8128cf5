"""Noise contrastive estimation: the loss by hand, its gradient beside maximum likelihood's, and trainings by it."""

import math

import numpy as np
import pytest
import torch
import transformers
from speaking import masking_tokenizer, of_masked_tokens, of_the_next_token, spoken_corpus
from stops import goes_on
from trained import QUIET, same, weights

import compress
from compress.objectives.base import IGNORED, Pass
from compress.objectives.ngrams import Shares
from compress.objectives.noise import NoiseContrast, Noisy
from compress.rows import training_rows
from compress.training.loop import train
from probes.errors import InputError

tokenizer, corpus = masking_tokenizer, spoken_corpus


class Reads:
    """Reads all logits, for nothing."""

    name, weight, needs = "reads", 0.0, frozenset()

    def __call__(self, student, teacher, batch):
        return 0.0 * student.logits.sum()


@pytest.mark.parametrize("noise", ["unigram", "trigram"])
def test_the_loss_and_its_gradient_are_those_by_hand(tokenizer, corpus, noise):
    model, k, c = of_the_next_token(tokenizer), 3, 1.5
    objective = NoiseContrast(noise=noise, k=k, log_normalizer=c, weight=2.0)
    rows, _ = training_rows(corpus, model, tokenizer)
    state = objective.prepare(model, None, rows, seed=5)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "modules": {"noise_contrast": state}}
    batch |= objective.alter(batch, tokenizer)
    assert batch["targets"].tolist() == [[6, 7, 8, IGNORED], [10, IGNORED, IGNORED, IGNORED]]
    logits = torch.randn(2, 4, len(tokenizer), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    start = state.noise.start
    before = np.array([[start, 5], [5, 6], [6, 7], [start, 9]])[:, 2 - state.noise.context :]
    drawn = state.noise.draw(before, k, state.generator())
    found = objective(Pass(model, logits), None, batch)
    found.backward()
    expected, gradient = 0.0, np.zeros(logits.shape)
    places = [(0, 0), (0, 1), (0, 2), (1, 0)]
    for place, context, wanted, others in zip(places, before, [6, 7, 8, 10], drawn, strict=True):
        for number, token in enumerate([wanted, *others]):
            q = math.exp(state.noise.log_chances(context[None], np.array([[token]]))[0, 0])
            p = math.exp(logits[(*place, token)].item() - c)
            data = p / (p + k * q)  # the chance that a token is of the text
            expected -= math.log(data if number == 0 else 1 - data) * 2 / 4
            gradient[(*place, token)] += (data - (number == 0)) * 2 / 4
    assert found.item() == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(logits.grad, gradient, rtol=1e-7, atol=1e-12)
    parts = objective.each(Pass(model, logits), None, batch)  # of the next draws
    assert parts.shape == (2,)
    assert int(state.batches) == 2


def test_the_gradient_tends_to_that_of_maximum_likelihood_with_k():
    words, texts, places = 8, 25, 40
    rng = np.random.default_rng(0)
    p, data, q = (rng.dirichlet(np.ones(words)) for _ in range(3))
    theta = torch.from_numpy(np.log(p)).requires_grad_()  # a model that is normalised
    targets = torch.from_numpy(rng.choice(words, size=(texts, places), p=data))
    real = np.bincount(targets.ravel(), minlength=words) / targets.numel()
    likelihood = p - real
    found = []
    for k in (1, 10, 100, 1000):
        objective = NoiseContrast(noise=q, k=k, log_normalizer=0.0)
        batch = {"targets": targets, "modules": {"noise_contrast": Noisy(0, Shares(q), 0.0, False)}}
        theta.grad = None
        objective(Pass(None, theta.expand(texts, places, -1)), None, batch).backward()
        gradient = theta.grad.numpy()
        # Its mean over noise, in closed form; 1,000 k draws are near it.
        np.testing.assert_allclose(gradient, k * q / (p + k * q) * likelihood, atol=0.06 / math.sqrt(k) + 0.002)
        norms = np.linalg.norm(gradient), np.linalg.norm(likelihood)
        found.append((gradient @ likelihood / math.prod(norms), norms[0] / norms[1]))
    cosine, norm = np.array(found).T
    assert (np.diff(norm) > 0).all()
    assert (np.diff(cosine[:3]) > 0).all()
    assert norm[0] < 0.7
    assert abs(norm[-1] - 1) < 0.02
    assert cosine[-1] > 0.999


def test_a_training_leaves_the_output_layer_out_and_ends_as_with_all_logits(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    before, ran = weights(model), []
    given = {"steps": 4, "seed": 3, **QUIET}
    student = of_the_next_token(tokenizer)
    student.lm_head.register_forward_hook(lambda *_: ran.append(1))
    whole = compress.finetune(model, tokenizer, corpus, objective=[NoiseContrast(k=4), Reads()], **given)
    rows = compress.finetune(model, tokenizer, corpus, objective=NoiseContrast(k=4), **given)
    assert same(weights(model), before)
    assert same(weights(rows), weights(whole), atol=1e-6)
    np.testing.assert_allclose(rows.history["noise_contrast"], whole.history["noise_contrast"], rtol=1e-5)
    assert rows.config.compression["objective"] == ["noise_contrast"]
    hooked = train(student, tokenizer, corpus, objective=[NoiseContrast(k=4)], **given)  # which has to run
    assert ran
    np.testing.assert_allclose(hooked["loss"], whole.history["loss"], rtol=1e-5)


def test_a_training_lowers_the_loss_on_its_text_and_normalises(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    before = compress.language_model_loss(model, tokenizer, corpus)["nats"]
    how = QUIET | {"learning_rate": 3e-2, "steps": 20}
    made = compress.finetune(model, tokenizer, corpus, objective=NoiseContrast(noise="bigram", k=10), **how)
    assert compress.language_model_loss(made, tokenizer, corpus)["nats"] < 0.6 * before
    found = compress.self_normalization(made, tokenizer, corpus).iloc[-1]
    assert abs(found["mean"] - math.log(len(tokenizer))) < 1  # where the constant began
    assert found["spread"] < 1


def test_a_learned_constant_begins_at_the_mean_of_log_z_and_is_trained(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    few = corpus.select(range(5))
    rows, _ = training_rows(few, model, tokenizer)
    state = NoiseContrast().prepare(model, None, rows, seed=0)
    with torch.no_grad():
        logs = [model(torch.tensor([row["input_ids"]])).logits[0, :-1].logsumexp(1) for row in rows]
    assert state.log_z.item() == pytest.approx(float(torch.cat(logs).mean()), rel=1e-5)
    assert state.log_z.requires_grad
    fixed = NoiseContrast(log_normalizer=0).prepare(model, None, rows, seed=0)
    assert not fixed.log_z.requires_grad


def test_an_interrupted_training_ends_as_it_would_have(tokenizer, corpus, tmp_path):
    def run(folder, *callbacks, k=4):
        model, objective = of_the_next_token(tokenizer), NoiseContrast(noise="trigram", k=k)
        given = {"folder": folder, "save_every": 2, "callbacks": callbacks, "steps": 4, **QUIET}
        return train(model, tokenizer, corpus, objective=[objective], **given), model

    goes_on(run, tmp_path, 3)
    with pytest.raises(InputError, match="k of noise_contrast is 5 here and was 4 there"):
        run(tmp_path / "run", k=5)


def test_it_stands_beside_other_objectives_and_in_other_verbs(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    shared = {"tokenizer": tokenizer, "train": corpus, "steps": 1, **QUIET}
    both = [NoiseContrast(k=2), compress.SoftLabels()]
    pruned = compress.prune(model, sparsity=0.5, objective=both, **shared)
    assert list(pruned.history) == ["step", "noise_contrast", "soft_labels", "loss"]
    hard = compress.finetune(model, objective=compress.Robust(NoiseContrast(k=2)), **shared)
    assert np.isfinite([*pruned.history["loss"], *hard.history["loss"]]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "objective noise_contrast: k=0: expected a whole number of at least 1"),
        ({"weight": -1}, "weight=-1: expected a finite number at least 0"),
        ({"noise": "words"}, r"noise='words': expected one of \('unigram', "),
        ({"noise": [1, -1]}, "a count a token, each a finite number of at least 0"),
        ({"log_normalizer": "fixed"}, "log_normalizer='fixed': expected a finite number, or \"learned\""),
        ({"log_normalizer": math.inf}, "log_normalizer=inf: expected a finite number"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        NoiseContrast(**options)


def test_what_it_cannot_train_is_refused_before_a_step(tokenizer, corpus):
    def refused(model, message, corpus=corpus, **options):
        before = weights(model)
        with pytest.raises(InputError, match=message):
            train(model, tokenizer, corpus, objective=[NoiseContrast(**options)], steps=1, **QUIET)
        assert same(weights(model), before)

    decoder, masked = of_the_next_token(tokenizer), of_masked_tokens(tokenizer)
    refused(masked, "BertForMaskedLM predicts masked tokens: expected a model of the next token; LanguageModel trains")
    refused(transformers.BertModel(masked.config), "objective noise_contrast: BertModel predicts no tokens: expected ")
    refused(decoder, f"noise has 3 counts, and the model predicts {len(tokenizer)} tokens", noise=[1, 1, 1])
    counts = np.ones(len(tokenizer))
    counts[tokenizer.convert_tokens_to_ids("mat")] = 0
    message = f"gives 1 of the tokens that the texts have no chance, as {counts.argmin()}, which they have [0-9]+ times"
    refused(decoder, message, noise=counts)
    with pytest.raises(InputError, match="every text is one token long, and none has a next one: give longer texts"):
        NoiseContrast().check_text(decoder, tokenizer, [{"input_ids": [5]}])
