"""The bytes that modules of the original take more: those that giving them back takes."""

import copy

import pytest

import compress
from compress.tuning.given_back import GivenBack
from probes.measures.attribution.added_bytes import added_bytes
from probes.states.resumed import blocks_of

SMALLER = {
    "pruned": lambda m: compress.prune(m, sparsity=0.9),
    "rounded": lambda m: compress.quantize(m, bits=3, group=4, symmetric=False),
    "in bits of its own": lambda m: compress.quantize(m, bits={"bert.encoder.layer.1.output.dense.weight": 2}),
    "factors": lambda m: compress.factorize(m, rank=3),
    "codewords": lambda m: compress.product_quantize(m, codes=4, block=4),
}


@pytest.fixture(scope="module")
def model(tiny_models):
    return tiny_models("BertForSequenceClassification", hidden_size=24, intermediate_size=48)


@pytest.mark.parametrize("kind", list(SMALLER))
def test_it_is_what_restore_adds_for_a_block(model, kind):
    other = SMALLER[kind](model)
    back = GivenBack(other, model, "blocks")
    part = next(p for p in back.parts if p.layer == 2)
    pair = [(blocks_of(model)[1], blocks_of(other)[1])]
    assert added_bytes(model, other)(pair) == back.cost(part) > 0


def test_what_is_shared_stays_where_it_is_and_what_takes_no_less_adds_nothing(model):
    fused = compress.fuse(model, share=0.5)
    one, two = blocks_of(model), blocks_of(fused)
    alone = {id(p) for p in two[0].parameters()}
    for block in two[1:]:
        alone -= {id(p) for p in block.parameters()}
    whole = sum(p.nbytes for p in one[0].parameters())
    own = sum(p.nbytes for p in two[0].parameters() if id(p) in alone)
    assert added_bytes(model, fused)([(one[0], two[0])]) == whole - own > 0
    other = copy.deepcopy(model)
    assert added_bytes(model, other)([(one[0], blocks_of(other)[0])]) == 0


def test_rows_of_codes_lie_along_the_outputs_also_of_gpt_2(tiny_models):
    model = tiny_models("GPT2LMHeadModel", n_embd=24)
    other = compress.quantize(model, bits=2)
    back = GivenBack(other, model, "matrices")
    name = "transformer.h.0.mlp.c_fc"
    (part,) = (p for p in back.parts if p.name == name)
    found = added_bytes(model, other)([tuple(m.get_submodule(name) for m in (model, other))])
    assert found == back.cost(part)
