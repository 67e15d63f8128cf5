"""Quantisation of models: what is rounded and what is not, ranges, training with noise, and what is kept of it."""

import copy
import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from transformers import TrainerCallback

import probes
from compress.matrices import block_matrices
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.pruning.prune import prune
from compress.quantization.noise import Noise
from compress.quantization.quantize import quantize
from compress.quantization.quantizers import dequantize, packed_bytes, quantize_tensor
from compress.quantization.weights import QuantizedMatrices
from compress.saving import save
from compress.training.loop import train
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.quantized_inputs import QuantizedInput

QUIET = {"progress": False, "batch_size": 8, "learning_rate": 1e-3}
QUERY = "bert.encoder.layer.1.attention.self.query.weight"
FAMILIES = ["BertModel", "RobertaModel", "DistilBertModel", "GPT2LMHeadModel", "LlamaModel", "T5Model"]


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def corpus():
    rng = np.random.default_rng(0)
    words = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}
    rows = [
        {
            "id": i,
            "language": "en",
            "text": " ".join(rng.permutation(words["xyz"[i % 3]].split())[: 1 + i % 5]),
            "label": "xyz"[i % 3],
        }
        for i in range(40)
    ]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def make(tiny_models):
    def make(dropout=0.1):
        model = tiny_models(
            "BertForSequenceClassification", hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
        )
        model.config.id2label = {0: "x", 1: "y", 2: "z"}
        return model

    return make


@pytest.fixture
def classifier(make):
    return make()


# --- what is rounded -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("group", ["channel", 4])
def test_the_matrices_of_the_blocks_are_rounded_unit_by_unit_and_nothing_else(tiny_models, family, group):
    model = tiny_models(family)
    before = weights(model)
    quantized = quantize(model, bits=4, group=group, symmetric=False)
    assert same(weights(model), before)
    assert type(quantized) is type(model)
    assert quantized.config.compression["quantized"] == sorted(block_matrices(model))
    assert not hasattr(model.config, "quantized_inputs")
    assert not any(m._forward_pre_hooks for m in model.modules())
    after = weights(quantized)
    for name, weight in block_matrices(model).items():
        across = family.startswith("GPT2")
        units = after.pop(name).T if across else after.pop(name)
        expected = quantize_tensor(weight.T if across else weight, 4, group=group, symmetric=False)
        assert torch.equal(units, dequantize(expected))
        for row in units.reshape(-1, units.shape[1] if group == "channel" else 4):
            assert len(row.unique()) <= 16
        assert not torch.equal(units.T if across else units, weight)
    assert same(after, {k: before[k] for k in after})


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


def test_embeddings_only_where_asked_row_by_row(tiny_models):
    model = tiny_models("BertModel")
    table = model.get_input_embeddings().weight
    assert torch.equal(quantize(model).get_input_embeddings().weight, table)
    quantized = quantize(model, bits=5, embeddings=True)
    assert torch.equal(quantized.get_input_embeddings().weight, dequantize(quantize_tensor(table, 5)))
    assert "embeddings.word_embeddings.weight" in quantized.config.compression["quantized"]
    assert len(quantized.config.quantized_inputs) == len(block_matrices(model))  # words have no inputs
    tied = quantize(tiny_models("GPT2LMHeadModel"), embeddings=True)
    assert tied.lm_head.weight is tied.get_input_embeddings().weight


def test_only_some_matrices_and_their_inputs(classifier):
    quantized = quantize(classifier, bits=4, only=r"layer\.1\..*query")
    assert quantized.config.compression["quantized"] == [QUERY]
    assert quantized.config.quantized_inputs == {"encoder.layer.1.attention.self.query": {"bits": 8}}
    after = weights(quantized)
    assert not torch.equal(after.pop(QUERY), classifier.get_parameter(QUERY))
    assert same(after, {k: v for k, v in weights(classifier).items() if k != QUERY})


def test_each_matrix_has_the_bits_it_is_given(classifier):
    given = {QUERY: 2, QUERY.replace("query", "key"): 7}
    quantized = quantize(classifier, bits=given)
    uniform = {b: weights(quantize(classifier, bits=b)) for b in (2, 7)}
    after, before = weights(quantized), weights(classifier)
    for name in block_matrices(classifier):
        expected = uniform[given[name]] if name in given else before
        assert torch.equal(after[name], expected[name])
    what = quantized.config.compression
    assert what["bits"] == given
    assert what["bytes_of_quantized"] == packed_bytes((12, 12), 2) + packed_bytes((12, 12), 7)
    assert what["average_bits"] == 8 * what["bytes_of_quantized"] / 288


