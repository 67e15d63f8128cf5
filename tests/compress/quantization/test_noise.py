"""Quant-Noise: at the rates 0 and 1 and between, its gradient, interrupted, and what is measured meanwhile."""

import copy
import shutil

import pandas as pd
import pytest
import torch
from trained import QUIET, same, weights
from transformers import TrainerCallback

import probes
from compress.matrices import block_matrices
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.quantization.noise import Noise
from compress.quantization.quantize import quantize
from compress.quantization.quantizers import dequantize, quantize_tensor
from compress.quantization.weights import QuantizedMatrices
from compress.training.checkpoints import mark
from compress.training.loop import train

QUERY = "bert.encoder.layer.1.attention.self.query.weight"


class Sees:
    """An objective that notes the weights of a matrix in each forward pass, and their gradient."""

    name, weight, needs = "sees", 1.0, frozenset({"labels"})

    def __init__(self, notes):
        self.values, self.notes, self.labels = [], notes, CrossEntropy()

    def __call__(self, student, teacher, batch):
        values = {n: w.detach().clone() for n, w in block_matrices(student.model).items()}
        self.values.append((len(self.notes.before), values))  # the update that the pass belongs to
        return self.labels(student, teacher, batch)


class Notes(TrainerCallback):
    """Notes weights before and after every update, and the gradients of the update."""

    def __init__(self):
        self.before, self.gradients, self.after = [], [], []

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.before.append({n: w.detach().clone() for n, w in block_matrices(model).items()})
        self.gradients.append({n: w.grad.clone() for n, w in block_matrices(model).items()})

    def on_step_end(self, args, state, control, model, **_):
        self.after.append({n: w.detach().clone() for n, w in block_matrices(model).items()})


def trained(model, tokenizer, corpus, *, rate, steps=3, bits=3, block=5, seed=0, **options):
    """Train a copy with noise; return it, what the objective saw, and what stood around the updates."""
    student, notes = copy.deepcopy(model), Notes()
    sees = Sees(notes)
    how = {"group": "channel", "symmetric": True, "ranges": "minmax", "percentile": 99.9}
    noise = Noise(
        QuantizedMatrices(student, dict.fromkeys(block_matrices(student), bits), how), rate, block, seed, None, {}
    )
    train(student, tokenizer, corpus, objective=[sees], steps=steps, callbacks=[noise, notes], **QUIET | options)
    return student, sees.values, notes


