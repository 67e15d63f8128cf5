"""What layers become: mean, mix, one of them; gradients that add up; step by step, also interrupted."""

import copy
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from fused import PARTS, QUIET, batch, queries, storages, untied
from stops import Stops

from compress.fusion.fuse import fuse
from compress.fusion.layer_similarity import layer_similarity
from compress.fusion.pairs import groups_of


def test_the_mean_is_of_all_that_share_it(planted):
    before = copy.deepcopy(planted.state_dict())
    w = [q.weight.double() for q in queries(planted)]
    pair, group = (queries(fuse(planted, share=share)) for share in (0.25, 0.5))
    assert torch.allclose(pair[0].weight.double(), (w[0] + w[1]) / 2, rtol=0, atol=1e-7)
    assert pair[0].bias.tolist() == [0.5] * 12
    assert torch.equal(pair[3].weight, w[3].float())
    assert torch.allclose(group[0].weight.double(), (w[0] + w[1] + w[3]) / 3, rtol=0, atol=1e-7)
    assert torch.allclose(group[0].bias, torch.full((12,), 4 / 3))
    assert group[0].weight is group[1].weight is group[3].weight
    assert group[0].bias is group[3].bias
    assert group[2].weight is not group[0].weight
    assert torch.equal(group[2].weight, w[2].float())
    assert all(torch.equal(v, before[k]) for k, v in planted.state_dict().items())
    assert not hasattr(planted.config, "shared_layers")
    assert queries(planted)[0].weight is not queries(planted)[1].weight


def test_a_mix_takes_every_element_from_one_of_them_with_equal_chances(planted):
    with torch.no_grad():
        for q, value in zip(queries(planted), (1.0, 1.001, 100.0, 1.003), strict=True):
            q.weight.fill_(value)
    pair = queries(fuse(planted, share=0.25, merge="mix", seed=1))
    share = float((pair[0].weight == 1.001).float().mean())
    assert bool(((pair[0].weight == 1) | (pair[0].weight == 1.001)).all())
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / 144)
    group = queries(fuse(planted, share=0.5, merge="mix", seed=1))[3].weight
    assert abs(float((group == 1.003).float().mean()) - 1 / 3) < 4 * np.sqrt(2 / 9 / 144)
    assert set(group.flatten().tolist()) == {1.0, float(np.float32(1.001)), float(np.float32(1.003))}
    again, other = (queries(fuse(planted, share=0.25, merge="mix", seed=s))[0].weight for s in (1, 2))
    assert torch.equal(again, pair[0].weight)
    assert not torch.equal(other, again)


def test_frozen_is_one_of_them_by_chance_without_a_gradient(planted):
    w = [q.weight for q in queries(planted)]
    seen = []
    for seed in range(12):
        q = queries(fuse(planted, share=0.25, merge="freeze", seed=seed))
        which = [i for i in (0, 1) if torch.equal(q[0].weight, w[i]) and q[0].bias.tolist() == [float(i)] * 12]
        assert q[0].weight is q[1].weight
        assert not q[0].weight.requires_grad
        assert not q[0].bias.requires_grad
        assert q[2].weight.requires_grad
        seen += which
    assert len(seen) == 12
    assert 2 <= sum(seen) <= 10


def test_the_one_that_is_dropped_is_replaced_by_the_first(planted):
    q = queries(fuse(planted, share=0.5, merge="drop"))
    assert q[0].weight is q[1].weight is q[3].weight
    assert torch.equal(q[0].weight, queries(planted)[0].weight)
    assert q[0].bias.tolist() == [0.0] * 12
    assert q[0].weight.requires_grad


def test_the_gradient_is_the_sum_of_those_of_the_layers(planted, make_tokenizer, corpus):
    fused = fuse(planted, share=0.5)
    apart = untied(fused)
    inputs = batch(fused, make_tokenizer(), corpus) | {"labels": torch.arange(8) % 3}
    for model in (fused, apart):
        model(**inputs).loss.backward()
    own = [q.weight.grad for q in queries(apart)]
    assert torch.allclose(queries(fused)[0].weight.grad, own[0] + own[1] + own[3], rtol=1e-4, atol=1e-7)
    assert not torch.allclose(queries(fused)[0].weight.grad, own[0], rtol=1e-2, atol=1e-7)
    assert torch.allclose(queries(fused)[2].weight.grad, own[2], rtol=1e-4, atol=1e-7)
    # A step of plain descent moves all of them by the sum.
    before = queries(fused)[0].weight.detach().clone()
    torch.optim.SGD(fused.parameters(), lr=0.1).step()
    moved = before - 0.1 * (own[0] + own[1] + own[3])
    assert torch.allclose(queries(fused)[3].weight, moved, rtol=0, atol=1e-6)


def test_step_by_step_groups_only_grow_and_measure_anew(make, make_tokenizer, corpus):
    model = make()
    seen = []

    def evaluate(student):
        seen.append(storages(student))
        return {"shared": sum(len(names) - 1 for names in seen[-1])}

    options = {"train": corpus, "tokenizer": make_tokenizer(), "schedule": "uniform", **QUIET}
    fused = fuse(model, share=0.75, fusions=3, steps=8, evaluate=evaluate, **options)
    assert fused.history.attrs["fused_at"] == fused.config.compression["fused_at"] == [2, 4, 6]
    # Of 4 of each of 6 parts, matrix and bias: 1, 2, then 3 gone.
    after = fused.history.dropna(subset="when")
    assert after["shared"].tolist() == [0, 12, 12, 24, 24, 36]
    for earlier, later in pairwise(seen):
        assert all(any(set(names) <= set(more) for more in later) for names in earlier)
    assert groups_of(fused) == {part: [[0, 1, 2, 3]] for part in PARTS}
    steps = [f["step"] for f in fused.config.compression["fusions"]]
    assert steps == [2] * 6 + [4] * 6 + [6] * 6
    table = layer_similarity(model).set_index(["part", "layer", "other_layer"])["value"]
    first = fused.config.compression["fusions"][0]
    found = table[first["part"], first["layer"], first["other_layer"]]
    assert first["similarity"] == pytest.approx(found, rel=0.1)
    assert first["similarity"] != found  # two updates have moved them


@pytest.mark.parametrize(("merge", "unit"), [("mean", "matrix"), ("mix", "layer"), ("freeze", "matrix")])
def test_an_interrupted_fusion_ends_as_it_would_have(make, make_tokenizer, corpus, merge, unit, tmp_path):
    options = {
        "share": 0.75,
        "merge": merge,
        "unit": unit,
        "schedule": "uniform",
        "fusions": 3,
        "train": corpus,
        "tokenizer": make_tokenizer(),
        "steps": 12,
        "save_every": 4,
        **QUIET,
    }
    model = make()
    whole = fuse(model, folder=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        fuse(model, folder=tmp_path / "run", callbacks=[Stops(7)], **options)
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    again = fuse(model, folder=tmp_path / "run", **options)
    assert storages(again) == storages(whole)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    assert again.config.compression == whole.config.compression
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in whole.parameters()]
    pd.testing.assert_frame_equal(again.history, whole.history)
