"""Running: precision and device as asked for; the model is left as it was found."""

import numpy as np
import pytest
import tiny
import torch
from capturing import assert_close, capture, hooks

import probes
from probes.states.running import decoder_inputs, last_token_map, last_tokens, reading, run_by


def test_bfloat16_is_close_but_not_equal(bert, tokenizer, corpus):
    full = capture(bert, tokenizer, corpus)
    half = capture(bert, tokenizer, corpus, dtype="bfloat16")
    a, b = full.hidden.values, half.hidden.values
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert cosine.min() > 0.99
    assert not np.array_equal(a, b)
    assert (full.attrs["dtype"], half.attrs["dtype"]) == ("float32", "bfloat16")
    assert b.dtype == np.float32
    assert full.attrs["fingerprint"] != half.attrs["fingerprint"]


def test_the_model_is_left_as_it_was(bert, tokenizer, corpus):
    bert.train()
    bert.bert.encoder.layer[1].eval()
    capture(bert, tokenizer, corpus)  # transformers puts its own hooks on the layers the first time
    before = hooks(bert), {n: m.training for n, m in bert.named_modules()}, {p.requires_grad for p in bert.parameters()}
    weights = {k: v.clone() for k, v in bert.state_dict().items()}
    first = capture(bert, tokenizer, corpus)
    capture(bert, tokenizer, corpus, modules=["bert.embeddings"])
    again = capture(bert, tokenizer, corpus)
    after = hooks(bert), {n: m.training for n, m in bert.named_modules()}, {p.requires_grad for p in bert.parameters()}
    assert after == before
    assert not bert.bert.encoder.layer[1].training
    assert bert.training
    assert {p.device.type for p in bert.parameters()} == {"cpu"}
    assert all(torch.equal(v, weights[k]) for k, v in bert.state_dict().items())
    assert_close(again, first.hidden.values, 0)


def test_the_training_mode_is_restored_after_an_error(bert, tokenizer, corpus, monkeypatch):
    bert.train()
    monkeypatch.setattr(bert.bert, "forward", broken)
    with pytest.raises(KeyboardInterrupt):
        capture(bert, tokenizer, corpus)
    assert all(m.training for m in bert.modules())


def broken(*_args, **_inputs):
    raise KeyboardInterrupt


def test_dropout_is_off_also_in_a_model_in_training_mode(bert, tokenizer, corpus):
    expected = capture(bert, tokenizer, corpus).hidden.values
    bert.train()
    assert_close(capture(bert, tokenizer, corpus), expected, 0)


def decoder(name, **changes):
    model = tiny.make(name, "head")
    for key, value in changes.items():
        setattr(model.config, key, value)
    return model


@pytest.mark.parametrize("padding", [None, 5])
@pytest.mark.parametrize("name", ["gpt2", "llama", "falcon"])
def test_a_batch_of_a_decoder_with_a_head_is_read_as_each_text_alone(name, padding):
    model = decoder(name, pad_token_id=padding)
    ids = torch.tensor([[9, 7, 5, 5], [6, 5, 0, 0], [8, 5, 5, 0]])  # 5 is a word, the last of every text
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    before = hooks(model)
    with torch.no_grad():
        states = [model.base_model(input_ids=t[m == 1][None])[0][0, -1] for t, m in zip(ids, mask, strict=True)]
        with reading(model):
            found = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found, model.score(torch.stack(states)), atol=1e-5, rtol=0)
    assert hooks(model) == before
    assert model.config.pad_token_id == padding


def test_padding_that_is_not_known_is_put_back_after_an_error(monkeypatch):
    model = decoder("llama")
    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(KeyboardInterrupt), reading(model):
        model(input_ids=torch.tensor([[3], [4]]), attention_mask=torch.ones(2, 1))
    assert model.config.pad_token_id is None


def test_the_last_token_is_found_on_both_sides():
    assert last_tokens(torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1]])).tolist() == [2, 0, 2, 2]


def test_only_heads_of_decoders_are_fed_all_tokens():
    llama = tiny.make("llama", "head")
    assert last_token_map(llama) is llama.score
    for name, kind in (("llama", "lm"), ("bert", "head"), ("eurobert", "head"), ("t5", "head")):
        assert last_token_map(tiny.make(name, kind)) is None


@pytest.mark.parametrize("name", ["t5", "bart", "m2m_100"])
def test_a_decoder_is_fed_the_text_one_token_later(name):
    model = tiny.make(name, "lm")
    ids = torch.tensor([[6, 7, 8, 2]])
    start = model.config.decoder_start_token_id
    assert decoder_inputs(model, ids).tolist() == [[start, 6, 7, 8]]
    with torch.no_grad(), reading(model):
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        by_hand = model(input_ids=ids, decoder_input_ids=torch.tensor([[start, 6, 7, 8]])).logits
    torch.testing.assert_close(found, by_hand)


def test_what_a_decoder_begins_with_is_asked_for_where_it_is_not_known():
    model = tiny.make("bert")
    model.config.decoder_start_token_id = model.config.pad_token_id = None
    with pytest.raises(
        probes.InputError, match=r"BertModel: .* neither decoder_start_token_id nor .* Set model.config.decoder"
    ):
        decoder_inputs(model, torch.tensor([[5]]))


@pytest.mark.parametrize(("name", "types"), [("bert", True), ("deberta-v2", False), ("gpt2", False), ("xlnet", True)])
def test_token_types_are_left_out_where_a_model_tells_none_apart(name, types):
    model, seen = tiny.make(name), {}
    ids = torch.tensor([[6, 7, 8]])
    with torch.no_grad(), reading(model):
        model.register_forward_pre_hook(lambda _, __, kwargs: seen.update(kwargs), with_kwargs=True)  # after ours
        model(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.tensor([[0, 0, 1]]))
    assert ("token_type_ids" in seen) == types


def test_a_module_runs_as_it_did_also_after_an_error_and_by_what_was_set_on_it():
    module = torch.nn.Linear(2, 1)
    own = module.forward
    for before in (None, lambda x: own(x) + 1):
        if before is not None:
            module.forward = before
        with run_by(module, lambda x: 6 // x):
            assert module(2) == 3
        with pytest.raises(ZeroDivisionError), run_by(module, lambda x: 6 // x):
            module(0)
        assert vars(module).get("forward") is before
