"""Recurrent language models: what they compute, in factors too, and that they train in the same loop as others."""

import pandas as pd
import pytest
import torch
import transformers
from speaking import masking_tokenizer, spoken_corpus
from trained import QUIET, same, weights

import compress
from compress.factorization.lstm_model import LSTMConfig, LSTMLanguageModel, low_rank_model, tensor_train_model
from compress.training.loop import train
from probes.errors import InputError

tokenizer, corpus = masking_tokenizer, spoken_corpus


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return LSTMLanguageModel(LSTMConfig(len(tokenizer), hidden_size=27, num_hidden_layers=2)).eval()


MAKE = {"plain": lambda m: m, "low rank": lambda m: low_rank_model(m, 8), "train": lambda m: tensor_train_model(m, 3)}


def test_it_computes_what_its_parts_do_and_padding_changes_nothing(model):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        found = model(ids, attention_mask=mask).logits
        by_hand = model.output(model.lstm(model.embeddings(ids[:1]))[0])
        alone = model(ids[1:, :2]).logits
    torch.testing.assert_close(found[:1], by_hand)
    torch.testing.assert_close(found[1:, :2], alone)


def test_at_full_rank_the_factors_are_the_model_and_below_they_have_the_parameters_of_the_formula(model, tokenizer):
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    hidden, words, rank = 27, len(tokenizer), 8
    with torch.no_grad():
        expected = model(ids).logits
        near = low_rank_model(model, 26)(ids).logits
        full = tensor_train_model(model, 18)(ids).logits  # the most there is between two cores
        far = low_rank_model(model, 1)(ids).logits
    torch.testing.assert_close(full, expected, rtol=0, atol=1e-4)
    assert (near - expected).abs().mean() < 0.3 * (far - expected).abs().mean()
    small = low_rank_model(model, rank)
    layers = sum(4 * hidden * (inputs + rank) + rank * hidden + 8 * hidden for inputs in (hidden, rank))
    assert small.num_parameters() == words * hidden + layers + words * rank + words
    done = small.config.compression
    assert (done["method"], done["rank"], done["parameters"]) == ("recurrent_factors", 8, small.num_parameters())


@pytest.mark.parametrize("kind", MAKE)
def test_they_train_in_the_loop_and_come_back_from_a_folder(model, tokenizer, corpus, tmp_path, kind):
    made = MAKE[kind](model)
    before = compress.language_model_loss(made, tokenizer, corpus)
    given = {"train": corpus, "tokenizer": tokenizer, **QUIET, "learning_rate": 1e-2}
    tuned = compress.finetune(made, steps=30, **given)
    assert list(tuned.history) == ["step", "language_model", "loss"]
    after = compress.language_model_loss(tuned, tokenizer, corpus)
    assert after["nats"] < 0.9 * before["nats"]
    assert {"bits_per_byte", "perplexity"} <= set(after)
    compress.save(tuned, tmp_path / "saved", tokenizer)
    back = LSTMLanguageModel.from_pretrained(tmp_path / "saved")
    assert same(weights(back), weights(tuned))
    assert compress.language_model_loss(back, tokenizer, corpus) == after


def test_an_interrupted_training_ends_as_it_would_have_with_a_teacher(model, tokenizer, corpus, tmp_path):
    settings = {**QUIET, "objective": [compress.LanguageModel(), compress.SoftLabels()], "teacher": model, "steps": 4}
    whole, half, again = (low_rank_model(model, 8) for _ in range(3))
    history = train(whole, tokenizer, corpus, **settings)

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(half, tokenizer, corpus, folder=tmp_path, save_every=2, callbacks=[Stop()], **settings)
    found = train(again, tokenizer, corpus, folder=tmp_path, save_every=2, **settings)
    pd.testing.assert_frame_equal(found, history)
    assert same(weights(again), weights(whole))


def test_what_cannot_be_made_is_refused(model, tiny_models):
    with pytest.raises(InputError, match="rank=8, train_rank=3: expected one of the two at most"):
        LSTMConfig(rank=8, train_rank=3)
    with pytest.raises(InputError, match="hidden_size=0: expected a whole number of at least 1"):
        LSTMConfig(hidden_size=0)
    with pytest.raises(InputError, match="rank=27: expected at least 1 and below the hidden size of 27"):
        LSTMLanguageModel(LSTMConfig(20, hidden_size=27, rank=27))
    with pytest.raises(InputError, match="expected an LSTMLanguageModel, found GPT2LMHeadModel"):
        low_rank_model(tiny_models("GPT2LMHeadModel"), 4)
    with pytest.raises(InputError, match="expected a model of plain matrices, found one of tensor trains: rank 3"):
        low_rank_model(tensor_train_model(model, 3), 4)
    with pytest.raises(InputError, match="expected an LSTM of one direction without projections, found"):
        tensor_train_model(low_rank_model(model, 8), 3)