@pytest.mark.parametrize("accumulate", [1, 3])
def test_without_noise_it_is_plain_training_and_quantisation_after_it(classifier, make_tokenizer, corpus, accumulate):
    options = {"steps": 4, "accumulate": accumulate, **QUIET}
    plain = copy.deepcopy(classifier)
    history = train(plain, make_tokenizer(), corpus, objective=[CrossEntropy()], **options)
    expected = quantize(plain, bits=4, activation_bits=None)
    given = {"bits": 4, "activation_bits": None, "train": corpus, "tokenizer": make_tokenizer()}
    found = quantize(classifier, noise=0.0, **given, **options)
    assert same(weights(found), weights(expected))
    pd.testing.assert_frame_equal(found.history, history)
    noisy = quantize(classifier, noise=0.5, **given, **options)
    assert not same(weights(noisy), weights(expected))
    what = noisy.config.compression
    assert (what["steps"], what["noise"], what["block"], what["seed"]) == (4, 0.5, 8, 0)
    assert what["objective"] == ["cross_entropy"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_with_full_noise_each_pass_has_all_weights_quantised(classifier, make_tokenizer, corpus, accumulate):
    _, seen, notes = trained(classifier, make_tokenizer(), corpus, rate=1.0, accumulate=accumulate)
    # Five batches an epoch: the third update of two batches has one only.
    assert [update for update, _ in seen] == ([0, 1, 2] if accumulate == 1 else [0, 0, 1, 1, 2])
    for update, values in seen:
        for name, latent in notes.before[update].items():
            assert torch.equal(values[name], dequantize(quantize_tensor(latent, 3)))
            assert not torch.equal(values[name], latent)


def test_blocks_are_quantised_at_the_rate_whole_and_anew_in_each_pass(classifier, make_tokenizer, corpus):
    _, seen, notes = trained(classifier, make_tokenizer(), corpus, rate=0.3, steps=6, accumulate=2, block=5)
    taken = []
    for number, (update, values) in enumerate(seen):
        for name, latent in notes.before[update].items():
            quantized = dequantize(quantize_tensor(latent, 3))
            assert bool(((values[name] == latent) | (values[name] == quantized)).all())
            changed = values[name] != latent
            could = quantized != latent
            for start in range(0, latent.shape[1], 5):  # the last block of 12 inputs has two
                part, able = changed[:, start : start + 5], could[:, start : start + 5]
                assert bool((~part | part.any(1, keepdim=True)).all())
                assert torch.equal(part, part.any(1, keepdim=True) & able)  # a block as a whole
                taken.append((number, name, start, part.any(1)))
    assert torch.cat([t[-1].float() for t in taken]).mean() == pytest.approx(0.3, abs=0.02)
    by_pass = [torch.cat([t[-1] for t in taken if t[0] == number]) for number in range(len(seen))]
    assert all(not torch.equal(by_pass[0], other) for other in by_pass[1:])
    matrices = {n: torch.cat([t[-1] for t in taken if t[:2] == (0, n)]) for n in list(notes.before[0])[:2]}
    one, other = matrices.values()
    assert not torch.equal(one, other)


@pytest.mark.parametrize("rate", [0.4, 1.0])
def test_the_gradient_at_the_noised_weights_updates_those_behind_them(make, make_tokenizer, corpus, rate):
    classifier, tokenizer = make(dropout=0.0), make_tokenizer()
    _, seen, notes = trained(classifier, tokenizer, corpus, rate=rate, steps=2, batch_size=40)
    assert same(notes.before[0], {n: w.detach() for n, w in block_matrices(classifier).items()})
    assert same(notes.before[1], notes.after[0])  # put back for each update, and kept after it
    # The gradient by hand: all texts are one batch, and the noised weights stand in the model.
    by_hand = copy.deepcopy(classifier)
    with torch.no_grad():
        for name, weight in block_matrices(by_hand).items():
            weight.copy_(seen[0][1][name])
    rows = dict(tokenizer(list(corpus["text"]), return_tensors="pt", padding=True))
    labels = torch.tensor(["xyz".index(label) for label in corpus["label"]])
    torch.nn.functional.cross_entropy(by_hand(**rows).logits, labels).backward()
    norm = torch.stack([p.grad.norm() for p in by_hand.parameters() if p.grad is not None]).norm()
    for name, weight in block_matrices(by_hand).items():
        expected = weight.grad / max(1.0, float(norm))  # clipped to a norm of 1
        torch.testing.assert_close(notes.gradients[0][name], expected, rtol=1e-4, atol=1e-6)
        # The first update of AdamW is the sign of the gradient times the learning rate.
        moved = notes.after[0][name] - notes.before[0][name]
        clear = expected.abs() > 1e-4
        torch.testing.assert_close(moved[clear], -1e-3 * expected[clear].sign(), rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("calibrated", [False, True])
def test_an_interrupted_training_ends_as_it_would_have(classifier, make_tokenizer, corpus, tmp_path, calibrated):
    options = {
        "bits": 4,
        "train": corpus,
        "tokenizer": make_tokenizer(),
        "steps": 6,
        "noise": 0.3,
        "accumulate": 2,
        "save_every": 2,
        "objective": [CrossEntropy(), SoftLabels(weight=0.5)],
        "calibrate": corpus if calibrated else None,
        **QUIET,
    }
    whole = quantize(classifier, folder=tmp_path / "whole", **options)

    def stop(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(classifier, folder=tmp_path / "run", evaluate=stop, evaluate_at=[5], **options)
    again = quantize(classifier, folder=tmp_path / "run", **options)
    assert same(weights(again), weights(whole))
    assert again.config.quantized_inputs == whole.config.quantized_inputs
    pd.testing.assert_frame_equal(again.history, whole.history)
    # A checkpoint holds the weights as they are trained.
    held, _ = probes.load_checkpoint(tmp_path / "run" / "checkpoint-4")
    some = held.get_parameter(QUERY)
    assert not torch.equal(some, dequantize(quantize_tensor(some, 4)))
    if calibrated:  # and does not go on without the ranges of inputs
        shutil.rmtree(tmp_path / "run" / "checkpoint-6")
        (tmp_path / "run" / "checkpoint-4" / "quantized_inputs.json").unlink()
        mark(tmp_path / "run" / "checkpoint-4")
        with pytest.raises(probes.InputError, match=r"checkpoint-4 has no quantized_inputs.json, without which"):
            quantize(classifier, folder=tmp_path / "run", **options)


def test_what_is_measured_in_training_is_the_latent_and_the_quantised_model(classifier, make_tokenizer, corpus):
    seen = []

    def evaluate(model):
        seen.append({n: w.detach().clone() for n, w in block_matrices(model).items()})
        linear = [m for m in model.bert.encoder.modules() if isinstance(m, torch.nn.Linear)]
        assert len([m for m in linear if m._forward_pre_hooks]) == 18
        return {"size": 1.0}

    options = {"bits": 4, "train": corpus, "tokenizer": make_tokenizer(), "steps": 3, "noise": 0.5, **QUIET}
    quantized = quantize(classifier, evaluate=evaluate, evaluate_at=[1, 3], **options)
    assert len(seen) == 4
    for before, after in (seen[:2], seen[2:]):
        for name, latent in before.items():
            assert torch.equal(after[name], dequantize(quantize_tensor(latent, 4)))
            assert not torch.equal(after[name], latent)
    assert same(seen[3], {n: w.detach() for n, w in block_matrices(quantized).items()})
    assert quantized.history["when"].dropna().tolist() == ["before", "after"] * 2
    assert same(weights(quantize(classifier, **options)), weights(quantized))  # and nothing is disturbed
