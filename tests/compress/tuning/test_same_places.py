"""Which models have their weights at the same places."""

import copy

import pytest
import torch

import compress
from compress.tuning.same_places import check_places, factors_of, inside, layers_of
from probes.errors import InputError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: compress.prune_heads(m, 0.5), "is 6 x 12 in .* and 12 x 12 in .*pruned by single weights"),
        (lambda m: copy.deepcopy(m).to(torch.float16), "is in torch.float16 and .* in torch.float32: load both in one"),
        (lambda m: m.bert, "is a BertModel and .* a BertForSequenceClassification"),
        (lambda m: compress.fuse(m, share=0.5), "share their weights"),
    ],
)
def test_other_places_are_refused(classifier, change, message):
    with pytest.raises(InputError, match=message):
        check_places(change(classifier), classifier)


def test_another_depth_is_refused(classifier, make_classifier):
    with pytest.raises(InputError, match=r"has 2 layers and .* 3: what is given back goes where it was"):
        check_places(make_classifier(num_hidden_layers=2), classifier)


def test_factors_may_differ(classifier):
    low = compress.factorize(classifier, rank=2, only=r"layer\.1\.output")
    check_places(low, classifier)
    assert factors_of(low, classifier) == ["bert.encoder.layer.1.output.dense"]
    assert inside(factors_of(low, classifier), "bert.encoder.layer.1.output.dense.first.weight")
    assert factors_of(low, low) == []


def test_layers_are_those_of_blocks(classifier):
    found = layers_of(classifier)
    assert {found[k] for k in found if "embeddings" in k} == {0}
    assert found["bert.encoder.layer.1.output.dense.weight"] == 2
    assert {found[k] for k in found if k.startswith(("bert.pooler", "classifier"))} == {3}
