"""Running: precision and device as asked for; the model is left as it was found."""

import numpy as np
import pytest
import torch
from capturing import assert_close, capture, hooks


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
