"""What has a module in a block and what stands for what; the numbers are tested with patching."""

import pytest
from architectures import make

from probes.errors import InputError
from probes.measures.attribution.places import KINDS, inside_of, parts_of, places_of
from probes.states.resumed import blocks_of


@pytest.mark.parametrize("kind", ["bert", "llama", "qwen3_moe", "t5"])
def test_every_block_has_an_attention_and_a_feed_forward_part(kind):
    model = make(kind)
    places = places_of(model, model, ("one", "two"), "modules", "other", None)
    assert [p.kind for p in places] == [*KINDS] * 4
    assert [p.layer for p in places] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert set(inside_of(model, "one").values()) == set(KINDS)


@pytest.mark.parametrize("kind", ["bert", "llama", "qwen3_moe", "t5", "albert", "gpt2"])
def test_the_weights_of_a_block_are_of_its_attention_its_feed_forward_part_or_norms(kind):
    model = make(kind)
    places = places_of(model, model, ("one", "two"), "module_weights", "other", None)
    assert [(p.layer, p.name) for p in places] == [(n, k) for n in (1, 2, 3, 4) for k in KINDS]
    of = parts_of(model, 1, "one")
    held = [{id(p) for m in modules.values() for p in m.parameters()} for modules in of.values()]
    assert all(held)
    assert not held[0] & held[1]
    block = blocks_of(model)[1]
    left = [n for n, p in block.named_parameters() if id(p) not in held[0] | held[1]]
    assert all("norm" in n.lower() or "ln_" in n or ".gate." in n for n in left), left


def test_states_have_a_place_more_than_blocks():
    model = make("bert")
    assert [p.layer for p in places_of(model, model, ("one", "two"), "layers", "base", None)] == [0, 1, 2, 3, 4]
    assert [p.layer for p in places_of(model, model, ("one", "two"), "weights", "base", None)] == [1, 2, 3, 4]
    with pytest.raises(InputError, match=r"at='weights': .*and layers= is of states\. Patch states"):
        places_of(model, model, ("one", "two"), "weights", "other", {1: 1})
