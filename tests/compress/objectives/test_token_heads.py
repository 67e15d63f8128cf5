"""Heads and generators beside a model: of every kind of encoder, narrower as asked, and on the model's embeddings."""

import pytest
import tiny
import torch

from compress.objectives.token_heads import (
    NarrowGenerator,
    TokenHead,
    check_encoder,
    embeddings_of,
    narrowed,
    width_of,
)
from probes.errors import InputError

KINDS = ("bert", "roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "modernbert", "longformer")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in tiny.ROWS])
def test_generators_of_every_kind_are_narrower_and_read_the_models_embeddings(kind):
    model = tiny.make(kind)
    made = NarrowGenerator(model, 0.25)
    table = embeddings_of(model)
    config = made.body.config
    assert (config.hidden_size, config.num_attention_heads) == (width_of(model) // 4, 1)
    assert config.num_hidden_layers == model.config.num_hidden_layers
    ids = torch.tensor([[3, 7, 9, 8]])
    mask = torch.ones_like(ids)
    states = made.eval().states(table[ids], mask)
    assert states.shape == (1, 4, width_of(model) // 4)
    assert made.head(states, table).shape == (1, 4, len(table))
    other = ids.clone()
    other[0, 3] = 5
    assert not torch.allclose(made.states(table[other], mask)[:, 0], states[:, 0], atol=1e-6)  # it reads ahead
    assert sum(p.numel() for p in made.body.parameters()) < sum(p.numel() for p in model.parameters()) / 3
    check_encoder(model, "some")


def test_a_kind_that_cannot_be_narrowed_by_its_configuration_is_refused():
    with pytest.raises(InputError, match=r"no narrower FNetModel can be made .* Give generator=..., a small model"):
        NarrowGenerator(tiny.make("fnet"), 0.3)


def test_a_head_is_a_map_a_norm_and_the_embeddings():
    torch.manual_seed(0)
    head, states, table = TokenHead(4, 3, 7), torch.randn(2, 4), torch.randn(7, 3)
    x = torch.nn.functional.gelu(states @ head.dense.weight.T + head.dense.bias)
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head(states, table), x @ table.T)


@pytest.mark.parametrize(("size", "heads"), [(1.0, 4), (0.5, 2), (0.01, 1)])
def test_whole_heads_are_kept(size, heads):
    small = narrowed(tiny.config_of("bert"), size)
    assert (small.num_attention_heads, small.hidden_size, small.intermediate_size) == (heads, 8 * heads, 12 * heads)
