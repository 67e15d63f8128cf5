"""The objective of language models: formulas, what is masked, trainings that go on, and what cannot be predicted."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from scipy.stats import binomtest
from speaking import masking_tokenizer, of_masked_tokens, of_the_next_token, spoken_corpus
from trained import QUIET, same, weights

import compress
import probes
from compress.objectives.base import IGNORED, Pass
from compress.objectives.held_out import language_model_loss
from compress.objectives.labels import SoftLabels
from compress.objectives.language_model import LanguageModel, masked_tokens
from compress.training.loop import train
from probes.errors import InputError
from probes.states.batches import collate
from probes.states.by_token import next_tokens, predicts_next
from probes.states.tokens import Padding

tokenizer, corpus = masking_tokenizer, spoken_corpus


MODELS = [of_masked_tokens, of_the_next_token]


@pytest.mark.parametrize("left", [False, True])
def test_the_loss_of_next_tokens_is_that_of_transformers(tokenizer, left):
    model = of_the_next_token(tokenizer)
    batch = collate(Padding(0, left), [{"input_ids": [5, 6, 7, 8]}, {"input_ids": [9, 10, 11, 12, 13, 4]}])
    labels = batch["input_ids"].where(batch["attention_mask"].bool(), IGNORED)
    if left:  # transformers would ask the padding before a text for its first token
        labels[0, 2] = IGNORED
    with torch.no_grad():
        out = model(**batch, labels=labels)
    targets = next_tokens(batch["input_ids"], batch["attention_mask"].bool())
    found = LanguageModel()(Pass(model, out.logits), None, {"targets": targets, "modules": {}})
    assert float(found) == pytest.approx(float(out.loss), rel=1e-6)


def test_masked_tokens_are_drawn_as_often_as_they_should(tokenizer):
    ids = torch.randint(5, len(tokenizer), (400, 30), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, 20] = tokenizer.cls_token_id, tokenizer.sep_token_id
    attended = torch.ones_like(ids).bool()
    attended[:, 21:] = False
    out = masked_tokens(ids, attended, tokenizer, np.random.default_rng(0), 0.15)
    drawn = out["targets"] != IGNORED
    assert not drawn[:, [0, *range(20, 30)]].any()
    assert (out["targets"][drawn] == ids[drawn]).all()
    assert (out["input_ids"][~drawn] == ids[~drawn]).all()

    def plausible(count, of, share):
        return binomtest(int(count), int(of), share).pvalue > 1e-3

    count, read, was = drawn.sum(), out["input_ids"][drawn], ids[drawn]
    assert plausible(count, 400 * 19, 0.15)
    assert plausible((read == tokenizer.mask_token_id).sum(), count, 0.8)
    stays = 0.1 + 0.1 / (len(tokenizer) - 5)  # any token may be the same
    assert plausible((read == was).sum(), count, stays)
    assert not set(read.tolist()) & (set(tokenizer.all_special_ids) - {tokenizer.mask_token_id})


def test_words_are_masked_whole_or_not_at_all(tokenizer):
    ids = torch.full((300, 12), 6)
    words = torch.tensor([[-1, 0, 0, 0, 1, 2, 2, 3, 3, 3, 4, -1]]).expand(300, -1)
    out = masked_tokens(ids, torch.ones_like(ids).bool(), tokenizer, np.random.default_rng(0), 0.3, words)
    drawn = out["targets"] != IGNORED
    assert not drawn[:, [0, 11]].any()
    shares = []
    for word in range(5):
        of_word = drawn[:, words[0] == word]
        assert (of_word.all(1) == of_word.any(1)).all()
        shares.append(float(of_word.any(1).float().mean()))
    assert np.mean(shares) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("make", MODELS)
def test_a_training_without_labels_lowers_the_loss_on_its_text(make, tokenizer, corpus):
    model = make(tokenizer)
    before = language_model_loss(model, tokenizer, corpus)
    history = train(model, tokenizer, corpus, objective=[LanguageModel()], steps=40, **QUIET | {"learning_rate": 1e-2})
    assert list(history) == ["step", "language_model", "loss"]
    assert language_model_loss(model, tokenizer, corpus)["nats"] < 0.7 * before["nats"]


@pytest.mark.parametrize("make", MODELS)
def test_an_interrupted_training_ends_as_it_would_have(make, tokenizer, corpus, tmp_path):
    settings = {**QUIET, "objective": [LanguageModel(whole_words=True)], "steps": 6}
    whole, half = make(tokenizer), make(tokenizer)
    history = train(whole, tokenizer, corpus, **settings)

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(half, tokenizer, corpus, folder=tmp_path, save_every=2, callbacks=[Stop()], **settings)
    again = make(tokenizer)
    pd.testing.assert_frame_equal(train(again, tokenizer, corpus, folder=tmp_path, save_every=2, **settings), history)
    assert same(weights(again), weights(whole))


def test_a_teacher_is_heard_at_the_tokens_that_are_predicted_and_nowhere_else(tokenizer):
    model = of_masked_tokens(tokenizer)
    one, two = (torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    targets = torch.tensor([[IGNORED, 3, IGNORED, IGNORED], [IGNORED, IGNORED, 5, 6]])
    batch = {"targets": targets, "attention_mask": torch.ones(2, 4)}
    found = float(SoftLabels()(Pass(model, one), Pass(model, two), batch))
    at = targets != IGNORED
    p, q = two[at].softmax(-1), one[at].softmax(-1)
    assert found == pytest.approx(float((p * (p / q).log()).sum(-1).mean()))
    two[~at] += 9.0
    two[0, 0, 0] -= 30.0
    assert float(SoftLabels()(Pass(model, one), Pass(model, two), batch)) == found


@pytest.mark.parametrize("make", MODELS)
def test_the_teacher_helps_a_student_to_the_same_text(make, tokenizer, corpus):
    teacher = make(tokenizer)
    train(teacher, tokenizer, corpus, objective=[LanguageModel()], steps=40, **QUIET | {"learning_rate": 1e-2})
    student = make(tokenizer)
    before, kept = language_model_loss(student, tokenizer, corpus)["nats"], weights(teacher)
    objective = [LanguageModel(weight=0.0), SoftLabels()]
    train(student, tokenizer, corpus, objective=objective, teacher=teacher, steps=40, **QUIET | {"learning_rate": 1e-2})
    assert language_model_loss(student, tokenizer, corpus)["nats"] < 0.7 * before
    assert same(weights(teacher), kept)


@pytest.mark.parametrize("make", MODELS)
def test_every_verb_that_trains_takes_it(make, tokenizer, corpus):
    model = make(tokenizer)
    before = weights(model)
    shared = {"tokenizer": tokenizer, "objective": LanguageModel(), "steps": 2, **QUIET}
    pruned = compress.prune(model, sparsity=0.5, train=corpus, **shared)
    quantized = compress.quantize(model, bits=4, train=corpus, **shared)
    fused = compress.fuse(model, train=corpus, **shared)
    for made in (pruned, quantized, fused):
        assert np.isfinite(language_model_loss(made, tokenizer, corpus)["nats"])
    assert same(before, weights(model))


def test_what_predicts_no_tokens_is_refused(tokenizer, corpus, tiny_models):
    def refused(model, message, tokenizer=tokenizer, corpus=corpus, objective=None):
        with pytest.raises(InputError, match=message):
            train(model, tokenizer, corpus, objective=objective or [LanguageModel()], steps=1, **QUIET)

    masked, plain = of_masked_tokens(tokenizer), copy.deepcopy(tokenizer)
    refused(transformers.BertModel(masked.config), "BertModel predicts no tokens: expected a model with a head")
    both_ways = transformers.BertLMHeadModel(masked.config)
    refused(both_ways, "BertLMHeadModel sees the token that it is to predict, .* with is_decoder=True")
    t5 = tiny_models("T5ForConditionalGeneration", decoder_start_token_id=0)
    with pytest.raises(InputError, match="T5ForConditionalGeneration is an encoder-decoder: expected a decoder"):
        predicts_next(t5, "one")
    plain.mask_token = None
    refused(masked, "predicts masked tokens, and the tokenizer has no mask token: set tokenizer.mask_token", plain)
    two = [LanguageModel(), LanguageModel(name="again")]
    refused(masked, "language_model and again each change what the models read: take one of them", objective=two)
    unknown = probes.load_corpus(pd.DataFrame({"id": [0], "language": "en", "text": ["xyzzy"]}))
    refused(masked, "no text has a token that is not special: there is nothing to mask", corpus=unknown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masked": 0}, "masked=0: expected a finite number above 0"),
        ({"masked": 1.0}, "masked=1.0: expected a share above 0 and below 1"),
        ({"weight": -1}, "weight=-1: expected a finite number at least 0"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        LanguageModel(**options)


@pytest.mark.parametrize(
    "verb",
    [
        lambda model, **given: compress.fuse(model, share=0.5, schedule="uniform", fusions=2, **given),
        lambda model, **given: compress.quantize(model, bits=4, **given),
        lambda model, **given: compress.prune(model, sparsity=0.5, schedule="uniform", prunings=2, **given),
        lambda model, **given: compress.finetune(compress.factorize(model, rank=4), **given),
    ],
    ids=["fuse", "quantize", "prune", "factorize"],
)
def test_a_decoder_made_smaller_goes_on_as_it_would_have(tokenizer, corpus, tmp_path, verb):
    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 32, "pad_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(tokenizer), **size)).eval()
    given = {"train": corpus, "tokenizer": tokenizer, "steps": 6, **QUIET}
    whole = verb(model, **given)

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verb(model, folder=tmp_path, save_every=2, callbacks=[Stop()], **given)
    again = verb(model, folder=tmp_path, save_every=2, **given)
    assert same(weights(again), weights(whole))
    assert again.config.compression["objective"] == ["language_model"]
    pd.testing.assert_frame_equal(again.history, whole.history)
