"""Gradients kept from the weights: held to plain training, to counts of entries, and to what must not have moved."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from stops import Stops
from trained import QUIET, same, weights
from transformers import TrainerCallback

import compress
import probes
from compress import CrossEntropy, GradDrop, GradualUnfreezing, TrainedLayers
from compress.training.loop import train
from compress.training.masks import Part, layer_numbers

HEAD = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}


class Watches(TrainerCallback):
    """Notes gradients right before an update, and weights and moments before and after it."""

    def __init__(self):
        self.gradients, self.weights, self.moments = [], [], []

    def on_train_begin(self, args, state, control, model, **_):
        self.note(model, None)

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.gradients.append({n: p.grad if p.grad is None else p.grad.clone() for n, p in model.named_parameters()})

    def on_optimizer_step(self, args, state, control, model, optimizer, **_):
        self.note(model, optimizer)

    def note(self, model, optimizer):
        own = weights(model)
        self.weights.append(own)
        states = {n: {} if optimizer is None else optimizer.state.get(p, {}) for n, p in model.named_parameters()}
        both = ("exp_avg", "exp_avg_sq")
        self.moments.append({n: [s.get(k, torch.zeros_like(own[n])).clone() for k in both] for n, s in states.items()})


@pytest.fixture
def trained(make, tokenizer, corpus):
    """Return a function from a rule to a student trained by it, and what was seen in each update."""

    def run(rule, **settings):
        student, watches = make(dropout=0.1), Watches()
        given = QUIET | {"objective": [CrossEntropy()], "steps": 4, "callbacks": [watches], "gradients": rule}
        student.history = train(student, tokenizer, corpus, **given | settings)
        return student, watches

    return run


def test_nothing_dropped_is_plain_training_and_all_dropped_trains_the_head_alone(trained, make):
    plain, _ = trained(None, weight_decay=0.1)
    before = weights(make())
    for rule in (GradDrop(0), GradDrop(0.0, per="layer", strict=True), TrainedLayers(range(4))):
        student, _ = trained(rule, weight_decay=0.1)
        assert same(weights(student), weights(plain))
        assert student.history.equals(plain.history)
    for rule in (GradDrop(1), GradDrop(1.0, per="layer"), TrainedLayers()):
        student, _ = trained(rule, weight_decay=0.1)
        after = weights(student)
        assert {n for n in after if not torch.equal(after[n], before[n])} == HEAD
        assert all(p.requires_grad for p in student.parameters())
    assert not same({n: after[n] for n in HEAD}, {n: weights(plain)[n] for n in HEAD})


def test_entries_are_dropped_at_random_and_others_have_their_gradient(trained):
    _, whole = trained(None, steps=1, max_grad_norm=None)
    _, found = trained(GradDrop(0.3), steps=2, max_grad_norm=None)
    encoder = [n for n in whole.gradients[0] if n not in HEAD]
    masks = {}
    for name, gradient in found.gradients[0].items():
        plain = whole.gradients[0][name]
        kept = torch.where(plain != 0, gradient != 0, True)
        assert torch.equal(gradient, plain * kept)
        assert name in encoder or kept.all()
        masks[name] = kept[plain != 0]
    kept = torch.cat([masks[n] for n in encoder]).double()
    assert float(kept.mean()) == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / len(kept)))
    both = torch.stack([g["bert.encoder.layer.0.output.dense.weight"] != 0 for g in found.gradients]).double()
    assert float(both.prod(0).mean()) == pytest.approx(0.49, abs=4 * math.sqrt(0.25 / both[0].numel()))  # drawn anew
    # No two tensors of one shape share their draw.
    one, other = (found.gradients[0][f"bert.encoder.layer.{i}.output.dense.weight"] != 0 for i in (0, 1))
    assert float((one & other).double().mean()) == pytest.approx(0.49, abs=4 * math.sqrt(0.25 / one.numel()))
    # The bound of the norm is for what is left.
    _, clipped = trained(GradDrop(0.3), steps=1, max_grad_norm=1e-3)
    norm = torch.stack([g.double().norm() for g in clipped.gradients[0].values()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "rule",
    [
        GradDrop(0.6, strict=True),
        GradDrop(0.5, per="layer", strict=True),
        GradDrop([0.9, 0.0, 0.5, 1.0], strict=True),
        GradDrop(0.2, per="epoch", accumulating=True, strict=True),
        GradualUnfreezing(),
        TrainedLayers([2]),
    ],
)
def test_what_is_strictly_masked_has_not_moved_in_weights_or_moments(trained, rule):
    steps = 10 if isinstance(rule, GradualUnfreezing) or rule == GradDrop(0.2, "epoch", True, strict=True) else 4
    student, found = trained(rule, steps=steps, batch_size=18, weight_decay=0.1)
    still = moved = 0
    for step, gradients in enumerate(found.gradients):
        for name, gradient in gradients.items():
            masked = (
                torch.ones_like(student.get_parameter(name), dtype=torch.bool) if gradient is None else gradient == 0
            )
            if "key.bias" in name or name.endswith("embeddings.weight"):  # whose gradient may be zero of itself
                continue
            before, after = found.weights[step][name], found.weights[step + 1][name]
            assert torch.equal(before[masked], after[masked])
            if not masked.all():
                assert (before != after)[~masked].double().mean() > 0.9
            for old, new in zip(found.moments[step][name], found.moments[step + 1][name], strict=True):
                assert torch.equal(old[masked], new[masked])
            still, moved = still + int(masked.sum()), moved + int((~masked).sum())
    assert min(still, moved) > 1000


def test_what_is_not_strict_moves_by_what_is_remembered(trained):
    _, found = trained(GradDrop(0.6), steps=2)
    name = "bert.encoder.layer.0.output.dense.weight"
    only_first = (found.gradients[0][name] != 0) & (found.gradients[1][name] == 0)
    assert (found.weights[1][name] != found.weights[2][name])[only_first].double().mean() > 0.9


def test_by_layer_a_layer_is_trained_whole_or_not(trained):
    _, found = trained(GradDrop(0.5, per="layer"), steps=16, batch_size=4)
    layers, depth = layer_numbers(trained(None, steps=1)[0])
    assert depth == 3
    there = np.array([[None] * 4] * 16)
    for step, gradients in enumerate(found.gradients):
        for name, layer in layers.items():
            if "key.bias" in name:
                continue
            some = bool(gradients[name].any())
            assert there[step, layer] in (None, some)
            there[step, layer] = some
    assert (there.sum(axis=0) > 0).all()
    assert (there.sum(axis=0) < 16).all()
    assert len({tuple(row) for row in there}) > 6  # each by itself


def test_what_is_accumulated_grows_and_stays_within_an_epoch(trained):
    rule = GradDrop(0, per="epoch", accumulating=True)
    _, found = trained(rule, steps=10, batch_size=18)  # of 36 rows: 5 epochs
    name = "bert.encoder.layer.1.output.dense.weight"
    seen = [g[name] != 0 for g in found.gradients]
    sizes = [float(x.double().mean()) for x in seen]
    expected = np.repeat([0, 0.25, 0.5, 0.75, 1], 2)
    assert np.abs(np.array(sizes) - expected).max() < 4 * math.sqrt(0.25 / seen[0].numel())
    for before, after in pairwise(seen):
        assert not (before & ~after).any()
    assert all(torch.equal(seen[i], seen[i + 1]) for i in range(0, 10, 2))


@pytest.mark.parametrize("rule", [GradDrop(0.5, strict=True), GradDrop(0.5, per="epoch")])
def test_a_training_that_was_interrupted_ends_as_it_would_have(make, tokenizer, corpus, tmp_path, rule):
    options = {"objective": [CrossEntropy()], "steps": 10, "save_every": 4, "gradients": rule, **QUIET}
    options |= {"batch_size": 18}
    whole = make(dropout=0.2)
    expected = train(whole, tokenizer, corpus, **options)
    with pytest.raises(KeyboardInterrupt):
        train(make(dropout=0.2), tokenizer, corpus, folder=tmp_path, callbacks=[Stops(7)], **options)
    again = make(dropout=0.2)
    history = train(again, tokenizer, corpus, folder=tmp_path, **options)
    assert history.equals(expected)
    assert same(weights(again), weights(whole))
    with pytest.raises(probes.InputError, match=r"gradients is None here and was \{'rule': "):
        train(make(dropout=0.2), tokenizer, corpus, folder=tmp_path, **options | {"gradients": None})


def test_sparsity_and_codes_hold_under_dropped_gradients(classifier, tokenizer, corpus):
    given = {"train": corpus, "tokenizer": tokenizer, "steps": 3, **QUIET}
    rule = GradDrop(0.5, strict=True)
    name = "bert.encoder.layer.2.output.dense.weight"
    pruned = compress.prune(classifier, sparsity=0.6, schedule="uniform", prunings=2, gradients=rule, **given)
    assert pruned.config.compression["sparsity_of_pruned"] == pytest.approx(0.6, abs=0.01)
    assert pruned.config.compression["gradients"] == {"rule": "GradDrop", "p": 0.5, "per": "step"} | dict.fromkeys(
        ("accumulating", "falling", "inverted"), False
    ) | {"strict": True}
    shared = compress.product_quantize(classifier, codes=4, block=4, gradients=rule, **given | {"steps": 4})
    assert len(shared.get_parameter(name).detach().reshape(-1, 4).unique(dim=0)) <= 4
    rounded = compress.quantize(classifier, bits=4, noise=0.5, gradients=rule, **given)
    assert all(len(row.unique()) <= 16 for row in rounded.get_parameter(name))
    # What stays are the weights, and not the noise in their place.
    plain = compress.quantize(classifier, bits=4).get_parameter(name)
    still = compress.quantize(classifier, bits=4, noise=1.0, gradients=GradDrop(0.999, strict=True), **given)
    assert (still.get_parameter(name) == plain).double().mean() > 0.9
    assert (rounded.get_parameter(name) == plain).double().mean() < 0.9


def test_each_parameter_has_its_layer(tiny_models):
    layers, depth = layer_numbers(tiny_models("BertForSequenceClassification"))
    assert (depth, layers["bert.embeddings.LayerNorm.bias"], layers["bert.encoder.layer.0.output.dense.bias"]) == (
        3,
        0,
        1,
    )
    assert not HEAD & layers.keys()
    layers, depth = layer_numbers(tiny_models("GPT2LMHeadModel"))
    found = [layers[f"transformer.{n}.weight"] for n in ("wte", "wpe", "h.0.ln_1", "h.2.mlp.c_fc", "ln_f")]
    assert (depth, found) == (3, [0, 0, 1, 3, 3])
    layers, depth = layer_numbers(tiny_models("T5ForConditionalGeneration", tie_word_embeddings=False))
    assert (depth, layers["encoder.block.2.layer.0.SelfAttention.q.weight"]) == (6, 3)
    assert layers["decoder.block.0.layer.0.SelfAttention.q.weight"] == 4
    assert "lm_head.weight" not in layers
    layers, depth = layer_numbers(tiny_models("LlamaModel"))
    assert (depth, layers["embed_tokens.weight"], layers["norm.weight"]) == (3, 0, 3)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (GradDrop([0.1] * 3), r"p has 3 shares: expected 4, one for the embeddings and one for each of the 3 layers"),
        (TrainedLayers([4]), r"layer 4 is not there: the model has the layers 0, its embeddings, to 3, the last one"),
        (GradDrop(0.2, per="epoch"), r"changes from epoch to epoch, and these steps are one at most: give more steps"),
        (GradualUnfreezing(), r"GradualUnfreezing changes from epoch to epoch"),
        (0.3, r"gradients=0.3: expected compress.GradDrop\(...\), GradualUnfreezing\(\) or TrainedLayers\(...\)"),
    ],
)
def test_rules_that_do_not_fit_are_refused_before_a_step(make, tokenizer, corpus, rule, message):
    student = make()
    with pytest.raises(probes.InputError, match=message):
        train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=2, gradients=rule, **QUIET)
    assert all(p.requires_grad for p in student.parameters())


def test_a_model_without_a_head_cannot_be_frozen_whole(tiny_models, tokenizer, corpus):
    student = tiny_models("DistilBertModel")
    given = {"objective": [compress.HiddenStates()], "teacher": copy.deepcopy(student), "steps": 1, **QUIET}
    with pytest.raises(probes.InputError, match="leaves nothing to train: DistilBertModel has no head, and all of its"):
        train(student, tokenizer, corpus, gradients=TrainedLayers(), **given)
    train(student, tokenizer, corpus, gradients=TrainedLayers([3]), **given)
    with pytest.raises(probes.InputError, match=r"gradients=.* is of a training, and steps=0 trains nothing"):
        compress.prune(student, sparsity=0.5, gradients=GradDrop(0.3))


def test_numbers_of_any_size_share_a_draw_and_a_share_is_counted_in_65536ths():
    models = [
        torch.nn.Linear(64, 64, bias=False, dtype=dtype) for dtype in (torch.bfloat16, torch.float32, torch.float64)
    ]
    parts = [Part(torch.device("cpu"), model.weight.element_size(), 64 * 64) for model in models]
    for part in parts:
        part.runs = [(0, 0, 1024), (1, 1024, 2048), (2, 2048, 4096)]
        part.draw([0, 1, 2], [1, 65535, 40000])
        assert part.spans == [(1, 0, 1024), (65535, 1024, 2048), (40000, 2048, 4096)]
        assert set(part.masks.unique().tolist()) <= {-1, 0}
        assert torch.equal(part.masks.long(), parts[0].masks.long())
    drawn = torch.from_numpy(np.random.SFC64(np.random.SeedSequence([0, 1, 2])).random_raw(1024).view(np.int16))
    kept = [drawn[:1024] < 1 - 32768, drawn[1024:2048] < 65535 - 32768, drawn[2048:] < 40000 - 32768]
    assert torch.equal(parts[0].masks == -1, torch.cat(kept))
    parts[1].draw([0, 1, 2], [0, 500, 500])  # a whole layer needs none, and two of one share are one piece
    assert parts[1].spans == [(500, 1024, 4096)]
