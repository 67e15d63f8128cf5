"""The table of architectures: every part that a row names is in every block, fits, and nothing is left out."""

import pytest
from architectures import EVERY, VARIANTS, make

from probes.models.blocks import has_part, sites_of, stacks_of, weight_of
from probes.models.parts import FAMILIES, ROWS, Attention

# What a block may have beside what a row names: what routes tokens to experts, and what makes a latent of keys.
BESIDE = ("mlp.gate", "mlp.router", "mlp.shared_expert_gate", "self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa")


def test_no_type_is_in_two_rows():
    assert len(FAMILIES) == sum(len(row.types) for row in ROWS)
    assert len(FAMILIES) >= 45


@pytest.mark.parametrize("kind", EVERY)
def test_every_part_is_where_the_row_says(kind):
    model = make(kind)
    family, size = FAMILIES[model.config.model_type], model.config.hidden_size
    stacks = stacks_of(model, family)
    assert [row for row, _ in stacks] == [family, *family.others]
    assert (
        len(stacks[0][1])
        == (1 if family.shared else 4)
        == (1 if family.shared else getattr(model.config, family.layers))
    )
    named: dict[str, set[str]] = {}
    for row, blocks in stacks:
        for number, block in enumerate(blocks):
            here = named.setdefault(f"{row.blocks}.{number}", set())
            here |= {n for n in (*row.attention.names, *row.attention.also, *row.norms) if has_part(block, n)}
            assert here >= {row.attention.joined, row.attention.projections[-1]}
            assert has_part(block, row.attention.module)
        if row.first[0]:
            assert [has_part(b, ".".join(row.first[:2])) for b in blocks] == [True, *[False] * 3]
            assert [getattr(b.get_submodule(row.first[0]), row.first[2]) for b in blocks] == [True, *[False] * 3]
            named[f"{row.blocks}.0"].add(".".join(row.first[:2]))
        if row.attention.table:
            assert model.base_model.get_submodule(row.attention.table).weight.shape[1] == 4
    for what in ("heads", "channels"):
        for site in sites_of(model, family, what):
            named[site.name] |= {n for n in site.part.names if has_part(site.block, n)}
            reader = site.part.names[-1]
            if site.expert is None:
                assert weight_of(site.block.get_submodule(reader)).shape[0] == size
            if not isinstance(site.part, Attention) and site.part.channels:
                assert getattr(model.config, site.part.channels) in (24, 40, 48, 128)
    # Nothing in a block is left out: no map, and no norm.
    base = model.base_model
    for place, parts in named.items():
        block = base.get_submodule(place)
        found = {n if n in parts else n.removesuffix("_bias") for n, _ in block.named_parameters()}
        kept = {n for n in found if n not in parts and n.rpartition(".")[0] not in {*parts, *BESIDE}}
        assert not kept, place


def test_what_cannot_be_removed_says_why():
    assert {t for row in ROWS if row.attention.kept for t in row.types} == {
        "olmo2", "olmo3", "falcon", "stablelm", "cohere", "big_bird", "longformer", "deberta"
    }  # fmt: skip
    assert {t for row in ROWS if row.narrows for t in row.types} == {
        "bert", "roberta", "xlm-roberta", "camembert", "distilbert"
    }  # fmt: skip
    assert all(FAMILIES[kind] for kind, _ in VARIANTS.values())
