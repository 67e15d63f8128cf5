"""Parts of a model by the table: counted, kept, and what is left computes as if the others were silent."""

import copy

import pytest
import torch
from architectures import EVERY, KEEP_HEADS, inputs, make, states
from torch import nn

import probes
from probes.models.blocks import (
    attention_outputs,
    count_of,
    depth_of,
    ends_of,
    family_of,
    head_size_of,
    heads_of_site,
    inputs_first,
    keep_parts,
    layers_of,
    read_next,
    sites_of,
    weight_of,
)
from probes.models.parts import FAMILIES, Attention

WITH_HEADS = [kind for kind in EVERY if kind not in KEEP_HEADS]


def writes(site):
    """What a place writes with, (output, unit), as a view."""
    if site.expert is None:
        return weight_of(site.block.get_submodule(site.part.names[-1]))
    weight = site.block.get_parameter(site.part.outer).detach()[site.expert]
    return weight.T if inputs_first(site.block.mlp.experts) else weight


def chosen(model, what):
    """Half of each place's parts, of tables that blocks share the same ones."""
    generator = torch.Generator().manual_seed(3)
    out, tables = [], {}
    for site in sites_of(model, FAMILIES[model.config.model_type], what):
        count = count_of(site)
        drawn = torch.randperm(count, generator=generator)[: count // 2].sort().values.tolist()
        table = site.part.table if isinstance(site.part, Attention) else ""
        out.append(tables.setdefault(table, drawn) if table else drawn)
    return out


@pytest.mark.parametrize(
    ("kind", "what"), [(k, w) for k in EVERY for w in ("heads", "channels") if w == "channels" or k in WITH_HEADS]
)
def test_what_is_left_computes_as_if_the_others_were_silent(kind, what):
    model = make(kind)
    family = family_of(model, what)
    before, kept, silent = states(model), chosen(model, what), copy.deepcopy(model)
    for site, numbers in zip(sites_of(silent, family, what), kept, strict=True):
        units = writes(site).unflatten(1, (count_of(site), -1))
        units[:, [i for i in range(count_of(site)) if i not in numbers]] = 0
    smaller = copy.deepcopy(model)
    heads = [heads_of_site(s) for s in sites_of(model, family, "heads")]
    keep_parts(smaller, family, what, kept)
    if family.types[0] == "phi3" and what == "heads":  # reads the configuration each time
        smaller.config.num_attention_heads //= 2
    left = sites_of(smaller, family, what)
    if what == "channels":
        assert [count_of(site) for site in left] == [len(k) for k in kept]
    else:
        assert [heads_of_site(s) for s in left] == [(h // 2, s if s == 1 else s // 2) for h, s in heads]
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    assert torch.allclose(states(smaller), states(silent), rtol=0, atol=1e-10)
    assert not torch.allclose(states(smaller), before, atol=1e-3)


@pytest.mark.parametrize(
    "kind",
    [
        "bert",
        "llama",
        "gpt2",
        "gpt_neox",
        "bloom",
        "modernbert",
        "phi3",
        "falcon",
        "deepseek_v3",
        "falcon, one key",
        "bart",
        "t5",
    ],
)
def test_what_a_head_is_read_and_written_with(kind):
    """Where both queries and keys are zero every token attends to all, and a head gives its map of the mean."""
    model = make(kind)
    site = sites_of(model, family_of(model, "heads"), "heads")[1]
    (values,), joined = ends_of(site)
    size, (heads, sharing) = head_size_of(site), heads_of_site(site)
    assert values.shape[:2] == joined.shape[:2] == (heads, size)
    assert joined.shape[2] == 32
    module = site.block.get_submodule(site.part.projections[-1])
    made = []
    module.register_forward_hook(lambda m, i, out: made.append(torch.cat([i[0], torch.ones_like(i[0][..., :1])], -1)))
    given = []
    joiner = site.block.get_submodule(site.part.joined)
    joiner.register_forward_pre_hook(lambda m, i: given.append(i[0]))
    one = {k: v[:1, :1] for k, v in inputs(model).items()}  # one token: what a head gives is the value of it
    with torch.no_grad():
        model(**one)
    read = made[0][..., : values.shape[2]]
    assert torch.allclose(torch.einsum("hsi,...i->...hs", values, read).flatten(-2), given[0], atol=1e-10)
    assert torch.allclose(joined.flatten(0, 1).T, weight_of(joiner))
    assert heads % sharing == 0


def with_bias(module):
    return torch.cat([weight_of(module), module.bias[:, None]], 1)


MADE = {
    "bert": lambda block: [with_bias(block.intermediate.dense)],
    "gpt2": lambda block: [with_bias(block.mlp.c_fc)],
    "llama": lambda block: [block.mlp.gate_proj.weight, block.mlp.up_proj.weight],
    "phi3": lambda block: block.mlp.gate_up_proj.weight.chunk(2),
    "mixtral": lambda block: block.mlp.experts.gate_up_proj[1].chunk(2),
    "gpt_oss": lambda block: [
        torch.cat([block.mlp.experts.gate_up_proj[1].T, block.mlp.experts.gate_up_proj_bias[1][:, None]], 1)[i::2]
        for i in (0, 1)
    ],
}


@pytest.mark.parametrize("kind", MADE)
def test_what_a_channel_is_read_and_written_with(kind):
    model = make(kind)
    site = sites_of(model, family_of(model, "channels"), "channels")[1]
    reads, out = ends_of(site)
    for read, made in zip(reads, MADE[kind](site.block), strict=True):
        assert torch.equal(read[:, 0], made)
    assert torch.equal(out[:, 0].T, writes(site))


def test_layers_are_counted_as_they_run():
    for kind, blocks in (("albert", 1), ("bert", 4), ("t5", 4)):
        model = make(kind)
        assert (depth_of(model, family_of(model)), len(layers_of(model, family_of(model)))) == (4, blocks)
    assert [len(sites_of(make("bart"), FAMILIES["bart"], what)) for what in ("heads", "channels")] == [12, 8]


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_joins_the_heads_is_found_in_each_block(kind):
    model, row = make(kind), FAMILIES[kind]
    assert attention_outputs(model) == [block.get_submodule(row.attention.joined) for block in layers_of(model, row)]


@pytest.mark.parametrize("kind", ["bert", "distilbert", "llama", "gemma2", "opt", "t5", "gpt2"])
def test_a_unit_is_read_by_what_the_table_says(kind):
    """Where what is read from a unit is zero, it does not matter what the unit gives; where it is not, it does."""
    names = {name for name, _ in layers_of(make(kind), FAMILIES[kind])[0].named_modules()}
    pairs = [(one, other) for one, other in read_next() if one in names and other in names]
    assert len(pairs) == (1 if kind == "gpt2" else 2)
    for one, other in pairs:
        for silent in (True, False):
            model = make(kind)
            giver, reader = (weight_of(layers_of(model, FAMILIES[kind])[1].get_submodule(n)) for n in (one, other))
            if len(giver) != reader.shape[1]:  # grouped heads share their values
                continue
            reader[:, 4] *= 0 if silent else 1
            before = states(model)
            giver[4] = torch.randn(giver.shape[1])
            assert torch.equal(before, states(model)) == silent


def test_what_is_not_known_is_refused_by_name(tiny_models):
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        family_of(nn.Linear(1, 1))
    model = make("bert")
    model.config.model_type = "strange"
    with pytest.raises(
        probes.InputError, match=r"BertModel: .* knows the architectures bert, .*umt5, and not 'strange'"
    ):
        family_of(model)
    with pytest.raises(
        probes.InputError, match=r"Olmo2Model \(olmo2\): heads cannot be removed, for its norms .*q_norm"
    ):
        family_of(make("olmo2"), "heads")
    assert family_of(make("olmo2"), "channels")
    for kind, said in (("stablelm", "qk_layernorm"), ("cohere", "use_qk_norm")):
        with pytest.raises(probes.InputError, match=rf"\({kind}\): heads cannot be removed, for its norms of query"):
            family_of(make(kind, **{said: True}), "heads")
    with pytest.raises(probes.InputError, match=r"\(falcon\): heads cannot be removed, for each head has a slope"):
        family_of(make("falcon", alibi=True), "heads")
    bare = make("bert")
    del bare.encoder
    with pytest.raises(probes.InputError, match=r"BertModel: expected its blocks in encoder.layer of BertModel"):
        family_of(bare)


def test_a_layer_of_other_maps_is_refused_by_name():
    model = make("bert")
    model.encoder.layer[1].output.dense = nn.Identity()
    with pytest.raises(
        probes.InputError, match=r"encoder.layer.1.output.dense: expected a plain linear map, found Identity"
    ):
        family_of(model, "channels")
    assert family_of(model)
