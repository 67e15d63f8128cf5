"""Quantisation of models: what is rounded and what is not, ranges, training with noise, and what is kept of it."""

import copy
import json
import re

import numpy as np
import pytest
import torch
import transformers
from rounded import inputs_of
from trained import QUIET, same, weights

import probes
from compress.matrices import block_matrices
from compress.pruning.prune import prune
from compress.quantization.quantize import quantize
from compress.quantization.quantizers import dequantize, quantize_tensor
from compress.saving import save
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.quantized_inputs import QuantizedInput

QUERY = "bert.encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "least_squares"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_twice_is_once(tiny_models, symmetric, ranges):
    how = {"bits": 3, "symmetric": symmetric, "ranges": ranges, "percentile": 90, "embeddings": True}
    once = quantize(tiny_models("BertModel"), **how)
    assert same(weights(quantize(once, **how)), weights(once))


@pytest.mark.parametrize("symmetric", [True, False])
def test_what_was_pruned_stays_zero(classifier, symmetric):
    pruned = prune(classifier, sparsity=0.6)
    quantized = quantize(pruned, bits=8, symmetric=symmetric)
    for name, weight in block_matrices(pruned).items():
        assert bool((quantized.get_parameter(name)[weight == 0] == 0).all())
        assert int((quantized.get_parameter(name) == 0).sum()) >= round(0.6 * weight.numel())


def test_only_some_matrices_and_their_inputs(classifier):
    quantized = quantize(classifier, bits=4, only=r"layer\.1\..*query")
    assert quantized.config.compression["quantized"] == [QUERY]
    assert quantized.config.quantized_inputs == {"encoder.layer.1.attention.self.query": {"bits": 8}}
    after = weights(quantized)
    assert not torch.equal(after.pop(QUERY), classifier.get_parameter(QUERY))
    assert same(after, {k: v for k, v in weights(classifier).items() if k != QUERY})


def test_what_was_done_is_kept(classifier):
    what = quantize(classifier, bits=6, ranges="percentile", activation_bits=None, percentile=99).config.compression
    assert what["method"] == "quantize"
    assert (what["bits"], what["group"], what["symmetric"]) == (6, "channel", True)
    assert what["ranges"] == "percentile 99"
    assert what["activation_bits"] is None
    assert what["activation_ranges"] is None
    assert what["parent"] == weights_fingerprint(classifier)
    assert "seed" not in what
    assert json.loads(json.dumps(what)) == what


def test_fewer_bits_do_more_harm(classifier, make_tokenizer, corpus):
    reps = [
        probes.capture(m, make_tokenizer(), corpus, progress=False).hidden.values
        for m in (classifier, *(quantize(classifier, bits=b, activation_bits=b) for b in (8, 5, 3, 2)))
    ]
    harm = [np.linalg.norm(r - reps[0]) for r in reps[1:]]
    assert 0 < harm[0] < harm[1] < harm[2] < harm[3]
    assert all(np.array_equal(r[0], reps[0][0]) for r in reps)  # the embeddings


def test_eight_bits_leave_the_predictions_of_a_real_model_and_two_do_not():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="test", languages=["en", "zh"])

    def classes(one):
        return probes.capture(one, tokenizer, corpus, progress=False).logits.values.argmax(1)

    plain = classes(model)
    assert (classes(quantize(model, bits=8)) != plain).mean() < 0.01
    assert (classes(quantize(model, bits=2)) != plain).mean() > 0.1


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_inputs_are_rounded_token_by_token(classifier, batch):
    name = "bert.encoder.layer.0.attention.self.query"
    plain = inputs_of(quantize(classifier, bits=4, activation_bits=None), name, batch)
    rounded = inputs_of(quantize(classifier, bits=4, activation_bits=3), name, batch)
    low, high = (f(plain.double().numpy(), axis=-1, keepdims=True) for f in (np.min, np.max))
    step = (np.maximum(high, 0) - np.minimum(low, 0)) / 7
    moved = np.abs(rounded.double().numpy() - plain.double().numpy()) / step
    assert 0.3 < moved.max() <= 0.51
    assert all(len(token.unique()) <= 8 for token in rounded.flatten(0, 1))


def test_weights_alone(classifier, batch):
    quantized = quantize(classifier, bits=4, activation_bits=None)
    assert not hasattr(quantized.config, "quantized_inputs")
    by_hand = copy.deepcopy(classifier)
    with torch.no_grad():
        for weight in block_matrices(by_hand).values():
            weight.copy_(dequantize(quantize_tensor(weight, 4)))
        assert torch.equal(quantized(**batch).logits, by_hand(**batch).logits)
        assert not torch.equal(quantized(**batch).logits, quantize(classifier, bits=4)(**batch).logits)