def test_bytes_by_hand(classifier):
    what = quantize(classifier, bits=4, group=4).config.compression
    # Three layers of four matrices 12 x 12 and two of 12 x 20.
    count = 3 * (4 * 144 + 2 * 240)
    assert what["bytes_of_quantized"] == count // 2 + 4 * count // 4
    assert what["average_bits"] == 4 + 32 / 4
    every = sum(p.numel() for p in classifier.parameters())
    assert what["bytes_of_model"] == what["bytes_of_quantized"] + 4 * (every - count)
    whole = quantize(classifier, bits=3, group="tensor", symmetric=False).config.compression
    assert whole["bytes_of_quantized"] == 3 * (4 * (54 + 4 + 1) + 2 * (90 + 4 + 1))


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


def inputs_of(model, name, batch):
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return seen[0]


@pytest.fixture
def batch(make_tokenizer):
    return dict(make_tokenizer()(["the cat sat on mat", "a dog"], return_tensors="pt", padding=True))


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


def test_ranges_are_moving_averages_over_the_batches_of_a_corpus(classifier, make_tokenizer, corpus):
    tokenizer = make_tokenizer()
    quantized = quantize(classifier, bits=6, calibrate=corpus, tokenizer=tokenizer, seed=3)
    plain = quantize(classifier, bits=6, activation_bits=None)
    stretched = []
    texts = [corpus["text"][i] for i in np.random.default_rng(3).permutation(len(corpus))]
    for name, entry in quantized.config.quantized_inputs.items():
        ends = []
        for part in (texts[:32], texts[32:]):
            # One text after another: there is no padding.
            rows = [
                inputs_of(plain, f"bert.{name}", dict(tokenizer([text], return_tensors="pt"))).double() for text in part
            ]
            ends.append((min(r.min().item() for r in rows), max(r.max().item() for r in rows)))
        low, high = (0.9 * a + 0.1 * b for a, b in zip(*ends, strict=True))
        padded = inputs_of(plain, f"bert.{name}", dict(tokenizer(texts[:32], return_tensors="pt", padding=True)))
        stretched.append(padded.min() < ends[0][0] - 1e-3 or padded.max() > ends[0][1] + 1e-3)
        assert entry == {"bits": 8, "low": pytest.approx(low, abs=1e-5), "high": pytest.approx(high, abs=1e-5)}
    assert any(stretched)  # were padding not left out, it would show
    assert quantized.config.compression["activation_ranges"] == "calibrated"
    assert quantized.config.compression["seed"] == 3
    assert not any(len(m._forward_pre_hooks) > 1 for m in quantized.modules())  # what measured is gone


def test_neither_splits_nor_labels_matter_where_ranges_are_measured(classifier, make_tokenizer, corpus):
    def ranges(rows):
        return quantize(classifier, calibrate=rows, tokenizer=make_tokenizer()).config.quantized_inputs

    expected = ranges(corpus)
    assert ranges(corpus.remove_columns("label")) == expected
    assert ranges(corpus.add_column("split", ["dev"] * len(corpus))) == expected
    assert ranges(corpus.map(lambda row: {"label": "w"})) == expected
    assert ranges(corpus.select(range(5))) != expected


@pytest.mark.parametrize("how", ["dynamic", "calibrated"])
def test_neither_padding_nor_the_batch_changes_the_results(classifier, make_tokenizer, corpus, how):
    tokenizer = make_tokenizer()
    found = corpus if how == "calibrated" else None
    quantized = quantize(classifier, bits=4, calibrate=found, tokenizer=tokenizer)
    one, many = (probes.capture(quantized, tokenizer, corpus, progress=False, batch_size=b) for b in (1, 40))
    # Rounding of the sums may put a value on the other side of a tie: a step of one input, but of few.
    off = np.abs(one.hidden.values - many.hidden.values)
    assert (off > 1e-4).mean() < 0.02
    assert np.array_equal(one.logits.values.argmax(1), many.logits.values.argmax(1))


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


def test_ranges_of_an_encoder_decoder_are_measured_in_its_encoder(tiny_models, make_tokenizer, corpus):
    model = tiny_models("T5Model")
    options = {"calibrate": corpus, "tokenizer": make_tokenizer()}
    with pytest.raises(
        probes.InputError, match=r"calibrate: no text reaches 'decoder.block.0.* choose the others with"
    ):
        quantize(model, **options)
    found = quantize(model, only="encoder.block", **options).config.quantized_inputs
    assert all(v["low"] < v["high"] for v in found.values())


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


