"""Parts that are given back: each costs what it takes, and is taken away again bit for bit."""

import copy

import pytest
import torch
from trained import same, weights

import compress
from compress.tuning.given_back import UNITS, GivenBack
from probes.costs import as_stored
from probes.errors import InputError

SMALLER = {
    "pruned": lambda m: compress.prune(m, sparsity=0.9),
    "rounded": lambda m: compress.quantize(m, bits=3, group=4, symmetric=False),
    "factors": lambda m: compress.factorize(m, rank=3),
    "codebooks": lambda m: compress.product_quantize(m, codes=4, block=4),
}


@pytest.fixture(scope="module")
def model(make_classifier):
    return make_classifier(hidden_size=24, intermediate_size=48)


@pytest.mark.parametrize("kind", list(SMALLER))
@pytest.mark.parametrize("units", UNITS)
def test_a_part_costs_what_the_model_takes_more_and_goes_again(model, kind, units):
    other = SMALLER[kind](model)
    if (units, kind) in [("rows", k) for k in SMALLER if k != "pruned"] + [
        ("bits", k) for k in SMALLER if k != "rounded"
    ] + [("ranks", k) for k in SMALLER if k != "factors"]:
        with pytest.raises(InputError, match=f"units='{units}': .* is stored "):
            GivenBack(other, model, units)
        return
    back = GivenBack(other, model, units)
    assert back.size == as_stored(other)["stored_bytes"]
    for part in (back.parts[0], back.parts[len(back.parts) // 2]):
        before, config, size = weights(back.model), copy.deepcopy(back.model.config.to_dict()), back.size
        cost = back.cost(part)
        change = back.change(part)
        take_away = back.give(part)
        assert back.size == size + cost
        assert change >= 0
        take_away()
        assert same(weights(back.model), before)
        assert back.model.config.to_dict() == config
        assert (back.size, back.cost(part)) == (size, cost)
    while any(there := [p for p in back.parts if back.cost(p) is not None]):
        back.give(there[0])
    assert same(weights(back.settle()), weights(model))
    whole = sum(p.nbytes for p in model.parameters())
    if kind in ("rounded", "codebooks"):
        assert back.size == whole
    assert back.recorded() == {}


def test_rows_of_what_holds_its_inputs_first_are_its_outputs(tiny_models):
    base = tiny_models("GPT2LMHeadModel", n_embd=24)
    other = copy.deepcopy(base)
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight[:, 5] = 0
    (part,) = GivenBack(other, base, "rows").parts
    (step,) = part.steps()
    assert torch.equal(step.then, base.transformer.h[0].mlp.c_fc.weight)


def test_nothing_to_give_back_is_refused(model):
    with pytest.raises(InputError, match="there is nothing to give back"):
        GivenBack(copy.deepcopy(model), model, "blocks")