@pytest.mark.parametrize("how", ["dynamic", "calibrated", "weights"])
def test_saved_and_loaded_it_computes_the_same(classifier, make_tokenizer, corpus, batch, tmp_path, how):
    tokenizer = make_tokenizer()
    found = corpus if how == "calibrated" else None
    bits = None if how == "weights" else 4
    quantized = quantize(classifier, bits=4, activation_bits=bits, calibrate=found, tokenizer=tokenizer)
    save(quantized, tmp_path / "out", tokenizer)
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    assert same(weights(loaded), weights(quantized))
    assert weights_fingerprint(loaded) == weights_fingerprint(quantized)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        expected = quantized(**batch).logits
        assert torch.equal(loaded(**batch).logits, expected)
        assert torch.equal(copy.deepcopy(loaded)(**batch).logits, expected)
        assert torch.equal(plain(**batch).logits, expected) == (how == "weights")
    assert loaded.config.compression == quantized.config.compression


def test_new_settings_take_the_place_of_old_ones(classifier, make_tokenizer, corpus, batch):
    first = quantize(classifier, calibrate=corpus, tokenizer=make_tokenizer(), activation_bits=3)
    again = quantize(first, activation_bits=5)
    assert set(map(json.dumps, again.config.quantized_inputs.values())) == {'{"bits": 5}'}
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, quantize(classifier, activation_bits=5)(**batch).logits)
    part = quantize(first, activation_bits=None, only="layer.0")
    assert part.config.quantized_inputs == {
        k: v for k, v in first.config.quantized_inputs.items() if "layer.0" not in k
    }
    hooks = [h for m in part.modules() for h in m._forward_pre_hooks.values() if isinstance(h, QuantizedInput)]
    assert len(hooks) == len(part.config.quantized_inputs) == 12


@pytest.mark.parametrize("family", ["GPT2ForSequenceClassification", "DistilBertForSequenceClassification"])
def test_other_families_are_calibrated_trained_and_loaded(tiny_models, make_tokenizer, corpus, tmp_path, family):
    model, tokenizer = tiny_models(family), make_tokenizer()
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    options = {"calibrate": corpus, "train": corpus, "tokenizer": tokenizer, "steps": 2, "noise": 0.5, "block": 5}
    quantized = quantize(model, bits=4, **options, **QUIET)
    save(quantized, tmp_path / "out", tokenizer)
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    one, other = (probes.capture(m, tokenizer, corpus, progress=False).hidden.values for m in (quantized, loaded))
    assert np.array_equal(one, other)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "bits=0: expected a whole number of 1 to 8"),
        (
            {"bits": 1},
            "bits=1 leaves of a weight its sign times a step, which is that of least squares: give ",
        ),
        ({"bits": {QUERY: 9}}, "bits=9: expected a whole number of 1 to 8"),
        ({"bits": {}}, "bits names no matrix"),
        ({"bits": {"query": 8}}, "bits names 'query', which is none of the matrices; they are bert.encoder.layer.0"),
        (
            {"bits": {"bert.embeddings.word_embeddings.weight": 8}},
            "with embeddings=True the word embeddings too",
        ),
        ({"bits": {QUERY: 8}, "only": "key"}, f"only='key' finds none of the matrices; they are {QUERY}"),
        ({"activation_bits": 16}, "activation_bits=16: expected a whole number of 2 to 8"),
        ({"group": 7}, "bert.encoder.layer.0.attention.self.query.weight: group=7 does not divide its 12 inputs"),
        ({"group": 12}, "bert.encoder.layer.0.output.dense.weight: group=12 does not divide its 20 inputs"),
        ({"group": "row"}, "group='row': expected 'tensor', 'channel' or"),
        ({"ranges": "max"}, "ranges='max' is not known"),
        ({"ranges": "percentile", "percentile": 0.999}, "percentile=0.999: expected above 50 and at most 100, in per"),
        ({"only": "none"}, "only='none' finds none of the matrices; they are bert.encoder.layer.0"),
        ({"steps": 3}, "training needs text: give train=..., a corpus, and tokenizer=..."),
        ({"steps": -1}, "steps=-1: expected a whole number, 0 for no training"),
        ({"noise": 1.5}, "noise=1.5: expected 0 to 1, the share of the blocks"),
        ({"noise": float("nan")}, "noise=nan: expected 0 to 1"),
        ({"block": 0}, "block=0: expected a whole number of inputs of at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(classifier, options, message):
    with pytest.raises(probes.InputError, match=re.escape(message)):
        quantize(classifier, **options)
