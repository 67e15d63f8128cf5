"""Which layers a student keeps: those it is said to have; matched ones as well as trying all."""

import itertools

import numpy as np
import pytest
import torch
from students import KINDS, blocks, build, logits
from trained import same, weights

from compress.distillation.distill import distill
from compress.distillation.kept_layers import runs_of
from compress.distillation.match_layers import in_order


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"layers": 2}, [2, 5]),
        ({"layers": 4}, [1, 2, 4, 5]),
        ({"layers": 2, "keep": "top"}, [4, 5]),
        ({"layers": 2, "keep": "bottom"}, [0, 1]),
        ({"keep": [0, 3, 4]}, [0, 3, 4]),
    ],
)
def test_a_shallow_student_has_the_layers_of_the_model_that_it_is_said_to_have(family, settings, kept):
    model = build(family, layers=6)
    before = weights(model)
    student = distill(model, **settings)
    assert same(before, weights(model))
    assert type(student) is type(model)
    assert student.config.num_hidden_layers == len(kept)
    assert student.config.compression["kept"] == kept
    for mine, theirs in zip(blocks(student), [blocks(model)[i] for i in kept], strict=True):
        assert same(weights(mine), weights(theirs))
    inside = [k for k in before if ".layer." not in k]
    assert all(torch.equal(before[k], student.state_dict()[k]) for k in inside)
    assert not torch.allclose(logits(student), logits(model), atol=1e-4)


def test_a_student_of_all_layers_is_the_model():
    model = build()
    assert torch.equal(logits(distill(model, layers=3)), logits(model))
    assert torch.equal(logits(distill(model, keep=[0, 1, 2])), logits(model))


def test_matched_layers_are_those_that_stand_for_runs_of_others(tokenizer, corpus):
    model = build(layers=6)
    with torch.no_grad():  # blocks 1, 2, 4 and 5 hardly change what they are given
        for i in (1, 2, 4, 5):
            for name in ("attention.output.dense", "output.dense"):
                for parameter in blocks(model)[i].get_submodule(name).parameters():
                    parameter.mul_(0.02)
            for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
                blocks(model)[i].get_submodule(norm).weight.fill_(1)
                blocks(model)[i].get_submodule(norm).bias.zero_()
    kept = distill(model, layers=2, keep="matched", train=corpus, tokenizer=tokenizer, steps=0).config.compression[
        "kept"
    ]
    assert kept[0] in (0, 1, 2)
    assert kept[1] in (3, 4, 5)
    # The control: one of three, where the last ones are as they were and the first five alike.
    for i in (0, 3):
        blocks(model)[i].load_state_dict(blocks(model)[1].state_dict())
    blocks(model)[5].load_state_dict(blocks(build(layers=1, seed=5))[0].state_dict())
    kept = distill(model, layers=2, keep="matched", train=corpus, tokenizer=tokenizer, steps=0).config.compression[
        "kept"
    ]
    assert kept[0] < 5
    assert kept[1] == 5


@pytest.mark.parametrize("seed", range(4))
def test_layers_are_chosen_as_well_as_trying_all_would(seed):
    alike = np.random.default_rng(seed).random((6, 6))
    for count in (1, 2, 4, 6):
        best = -np.inf
        for cuts in itertools.combinations(range(1, 6), count - 1):
            runs = [range(a, b) for a, b in itertools.pairwise((0, *cuts, 6))]
            kept = [max(run, key=lambda k: sum(alike[j, k] for j in run)) for run in runs]
            value = sum(alike[j, k] for run, k in zip(runs, kept, strict=True) for j in run)
            if value > best:
                best, expected = value, kept
        assert runs_of(alike, count) == expected
    alike = alike[:3]
    expected = max(itertools.combinations(range(6), 3), key=lambda js: sum(alike[i, j] for i, j in enumerate(js)))
    assert in_order(alike) == list(expected)
