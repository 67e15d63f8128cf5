"""The table of architectures: every part that a row names is in every block, and what is read from it is right."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

import probes
from probes.models.parts import (
    FAMILIES,
    ROWS,
    STRUCTURED,
    attention_outputs,
    count_of,
    ends_of,
    family_of,
    head_size_of,
    keep_parts,
    layers_of,
    read_next,
)

# A tiny model of each type: 3 blocks, 4 heads (of an even size where positions are rotations), 20 channels.
BERT = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 20}
SIZES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), BERT),
    "electra": BERT | {"embedding_size": 8},
    "distilbert": {"dim": 12, "n_layers": 3, "n_heads": 4, "hidden_dim": 20},
    "gpt2": {"n_embd": 12, "n_layer": 3, "n_head": 4, "n_inner": 20},
    **dict.fromkeys(("llama", "mistral", "qwen2"), BERT | {"hidden_size": 16, "num_key_value_heads": 2, "head_dim": 4}),
}


def make(kind):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=30, pad_token_id=0, **SIZES[kind])
    return transformers.AutoModel.from_config(config).eval()


def width(module, what):
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight
    return weight.shape[{"out": 0, "in": 1}[what]]


def test_no_type_is_in_two_rows():
    assert len(FAMILIES) == sum(len(row.types) for row in ROWS)
    assert set(SIZES) == set(FAMILIES)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_part_is_where_the_row_says(kind):
    model, row = make(kind), FAMILIES[kind]
    blocks, size = layers_of(model, row), model.config.hidden_size
    assert len(blocks) == 3
    assert bool(row.projections) != bool(row.fused)
    for block in blocks:
        maps = {n: block.get_submodule(n) for n in (*row.projections, row.fused, row.joined, row.inner, row.outer) if n}
        assert all(isinstance(m, nn.Linear | Conv1D) for m in maps.values())
        assert all(name.startswith(row.attention) for name in (*row.projections, row.fused) if name)
        assert width(maps[row.projections[0] if row.projections else row.fused], "in") == size
        assert [width(maps[row.joined], way) for way in ("in", "out")] == [size, size]
        assert [width(maps[row.inner], way) for way in ("in", "out")] == [size, 20]
        assert [width(maps[row.outer], way) for way in ("in", "out")] == [20, size]
        if row.gate:
            assert width(block.get_submodule(row.gate), "out") == 20
        if row.fused:
            assert width(maps[row.fused], "out") == 3 * size
        for name in row.norms:
            assert block.get_submodule(name).weight.shape == (size,)
        # Nothing in a block is left out: no map, and no norm.
        named = {*maps, *row.norms, *([row.gate] if row.gate else [])}
        assert {n for n, m in block.named_modules() if getattr(m, "weight", None) is not None} == named
    if row.channels:
        assert getattr(model.config, row.channels) == 20
    assert row.one_width == (model.get_input_embeddings().weight.shape[1] == size)


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_joins_the_heads_is_found_in_each_block(kind):
    model, row = make(kind), FAMILIES[kind]
    assert attention_outputs(model) == [block.get_submodule(row.joined) for block in layers_of(model, row)]


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_unit_is_read_by_what_the_table_says(kind):
    """Where what is read from a unit is zero, it does not matter what the unit gives; where it is not, it does."""
    model, row = make(kind), FAMILIES[kind]
    names = {name for name, _ in layers_of(model, row)[0].named_modules()}
    pairs = [(one, other) for one, other in read_next() if one in names and other in names]
    assert pairs == ([] if row.fused else [(row.projections[2], row.joined), (row.inner, row.outer)])
    ids = torch.tensor([[2, 5, 9, 3]])
    for one, other in pairs:
        giver, reader = (layers_of(model, row)[1].get_submodule(name) for name in (one, other))
        if len(giver.weight) != reader.weight.shape[1]:  # grouped heads share their values
            continue
        for silent in (True, False):
            changed = make(kind)
            giver, reader = (layers_of(changed, row)[1].get_submodule(name) for name in (one, other))
            with torch.no_grad():
                reader.weight[:, 4] *= 0 if silent else 1
                before = changed(ids).last_hidden_state
                giver.weight[4] = torch.randn(giver.in_features)
                after = changed(ids).last_hidden_state
            assert torch.equal(before, after) == silent


@pytest.mark.parametrize("kind", STRUCTURED)
def test_heads_and_channels_are_counted_and_kept(kind):
    model = make(kind)
    row = family_of(model)
    assert row is FAMILIES[kind]
    layer = layers_of(model, row)[1]
    assert (head_size_of(layer, row), count_of(layer, row, "heads"), count_of(layer, row, "channels")) == (3, 4, 20)
    value = layer.get_submodule(row.projections[2]).weight.clone()
    keep_parts(layer, row, "heads", [1, 3])
    keep_parts(layer, row, "channels", [0, 2, 7])
    assert (count_of(layer, row, "heads"), count_of(layer, row, "channels")) == (2, 3)
    read, write, size = ends_of(layer, row, "heads")
    assert (read.out_features, write.in_features, size) == (6, 6, 3)
    assert torch.equal(read.weight, value[[3, 4, 5, 9, 10, 11]])
    attention = layer.get_submodule(row.attention)
    for names, count in zip(row.counts, (2, 6), strict=True):
        assert all(getattr(attention, name) == count for name in names)
    assert model(torch.tensor([[2, 5, 3]])).last_hidden_state.shape == (1, 3, 12)


def test_rows_that_lack_what_is_needed_are_refused_with_those_that_do_not():
    assert set(FAMILIES) - set(STRUCTURED) == {"gpt2", "llama", "mistral", "qwen2"}
    for kind in set(FAMILIES) - set(STRUCTURED):
        with pytest.raises(probes.InputError, match=f"knows the architectures bert, .*distilbert, and not '{kind}'"):
            family_of(make(kind))
    for lack in ({"projections": ()}, {"head_size": ""}, {"channels": ""}):
        assert not replace(FAMILIES["bert"], **lack).is_structured
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        family_of(nn.Linear(1, 1))


def test_a_layer_of_other_maps_is_refused_by_name():
    model = make("bert")
    model.encoder.layer[1].output.dense = nn.Identity()
    with pytest.raises(probes.InputError, match=r"layer 1, output.dense: expected a plain torch.nn.Linear, found Id"):
        family_of(model)
