"""Rules for gradients: the share of each layer that is trained, by step and epoch, and what cannot be."""

import pytest

import probes
from compress import GradDrop, GradualUnfreezing, TrainedLayers
from compress.training.gradients import Now

NOW = Now(step=5, epoch=1, epochs=5, depth=3, seed=0)


def test_shares_of_each_rule():
    now = {epoch: Now(5, epoch, 5, 3, 0) for epoch in range(5)}

    def first(rule):
        return [round(rule.shares(now[e])[0], 3) for e in range(5)]

    assert first(GradDrop(0.2)) == [0.8] * 5
    assert first(GradDrop(0.2, per="epoch")) == [0, 0.8, 0.8, 0.8, 0.8]
    assert first(GradDrop(0.2, per="epoch", inverted=True)) == [1, 0.8, 0.8, 0.8, 0.8]
    assert first(GradDrop(0, per="epoch", accumulating=True)) == [0, 0.25, 0.5, 0.75, 1]
    assert first(GradDrop(0.2, per="epoch", accumulating=True)) == [0, 0.2, 0.4, 0.6, 0.8]
    assert first(GradDrop(0, per="epoch", accumulating=True, inverted=True)) == [1, 0.75, 0.5, 0.25, 0]
    assert GradDrop(0.6, falling=True).shares(NOW) == pytest.approx([0.4, 0.6, 0.8, 1.0])
    assert GradDrop([0.1, 0.2, 0.3, 1]).shares(NOW) == pytest.approx([0.9, 0.8, 0.7, 0.0])
    assert [sum(GradualUnfreezing().shares(now[e])) for e in range(5)] == [0, 1, 2, 3, 4]
    assert GradualUnfreezing().shares(now[1]) == [0, 0, 0, 1]
    draws = [GradDrop(0.2, **k).draw(Now(7, 2, 5, 3, 0)) for k in ({}, {"per": "epoch"}, {"per": "layer"})]
    assert [*draws, GradDrop(0.2, per="epoch", accumulating=True).draw(NOW)] == [7, 2, 7, 0]


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: GradDrop(1.5), r"p=1.5: expected a share of the gradients that is dropped, 0 to 1"),
        (lambda: GradDrop([0.1, -0.2]), r"p=-0.2: expected a share"),
        (lambda: GradDrop(float("nan")), r"p=nan: expected a share"),
        (lambda: GradDrop("0.3"), r"p='0.3': expected a share"),
        (lambda: GradDrop(0.3, per="steps"), r"per='steps'.*Did you mean|per='steps'"),
        (lambda: GradDrop(0.3, accumulating=True), r"accumulating=True is about epochs, and per='step': give per="),
        (lambda: GradDrop(0.3, per="layer", inverted=True), r"inverted=True is about epochs, and per='layer'"),
        (lambda: GradDrop([0.3] * 4, falling=True), r"falling=True makes of one p those of all layers"),
        (lambda: TrainedLayers("12"), r"layers='12': expected numbers of layers, as in \[5, 6\]"),
        (lambda: TrainedLayers([-1]), r"layer -1: expected a whole number of at least 0"),
    ],
)
def test_rules_that_cannot_be(make_rule, message):
    with pytest.raises(probes.InputError, match=message):
        make_rule()
