"""Block by block: each is fed by those changed before it, as a model by hand has it; what cannot be skipped runs."""

import pandas as pd
import pytest
import tiny
import torch

import probes
from compress import blocks
from compress.blocks import block_by_block
from compress.inputs import row_batches
from compress.matrices import block_of, matrices_of
from compress.rows import every_row
from probes.errors import LayerscopeWarning

TEXTS = ["a dog sat on the mat", "the cat", "then he sang under a small tree and she ran", "bird"]


@pytest.fixture(scope="module")
def corpus():
    return probes.load_corpus(pd.DataFrame({"id": range(40), "language": "en", "text": TEXTS * 10}))


def batches_for(model, name, corpus):
    tokenizer = tiny.tokenizer_of(name)
    return list(row_batches(every_row(corpus, model, tokenizer), tokenizer, model))


def walked(model, batches, monkeypatch, skips=None):
    """What each matrix is fed while every matrix is halved after its block was measured."""
    seen = {}
    matrices = matrices_of(model)

    def change(moments):
        seen.update(moments)
        for name in moments:
            matrices[name].detach().mul_(0.5)

    if skips is False:
        monkeypatch.setattr(blocks, "_alike", lambda *_: False)
    block_by_block(model, matrices, batches, change, so="", progress=False)
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "t5", "mixtral", "gemma3", "modernbert"])
def test_skipping_what_ran_before_changes_nothing(name, corpus, monkeypatch):
    found = []
    for skips in (None, False):
        model = tiny.make(name)
        found.append(walked(model, batches_for(model, name, corpus), monkeypatch, skips))
    assert found[0].keys() == found[1].keys()
    for key, one in found[0].items():
        assert one.tokens == found[1][key].tokens
        assert torch.allclose(one.products, found[1][key].products, rtol=1e-4, atol=1e-5 * one.products.abs().max())


def test_each_block_is_fed_by_the_changed_ones_before_it(corpus, monkeypatch):
    model, untouched = tiny.make("bert"), tiny.make("bert")
    batches = batches_for(model, "bert", corpus)
    seen = walked(model, batches, monkeypatch)
    last = "encoder.layer.2.intermediate.dense"
    for name, matrix in matrices_of(untouched).items():  # by hand: the first two blocks halved, the third not yet
        if block_of(name) in ("encoder.layer.0", "encoder.layer.1"):
            matrix.detach().mul_(0.5)
    total = 0
    for batch in batches:
        given = []
        hook = untouched.get_submodule(last).register_forward_hook(lambda _m, x, _y, given=given: given.append(x[0]))
        with torch.no_grad():
            untouched(**batch)
        hook.remove()
        x = given[0][batch["attention_mask"].bool()].double()
        total = total + x.T @ x
    assert torch.allclose(seen[f"{last}.weight"].products, total, rtol=1e-4, atol=1e-5 * total.abs().max())


def test_every_block_runs_twice_and_no_hook_stays(corpus, monkeypatch):
    model = tiny.make("llama", "lm")
    batches = batches_for(model, "llama", corpus)
    calls = []
    for number, block in enumerate(model.model.layers):
        block.mlp.register_forward_hook(lambda *_, number=number: calls.append(number))
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    walked(model, batches, monkeypatch)
    # Once to find their order, once to be measured and once, but for the last, to hand on what they give when changed.
    assert [calls.count(i) for i in range(4)] == [2 * len(batches) + 1] * 3 + [len(batches) + 1]
    assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    assert all("forward" not in vars(m) for m in model.modules())


def test_a_block_that_runs_many_times_is_seen_each_time(corpus, monkeypatch):
    model = tiny.make("albert")
    batches = batches_for(model, "albert", corpus)
    seen = walked(model, batches, monkeypatch)
    tokens = sum(int(b["attention_mask"].sum()) for b in batches)
    assert {m.tokens for m in seen.values()} == {4 * tokens}


def test_what_several_read_is_the_same_for_each(corpus, monkeypatch):
    model = tiny.make("bert")
    seen = walked(model, batches_for(model, "bert", corpus), monkeypatch)
    one, other = (seen[f"encoder.layer.1.attention.self.{part}.weight"] for part in ("query", "value"))
    assert torch.equal(one.products, other.products)
    assert one.products is not other.products


def test_matrices_that_no_text_reaches_are_named(corpus, monkeypatch):
    model = tiny.make("mixtral")
    batches = batches_for(model, "mixtral", corpus.select([3]))  # one token, for two of four experts
    found = {}
    with pytest.warns(LayerscopeWarning, match=r"no text reaches 'layers\.0\.mlp\.experts\..*: they stay"):
        block_by_block(model, matrices_of(model), batches, found.update, so="they stay", progress=False)
    assert any(m.tokens == 0 and torch.equal(m.products, torch.eye(len(m.products)).double()) for m in found.values())
