"""A dozen architectures by what can be done with them; all of them are run by tests/benchmarks/architectures.py."""

import cells
import numpy as np
import pytest
import tiny

import compress
import probes

ENCODERS = ["bert", "roberta", "distilbert", "deberta-v2", "modernbert", "mpnet"]
DECODERS = ["gpt2", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"]


CELLS = [(name, operation) for name in [*ENCODERS, *DECODERS] for operation in ("predictions", "save", "magnitude")]
CELLS += [(name, "training") for name in ("deberta-v2", "qwen2")]
CELLS += [("gpt_oss", "channels"), ("gpt_oss", "torchao"), ("deepseek_v3", "quantize"), ("qwen3_next", "calibrated")]
CELLS += [("t5", "footprint"), ("albert", "footprint"), ("albert", "drop_layers"), ("albert", "distill")]


@pytest.mark.parametrize(("name", "operation"), CELLS)
def test_the_cell_is_right(name, operation):
    cell = cells.verdict(name, "head", operation)
    assert (cell["verdict"], cell["why"]) == ("right", "")


def test_every_row_can_be_made_and_is_small():
    for name in ("bert", "qwen3_moe", "t5", "mamba"):
        model = tiny.make(name)
        assert sum(p.numel() for p in model.parameters()) < 300_000
        assert len(cells.blocks_of(model)) == tiny.LAYERS
    assert tiny.make("mamba", "head") is None
    assert sum(row.known for row in tiny.ROWS.values()) == 16


def test_what_is_wrong_is_seen(monkeypatch):
    right = probes.capture

    def moved(*args, **options):
        reps = right(*args, **options)
        return reps.assign(hidden=reps["hidden"] + 1e-3)

    monkeypatch.setattr(probes, "capture", moved)
    cell = cells.verdict("bert", "base", "capture")
    assert cell["verdict"] == "silently wrong"
    assert "off" in cell["why"]


def test_a_refusal_is_no_traceback(monkeypatch):
    def refuses(*_args, **_options):
        raise probes.InputError("not here. Do this instead")

    def fails(*_args, **_options):
        raise KeyError("layers")

    for stand_in, verdict in ((refuses, "refused"), (fails, "traceback")):
        monkeypatch.setattr(probes, "capture", stand_in)
        assert cells.verdict("bert", "base", "capture")["verdict"] == verdict


def test_experts_that_tokens_are_not_sent_to_are_wrong():
    case = cells.Case("qwen3_moe", "base", tiny.make("qwen3_moe"))
    again = cells.as_routed(case, case.model, case.model)
    np.testing.assert_allclose(again.hidden, case.expected.hidden, atol=1e-6)
    other = tiny.make("qwen3_moe")
    for layer in other.layers:
        layer.mlp.gate.weight.data.neg_()
    with pytest.raises(cells.Wrong, match=r"\d+% of the tokens go to other experts"):
        cells.as_routed(case, other, case.model)
    other = tiny.make("qwen3_moe")
    other.layers[1].self_attn.v_proj.weight.data *= 1.2
    with pytest.raises(cells.Wrong, match=r"states of layers .* off"):
        cells.same_states(case, other, cells.as_routed(case, other, case.model))


@pytest.mark.parametrize("name", ["vit", "clip", "whisper"])
def test_what_reads_no_text_is_refused_by_every_verb_that_runs_it(name):
    case = cells.Case(name, "base", tiny.make(name))
    given = {"tokenizer": case.tokenizer}
    ways = {
        "wanda": lambda: compress.prune(case.model, sparsity=0.5, criterion="wanda", train=case.corpus, **given),
        "calibrate": lambda: compress.quantize(case.model, calibrate=case.corpus, **given),
        "distill": lambda: compress.distill(case.model, layers=2, steps=1, train=case.corpus, **given),
        "vocabulary": lambda: compress.prune_vocabulary(case.model, case.tokenizer, case.corpus),
        "footprint": lambda: compress.footprint(case.model),
        "torchao": lambda: compress.quantize(case.model, backend="torchao"),
        "onnxruntime": lambda: compress.quantize(case.model, backend="onnxruntime"),
        "compare": lambda: probes.compare({"one": case.model, "other": case.model}, case.corpus, **given),
    }
    for run in ways.values():
        with pytest.raises(
            probes.InputError, match=r"reads (pixel_values|input_features), not text alone. Give .* text"
        ):
            run()
    pruned = compress.prune(case.model, sparsity=0.5)  # which runs nothing
    assert pruned.config.compression["coverage"] > 0.95


def test_weights_that_are_passed_over_are_wrong():
    case = cells.Case("bert", "base", tiny.make("bert"))
    some = {n: p + 1 for n, p in cells.block_weights(case.model).items() if "query" not in n}
    with pytest.raises(cells.Wrong, match=r"passes over \d+% of the block weights without a word: encoder.layer.\*."):
        cells.changed(case, cells.with_weights(case.model, some))
    every = {n: p + 1 for n, p in cells.block_weights(case.model).items()}
    assert set(cells.changed(case, cells.with_weights(case.model, every))) == set(every)
    assert np.isfinite(case.expected.hidden).all()
