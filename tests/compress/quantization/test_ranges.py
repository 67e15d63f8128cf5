"""Ranges of inputs: moving averages over batches, whatever padding and split; along with a training; refused."""

from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from rounded import inputs_of
from trained import QUIET

import probes
from compress.objectives.labels import CrossEntropy
from compress.quantization.quantize import quantize
from probes.models.formats.quantized_inputs import QuantizedInput


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


def test_ranges_of_an_encoder_decoder_are_measured_in_both_parts(tiny_models, make_tokenizer, corpus):
    found = quantize(tiny_models("T5Model"), calibrate=corpus, tokenizer=make_tokenizer()).config.quantized_inputs
    assert {name.split(".")[0] for name in found} == {"encoder", "decoder"}
    assert all(v["low"] < v["high"] for v in found.values())


@pytest.mark.filterwarnings("ignore:.*touches 93% of the weights:probes.errors.LayerscopeWarning")
def test_what_no_text_reaches_has_no_range_and_is_not_rounded(make_tokenizer, corpus):
    with pytest.warns(probes.LayerscopeWarning, match=r"no text reaches 'layers.0.mixer.dt_proj'.* is not rounded"):
        quantized = quantize(tiny.make("mamba"), calibrate=corpus, tokenizer=make_tokenizer())
    assert {name.rpartition(".")[2] for name in quantized.config.quantized_inputs} == {"in_proj", "x_proj", "out_proj"}


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
