"""Factorisation: nearest of its rank, by energy, by budget, on texts, as tensor trains; and what is kept of it."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from factored import WORDS, module_of, states
from trained import same, weights

import probes
from compress.factorization.factorize import factorize
from compress.matrices import block_matrices
from compress.objectives.labels import CrossEntropy
from compress.pruning.prune import prune
from compress.quantization.quantize import quantize
from compress.saving import save
from compress.training.loop import train
from probes.costs import footprint
from probes.errors import InputError, LayerscopeWarning
from probes.models.formats.factorized import LowRankLinear


def test_what_would_grow_is_left_as_it_is(classifier, batch):
    low = factorize(classifier, rank=7)  # 12 x 12: up to 6; 12 x 20: up to 7
    what = low.config.compression
    assert all(("dense" in n) != ("attention" in n) for n in what["matrices"])
    assert {n.split(".")[-3] for n in what["left"]} == {"self", "output"}
    assert len(what["left"]) == 12
    assert sum(isinstance(m, LowRankLinear) for m in low.modules()) == 6
    with pytest.warns(LayerscopeWarning, match="rank=12: in factors each of the 18 matrices would need more"):
        nothing = factorize(classifier, rank=12)
    assert same(weights(nothing), weights(classifier))
    assert not hasattr(nothing.config, "factorized")
    assert nothing.config.compression["matrices"] == {}


# --- what becomes of it ----------------------------------------------------------------------------------------------


HOW = [
    {"rank": 4},
    {"budget": 0.6, "method": "tensor_train", "embeddings": True},
    {"energy": 0.7, "embeddings": True},
]


@pytest.mark.parametrize("asked", HOW)
def test_it_saves_and_loads_bit_for_bit(classifier, make_tokenizer, batch, tmp_path, asked):
    low = factorize(classifier, **asked)
    folder = save(low, tmp_path / "low", make_tokenizer())
    written = json.loads((folder / "compression.json").read_text(encoding="utf-8"))
    assert written == low.config.compression
    loaded, _ = probes.load_checkpoint(folder)
    assert same(weights(loaded), weights(low))
    assert torch.equal(states(loaded, batch), states(low, batch))
    assert loaded.config.compression == low.config.compression


@pytest.mark.parametrize("asked", HOW)
def test_it_trains(classifier, corpus, make_tokenizer, asked):
    low = factorize(classifier, **asked)
    before = weights(low)
    history = train(
        low,
        make_tokenizer(),
        corpus,
        objective=[CrossEntropy()],
        steps=12,
        batch_size=8,
        learning_rate=3e-3,
        progress=False,
    )
    assert history["loss"].iloc[-3:].mean() < history["loss"].iloc[:3].mean()
    for name in low.config.compression["matrices"]:
        for key, parameter in module_of(low, name).named_parameters():
            assert not torch.equal(parameter, before[f"{name.removesuffix('.weight')}.{key}"])


@pytest.mark.parametrize("asked", HOW)
def test_it_quantises_and_prunes(classifier, corpus, make_tokenizer, batch, tmp_path, asked):
    low = factorize(classifier, **asked | ({"embeddings": False} if asked.get("method") else {}))
    found = block_matrices(low)
    inside = [n for n in low.config.compression["matrices"] if n != WORDS]
    for name in inside:
        parts = [k for k in found if k.startswith(name.removesuffix("weight"))]
        assert len(parts) == (3 if asked.get("method") else 2)
    quantized = quantize(low, bits=8, calibrate=corpus, tokenizer=make_tokenizer())
    assert quantized.config.compression["quantized"] == sorted(found)
    off = (states(quantized, batch) - states(low, batch)).abs().max()
    assert 0 < off < 0.3
    loaded, _ = probes.load_checkpoint(save(quantized, tmp_path / "quantized", make_tokenizer()))
    assert torch.equal(states(loaded, batch), states(quantized, batch))
    pruned = prune(low, sparsity=0.5)
    assert all(int((w == 0).sum()) == round(0.5 * w.numel()) for w in block_matrices(pruned).values())


@pytest.mark.parametrize("asked", HOW)
def test_it_is_captured_like_any_other(classifier, corpus, make_tokenizer, asked):
    low, tokenizer = factorize(classifier, **asked), make_tokenizer()
    reps = probes.capture(low, tokenizer, corpus, progress=False)
    for row in (0, 7, 39):
        inputs = tokenizer(corpus[row]["text"], return_tensors="pt")
        expected = states(low, dict(inputs))[:, 0, 1:-1].mean(1)  # but for the special tokens
        np.testing.assert_allclose(reps["hidden"].values[:, row], expected.numpy(), atol=1e-5)
    assert probes.module_error(classifier, low, tokenizer, corpus, draws=10, progress=False).value.notnull().any()
    cost = footprint(classifier, low)
    assert cost.loc["smaller", "parameters"] == low.config.compression["parameters"]


def test_inputs_that_were_rounded_still_are(classifier, batch):
    quantized = quantize(classifier, bits=8, activation_bits=2)
    low = factorize(quantized, rank=4)
    assert low.config.quantized_inputs == quantized.config.quantized_inputs
    without = copy.deepcopy(low)
    del without.config.quantized_inputs
    probes.models.formats.quantized_inputs.apply_quantized_inputs(without)
    assert not torch.equal(states(low, batch), states(without, batch))


def test_a_rank_of_numpy_is_saved(classifier, make_tokenizer, tmp_path):
    low = factorize(classifier, rank=np.int64(2))
    loaded, _ = probes.load_checkpoint(save(low, tmp_path / "out", make_tokenizer()))
    assert same(weights(loaded), weights(factorize(classifier, rank=2)))
    assert loaded.config.compression["rank"] == 2


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected exactly one of rank, energy and budget, found none"),
        ({"rank": 2, "energy": 0.5}, "expected exactly one of rank, energy and budget, found rank=2 and energy=0.5"),
        ({"rank": 0}, "rank=0: expected a whole number of at least 1"),
        ({"rank": 2.5}, "rank=2.5: expected a whole number of at least 1"),
        ({"rank": True}, "rank=True: expected a whole number of at least 1"),
        ({"rank": 13}, "layer.0.attention.self.query.weight, 12 x 12, has at most 12. Ask for less"),
        ({"rank": 37, "method": "tensor_train"}, "query.weight, 12 x 12, has at most 6. Ask for less"),
        ({"energy": 0}, "energy=0: expected a number above 0 and at most 1, the share of the squared singular values"),
        ({"energy": 1.1}, "energy=1.1: expected a number above 0 and at most 1"),
        ({"energy": math.nan}, "energy=nan: expected a number above 0 and at most 1"),
        ({"budget": 0.0}, "budget=0.0: expected a number above 0 and at most 1, the share of the parameters kept"),
        ({"budget": 2}, "budget=2: expected a number above 0 and at most 1"),
        ({"budget": "half"}, "budget='half': expected a number above 0 and at most 1"),
        ({"rank": 2, "method": "cp"}, "method='cp' is not known; choose one of 'svd', 'activation', 'tensor_train'"),
        ({"rank": 2, "only": "nothing"}, "only='nothing' finds none of the matrices; they are bert.encoder.layer.0"),
        ({"rank": 2, "method": "activation"}, "method='activation' looks at text: give calibrate=..., a corpus, and"),
        ({"rank": 2, "method": "activation", "calibrate": "corpus"}, "calibrate=... looks at text: give tokenizer="),
        ({"rank": 2, "calibrate": "corpus"}, "calibrate=... is looked at by method='activation', not by 'svd'"),
        ({"rank": 2, "method": "activation", "calibrate": "empty", "tokenizer": True}, "found one of no rows"),
    ],
)
def test_bad_settings(classifier, corpus, make_tokenizer, settings, message):
    given = {"corpus": corpus, "empty": corpus.select([])}
    settings = {k: given.get(v, v) if k == "calibrate" else v for k, v in settings.items()}
    if "tokenizer" in settings:
        settings["tokenizer"] = make_tokenizer()
    with pytest.raises(InputError) as error:
        factorize(classifier, **settings)
    assert message in str(error.value)