# --- training with noise ---------------------------------------------------------------------------------------------


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
    if calibrated:  # what the ranges are without those of the checkpoint
        (tmp_path / "run" / "checkpoint-4" / "quantized_inputs.json").unlink()
        shutil.rmtree(tmp_path / "run" / "checkpoint-6")
        other = quantize(classifier, folder=tmp_path / "run", **options)
        assert other.config.quantized_inputs != whole.config.quantized_inputs


def test_what_is_measured_in_training_is_the_latent_and_the_quantised_model(classifier, make_tokenizer, corpus):
    seen = []

    def evaluate(model):
        seen.append({n: w.detach().clone() for n, w in block_matrices(model).items()})
        assert len([m for m in model.modules() if m._forward_pre_hooks]) == 18
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


def test_ranges_run_along_with_the_training(make, make_tokenizer, corpus):
    classifier, tokenizer = make(dropout=0.0), make_tokenizer()
    options = {"calibrate": corpus, "tokenizer": tokenizer, "activation_bits": 3}
    name = "encoder.layer.2.output.dense"
    given, stretched = [], []

    class Watches:
        name, weight, needs = "watches", 1.0, frozenset({"labels"})

        def __call__(self, student, teacher, batch):
            # Behind the rounding: what comes out of a range lies inside of it.
            module = student.model.get_submodule(f"bert.{name}")
            (hook,) = (h for h in module._forward_pre_hooks.values() if isinstance(h, QuantizedInput))
            rows = {k: batch[k] for k in ("input_ids", "token_type_ids", "attention_mask") if k in batch}
            seen = []
            handle = module.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()), prepend=True)
            ran = hook.low, hook.high
            student.model.eval()  # so that nothing is taken in
            with torch.no_grad():
                student.model(**rows)
            student.model.train()
            handle.remove()
            assert (hook.low, hook.high) == ran
            own = seen[0][batch["attention_mask"].bool()]
            stretched.append(seen[0].max() > own.max() or seen[0].min() < own.min())
            given.append((own.min().item(), own.max().item(), *ran))
            return CrossEntropy()(student, teacher, batch)

    quantized = quantize(classifier, train=corpus, steps=4, objective=[Watches()], **options, **QUIET)
    assert len(given) == 4
    assert any(stretched)  # were padding not left out, it would show
    for earlier, later in pairwise(given):
        low, high = (0.9 * earlier[2 + i] + 0.1 * later[i] for i in range(2))
        assert later[2:] == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    kept = quantized.config.quantized_inputs[name]
    assert (kept["low"], kept["high"]) == given[-1][2:]
    assert not any(len(m._forward_pre_hooks) > 1 for m in quantized.modules())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits=1: expected a whole number of 2 to 8"),
        ({"bits": {QUERY: 9}}, "bits=9: expected a whole number of 2 to 8"),
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


def test_what_cannot_be_calibrated_is_refused(classifier, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"calibrate=... looks at text: give tokenizer=... too"):
        quantize(classifier, calibrate=corpus)
    with pytest.raises(probes.InputError, match="activation_bits=None leaves as they are"):
        quantize(classifier, calibrate=corpus, tokenizer=make_tokenizer(), activation_bits=None)
    with pytest.raises(probes.InputError, match="calibrate: expected a corpus with texts, found one of no rows"):
        quantize(classifier, calibrate=corpus.select([]), tokenizer=make_tokenizer())
    with torch.no_grad():
        classifier.bert.embeddings.LayerNorm.bias[0] = float("nan")
    with pytest.raises(probes.InputError, match=r"encoder.layer.0.attention.self.query: its inputs span nan to nan"):
        quantize(classifier, calibrate=corpus, tokenizer=make_tokenizer())


def test_weights_that_cannot_be_quantised_are_refused(tiny_models, classifier):
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        quantize(torch.nn.Linear(2, 2))
    with pytest.raises(probes.InputError, match="BertModel has no weight matrices inside repeated blocks"):
        quantize(tiny_models("BertModel", num_hidden_layers=0))
    with pytest.raises(probes.InputError, match=r"expected weights in float32, found torch.bfloat16, .* model.float"):
        quantize(tiny_models("BertModel").bfloat16())
    with torch.no_grad():
        classifier.get_parameter(QUERY)[5, 1] = float("nan")
    with pytest.raises(probes.InputError, match=rf"{QUERY}: row 5 holds nan; 1 of its 144 values are NaN or infinite"):
        quantize(classifier)
    quantize(classifier, only="layer.0")  # elsewhere it is not looked at
