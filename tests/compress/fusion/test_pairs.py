"""Which layers can share: all pairs of one shape, those that share already, and models without any."""

from itertools import combinations

import pytest
import torch
from fused import PARTS, queries

import probes
from compress.fusion.fuse import fuse
from compress.fusion.layer_similarity import layer_similarity
from compress.fusion.pairs import groups_of


def test_a_fused_model_is_fused_further(planted):
    one = fuse(planted, share=0.25)
    two = fuse(one, share=0.5)
    assert groups_of(two)[PARTS[0]] == [[0, 1, 3]]
    w = [q.weight.double() for q in queries(planted)]
    assert torch.allclose(queries(two)[0].weight.double(), (w[0] + w[1] + w[3]) / 3, rtol=0, atol=1e-6)
    assert two.config.compression["groups_of_parent"] == one.config.compression["groups"]
    table = layer_similarity(one)  # the first stands for all
    assert (table.groupby("part").size() == 3).all()
    with pytest.raises(probes.InputError, match=r"share=0.25, and so many layers of this model share their tensors"):
        fuse(one, share=0.25)
    with pytest.raises(probes.InputError, match=r"share their tensors by unit='matrix' already"):
        fuse(one, share=0.5, unit="layer")
    with pytest.raises(probes.InputError, match=r"share their tensors by unit='layer' already"):
        fuse(fuse(planted, unit="layer"), share=0.75)


def test_nothing_to_fuse(make):
    with pytest.raises(probes.InputError, match=r"nothing to fuse: BertForSequenceClassification has 1 layer with"):
        fuse(make(1))
    # Layers of different shapes: other channels in each, and then only their attention is alike.
    model = make(2)
    layer = model.bert.encoder.layer[1]
    layer.intermediate.dense, layer.output.dense = torch.nn.Linear(12, 7), torch.nn.Linear(7, 12)
    with pytest.raises(probes.InputError, match=r"has 2 layers, of which no two have tensors of their own that are of"):
        fuse(model, unit="layer")
    with pytest.raises(probes.InputError, match=r"has 2 layers, of which no two"):
        layer_similarity(model, unit="layer")
    assert set(groups_of(fuse(model))) == set(PARTS[:4])
    with pytest.raises(probes.InputError, match=r"has 2 layers, of which no two"):
        fuse(fuse(make(2)))
    with pytest.raises(probes.InputError, match=r"expected a model of transformers, found Linear"):
        fuse(torch.nn.Linear(2, 2))
    with pytest.raises(probes.InputError, match=r"has 0 layers"):
        fuse(make(0))


def test_pairs_are_all_there(make):
    table = layer_similarity(make())
    for _, rows in table.groupby("part"):
        assert sorted(zip(rows["layer"], rows["other_layer"], strict=True)) == list(combinations(range(4), 2))
