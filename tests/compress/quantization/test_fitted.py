"""Rounding by what is fed: of real and tiny models, what it needs, says and keeps, and what it refuses."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from trained import same, weights

import probes
from compress import quantize, save
from compress.matrices import block_matrices
from probes.errors import InputError, LayerscopeWarning

PLAIN = {"activation_bits": None, "progress": False}
TEXTS = ["a dog sat on the mat", "the cat", "then he sang under a small tree and she ran", "bird"]


@pytest.fixture(scope="module")
def texts():
    return probes.load_corpus(pd.DataFrame({"id": range(40), "language": "en", "text": TEXTS * 10}))


def fitted(model, tokenizer, corpus, **how):
    given = {"bits": 3, "method": "gptq", "calibrate": corpus, "tokenizer": tokenizer}
    return quantize(model, **given | PLAIN | how)


@pytest.fixture(scope="module")
def real():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="train", languages=["en", "hi"])
    held_out = probes.load_corpus("bundled", split="test", languages=["en", "hi"])
    return model, tokenizer, corpus.select(range(0, len(corpus), 20)), held_out.select(range(0, len(held_out), 9))


def test_three_bits_of_a_real_encoder_drift_less_beyond_the_interval(real):
    model, tokenizer, corpus, held_out = real
    nearest = quantize(model, bits=3, activation_bits=None)
    found = fitted(model, tokenizer, corpus)
    base, *others = (probes.capture(m, tokenizer, held_out, progress=False) for m in (model, found, nearest))
    ours, theirs = (probes.drift(base, other).sel(language="pooled").isel(layer=-1) for other in others)
    for measure in ("cosine_to_baseline", "signal_to_error"):
        assert ours.low.sel(measure=measure) > theirs.high.sel(measure=measure)


def test_three_bits_of_a_real_decoder_move_the_next_token_less_beyond_the_interval():
    model, tokenizer = probes.load_checkpoint("bundled-decoder")
    texts = probes.load_corpus("bundled", split="train", languages=["en", "hi"])
    held_out = probes.load_corpus("bundled", split="test", languages=["en", "hi"]).select(range(0, 720, 9))
    found = fitted(model, tokenizer, texts.select(range(0, len(texts), 20)), group=64)
    nearest = quantize(model, bits=3, group=64, activation_bits=None)
    ours, theirs = (
        probes.next_token(model, m, tokenizer, held_out, progress=False).sel(measure="kl", language="pooled")
        for m in (found, nearest)
    )
    assert ours.high < theirs.low


OF_TOKENS = ["mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt_neox", "opt", "bloom"]


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "mixtral", "t5", "albert", *OF_TOKENS])
def test_every_architecture_is_nearer_to_the_original_than_rounded_to_nearest(name, texts):
    model, tokenizer = tiny.make(name), tiny.tokenizer_of(name)
    before = weights(model)
    found = fitted(model, tokenizer, texts)
    assert same(weights(model), before)
    states = [
        probes.capture(m, tokenizer, texts, progress=False).hidden.values[-1]
        for m in (model, found, quantize(model, bits=3, activation_bits=None))
    ]
    errors = [np.linalg.norm(s - states[0]) for s in states[1:]]
    assert 0 < errors[0] < 0.9 * errors[1]


def test_it_is_saved_loaded_and_counted_as_any_other(classifier, make_tokenizer, texts, tmp_path):
    tokenizer = make_tokenizer()
    found = fitted(classifier, tokenizer, texts, group=4, act_order=True)
    done = found.config.compression
    assert json.loads(json.dumps(done)) == done
    assert (done["method"], done["rounding"], done["act_order"], done["damping"]) == ("quantize", "gptq", True, 0.01)
    plain = quantize(classifier, bits=3, group=4, activation_bits=None).config.compression
    assert {k: done[k] for k in plain} == plain
    save(found, tmp_path / "out", tokenizer, packed=True)
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    assert same(weights(loaded), weights(found))
    assert all(len(row.unique()) <= 7 for w in block_matrices(found).values() for row in w.reshape(-1, 4))


def test_embeddings_and_bits_of_each_matrix(classifier, make_tokenizer, texts):
    names = list(block_matrices(classifier))
    how = {"embeddings": True, "bits": {names[0]: 2, "bert.embeddings.word_embeddings.weight": 4}}
    found = fitted(classifier, make_tokenizer(), texts, **how)
    nearest = quantize(classifier, activation_bits=None, **how)
    table = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(found.get_parameter(table), nearest.get_parameter(table))
    assert not torch.equal(found.get_parameter(names[0]), nearest.get_parameter(names[0]))
    assert torch.equal(found.get_parameter(names[1]), classifier.get_parameter(names[1]))


def test_inputs_are_rounded_by_ranges_measured_behind_what_was_rounded(classifier, make_tokenizer, texts):
    found = fitted(classifier, make_tokenizer(), texts, activation_bits=8)
    assert found.config.compression["activation_ranges"] == "calibrated"
    assert len(found.config.quantized_inputs) == len(block_matrices(classifier))


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_inputs_stay_as_they_are_where_nothing_is_said_of_them(method, classifier, make_tokenizer, texts):
    given = {"bits": 3, "method": method, "calibrate": texts, "tokenizer": make_tokenizer(), "progress": False}
    found = quantize(classifier, **given)
    assert found.config.compression["activation_bits"] is None
    assert not getattr(found.config, "quantized_inputs", None)
    assert quantize(classifier, bits=3).config.compression["activation_bits"] == 8


def test_few_and_short_texts_are_said_with_the_damping(classifier, make_tokenizer, texts):
    with pytest.warns(LayerscopeWarning, match=r"calibrate has 7 tokens, fewer than the 12 inputs of .* damping=0\.01"):
        fitted(classifier, make_tokenizer(), texts.select([1, 3]))
    with pytest.raises(InputError, match=r"so that damping=0 leaves nothing to invert"):
        fitted(classifier, make_tokenizer(), texts.select([3]), damping=0)


def test_texts_of_one_token(texts):
    model, tokenizer = tiny.make("llama"), tiny.tokenizer_of("llama")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayerscopeWarning)
        one = pd.DataFrame({"id": range(60), "language": "en", "text": tiny.WORDS[:20] * 3})
        found = fitted(model, tokenizer, probes.load_corpus(one))
    assert all(p.isfinite().all() for p in found.parameters())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"method": "best"}, r"^method='best' is not known; choose one of 'rtn', 'awq', 'gptq'"),
        ({"calibrate": None}, r"^method='gptq' looks at text: give calibrate="),
        ({"tokenizer": None}, r"^method='gptq' looks at text: give calibrate=.*tokenizer="),
        ({"method": "rtn", "act_order": True}, r"^act_order=True is of method='gptq'"),
        ({"damping": -1}, r"^damping=-1: expected"),
        ({"group": 5}, r"group=5 does not divide its 12 inputs"),
        ({"backend": "onnxruntime"}, r"^method='gptq' is simulated"),
        ({"steps": 3}, r"^method='gptq' rounds after a training"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(classifier, make_tokenizer, texts, how, message):
    with pytest.raises(InputError, match=message):
        quantize(classifier, **{"method": "gptq", "calibrate": texts, "tokenizer": make_tokenizer(), **PLAIN, **how})


def test_what_is_not_linear_is_refused_by_name(texts):
    model, tokenizer = tiny.make("convbert"), tiny.tokenizer_of("convbert")
    with pytest.raises(
        InputError, match=r"^method='gptq' fits weights to what they are fed, .* is of a torch\.nn\.Conv1d"
    ):
        fitted(model, tokenizer, texts)


def test_no_texts_are_refused(classifier, make_tokenizer, texts):
    with pytest.raises(InputError, match=r"^calibrate: expected a corpus with texts, found one of no rows"):
        fitted(classifier, make_tokenizer(), texts.select([]))
