"""Passes that begin at a block, against whole passes by plain hooks; the model is as it was afterwards."""

import pytest
import torch
from architectures import inputs, make

from probes.errors import InputError
from probes.models.facts import body_of
from probes.states.resumed import (
    blocks_of,
    has_module,
    record,
    state_of,
    with_block,
    with_module,
    with_parts,
    with_states,
)
from probes.states.running import reading

KINDS = ["bert", "albert", "deberta-v2", "gpt2", "t5"]


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    """Two models of an architecture whose weights differ, and what runs either on the same tokens."""
    models = []
    for _ in range(2):
        model = make(request.param)
        if models:
            with torch.no_grad():
                for name, parameter in body_of(model).named_parameters():
                    if parameter.ndim > 1 and "embed" not in name and "wte" not in name:
                        parameter.add_(0.1 * torch.randn_like(parameter))
        models.append(model)
    fed = inputs(models[0])
    return models, lambda model: lambda: body_of(model)(**fed).last_hidden_state


def whole(model, run, layer, states):
    """A whole pass in which a plain hook on one block, by the number of its run, puts states in."""
    ran = [0]
    blocks = {id(b): b for b in blocks_of(model)}.values()

    def after(_module, _args, given):
        ran[0] += 1
        if ran[0] == layer:
            return (states, *given[1:]) if isinstance(given, tuple) else states
        return None

    hooks = [block.register_forward_hook(after) for block in blocks]
    try:
        return run()
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def test_other_states_at_a_layer_give_what_a_whole_pass_gives(pair):
    (base, other), runs = pair
    with reading(base), reading(other):
        one, two = (record(runs(m), blocks_of(m)) for m in (base, other))
        assert len(one.given) == len(blocks_of(base)) == 4
        torch.testing.assert_close(two.answer, runs(other)(), rtol=0, atol=0)
        for layer in range(1, 5):
            found = with_states(runs(other), blocks_of(other), two, layer, one.layer(layer))
            torch.testing.assert_close(found, whole(other, runs(other), layer, one.layer(layer)), rtol=0, atol=0)
        shifted = one.layer(0) + 0.1
        first = with_states(runs(other), blocks_of(other), two, 0, shifted)
        assert not torch.equal(first, two.answer)
        assert torch.equal(with_states(runs(other), blocks_of(other), two, 0, two.layer(0)), two.answer)


@torch.no_grad()
def test_another_block_gives_what_a_model_with_that_block_gives(pair):
    (base, other), runs = pair
    blocks, given = blocks_of(other), blocks_of(base)
    if len({id(b) for b in blocks}) < len(blocks):
        pytest.skip("one block runs as all layers, so that no model has another in one place alone")
    with reading(base), reading(other):
        trace = record(runs(other), blocks)
        found = with_block(runs(other), blocks, trace, 2, given[2])
        own, theirs = blocks[2].state_dict(), given[2].state_dict()
        kept = {k: v.clone() for k, v in own.items()}
        blocks[2].load_state_dict(theirs)
        expected = runs(other)()
        blocks[2].load_state_dict(kept)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert torch.equal(with_block(runs(other), blocks, trace, 2, blocks[2]), trace.answer)


@torch.no_grad()
def test_modules_inside_a_block_give_what_a_model_with_their_weights_gives():
    one, two = make("bert"), make("bert")
    fed, name = inputs(two), "attention.output.dense"
    with torch.no_grad():
        for module in (b.get_submodule(name) for b in blocks_of(one)):
            module.weight.add_(1)
    run = lambda: two(**fed).last_hidden_state  # noqa: E731
    blocks = blocks_of(two)
    trace = record(run, blocks)
    found = with_parts(run, blocks, trace, 2, {name: blocks_of(one)[2].get_submodule(name)})
    own = blocks[2].get_submodule(name)
    assert "forward" not in vars(own)
    blocks[2].attention.output.dense = blocks_of(one)[2].get_submodule(name)
    expected = run()
    assert torch.equal(found, expected)
    assert not torch.equal(found, trace.answer)


@torch.no_grad()
def test_blocks_below_are_not_run_and_same_states_end_the_pass():
    model = make("bert")
    fed, ran = inputs(model), []
    blocks = blocks_of(model)
    run = lambda: model(**fed).last_hidden_state  # noqa: E731
    trace = record(run, blocks)
    hooks = [b.attention.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, b in enumerate(blocks)]
    with_states(run, blocks, trace, 2, trace.layer(2) + 1)
    assert ran == [2, 3]
    ran.clear()
    assert with_states(run, blocks, trace, 2, trace.layer(2).clone()) is trace.answer
    with_block(run, blocks, trace, 1, blocks[1])
    assert ran == [1]
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def test_what_a_module_inside_gives_is_put_in_its_place():
    model, fed = make("bert"), None
    fed = inputs(model)
    run = lambda: model(**fed).last_hidden_state  # noqa: E731
    blocks, name = blocks_of(model), "attention.output.dense"
    assert has_module(blocks[0], name)
    assert not has_module(blocks[0], "attention.nothing")
    trace = record(run, blocks, [name])
    output = trace.inside[2, name] * 0
    hook = blocks[2].get_submodule(name).register_forward_hook(lambda *_: output)
    expected = run()
    hook.remove()
    assert torch.equal(with_module(run, blocks, trace, (2, name), output), expected)
    assert with_module(run, blocks, trace, (2, name), trace.inside[2, name].clone()) is trace.answer


def test_the_model_is_as_it_was_also_after_an_exception():
    model = make("bert")
    fed, blocks = inputs(model), blocks_of(model)
    run = lambda: model(**fed).last_hidden_state  # noqa: E731
    own = blocks[3].forward
    blocks[3].forward = lambda *args, **kwargs: own(*args, **kwargs)  # as accelerate sets one
    before = [vars(b).get("forward") for b in blocks]
    weights = {k: v.clone() for k, v in model.state_dict().items()}

    def broken(*_args, **_kwargs):
        raise RuntimeError("no")

    with torch.no_grad():
        trace = record(run, blocks, ["output.dense"])
        with pytest.raises(RuntimeError, match="no"):
            with_block(run, blocks, trace, 1, type("Broken", (torch.nn.Module,), {"forward": broken})())
        with pytest.raises(InputError, match=r"expected states of shape .* from block 2, found .*one width"):
            with_states(run, blocks, trace, 2, trace.layer(2)[..., :4])
    assert [vars(b).get("forward") for b in blocks] == before
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_states_are_the_first_of_what_a_block_gives_and_unknown_blocks_are_said():
    assert state_of((1, 2)) == state_of([1]) == state_of(1) == 1
    model = make("bert")
    model.config.model_type, model.config.num_hidden_layers = "unheard", 9
    with pytest.raises(InputError, match=r"blocks of BertModel \('unheard'\) are not known\. Give a model of one of"):
        blocks_of(model)
