"""How a training goes: each setting against an optimiser by hand, what is refused, and what a training goes on by."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from trained import QUIET, make_corpus, same, weights

import compress
from compress.objectives.labels import CrossEntropy
from compress.training.loop import train
from compress.training.settings import DEFAULTS, TrainingSettings
from probes.errors import InputError

STEPS = 6


class Flat:
    """A loss whose gradient is known: so much for each weight of the classifier, by the number of the step."""

    name, weight, needs = "flat", 1.0, frozenset()

    def __init__(self, slope=1.0):
        self.slope, self.step = slope, 0

    def __call__(self, student, teacher, batch):
        self.step += 1
        return self.slope * self.step * student.model.classifier.weight.sum() + 0 * student.logits.sum()


def by_hand(start, slope=1.0, *, rate, warmup=0, fall=lambda done: 1 - done, decay=0.0, betas=(0.9, 0.999), bound=1.0):
    """The classifier's weights after AdamW in float64."""
    w, m, v = start.double(), 0.0, 0.0
    for t in range(1, STEPS + 1):
        g = torch.full_like(w, slope * t)
        if bound is not None:  # of all of the student's gradient, which is this
            g = g * min(1.0, bound / (float(g.norm()) + 1e-6))
        at = t - 1  # updates before this one
        lr = rate * (at / warmup if at < warmup else fall((at - warmup) / max(1, STEPS - warmup)))
        w = w * (1 - lr * decay)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        w = w - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + 1e-8)
    return w


@pytest.mark.parametrize(
    ("settings", "hand"),
    [
        ({}, {}),
        ({"warmup": 0.4}, {"warmup": 3}),  # 2.4, rounded up
        ({"scheduler": "cosine"}, {"fall": lambda done: 0.5 * (1 + math.cos(math.pi * done))}),
        ({"scheduler": "constant"}, {"fall": lambda done: 1.0}),
        ({"scheduler": "constant", "warmup": 0.5}, {"fall": lambda done: 1.0, "warmup": 3}),
        ({"weight_decay": 0.5}, {"decay": 0.5}),
        ({"betas": [0.5, 0.6]}, {"betas": (0.5, 0.6)}),
        ({"betas": (0.5, 0.6), "max_grad_norm": None}, {"betas": (0.5, 0.6), "bound": None}),
        ({"betas": (0.5, 0.6), "max_grad_norm": 9.0}, {"betas": (0.5, 0.6), "bound": 9.0}),
    ],
)
def test_each_is_what_adamw_by_hand_makes_of_it(make, tokenizer, corpus, settings, hand):
    model = make()
    start = model.classifier.weight.detach().clone()
    bias = model.classifier.bias.detach().clone()
    given = {**QUIET, "learning_rate": 0.02, **settings}
    train(model, tokenizer, corpus, objective=[Flat()], steps=STEPS, **given)
    expected = by_hand(start, rate=0.02, **hand)
    torch.testing.assert_close(model.classifier.weight.detach().double(), expected, rtol=0, atol=2e-6)
    assert (model.classifier.weight - start).abs().max() > 1e-3
    assert torch.equal(model.classifier.bias, bias)  # no gradient, and no decay


def test_texts_are_cut_and_prompted_as_is_said(make, tokenizer, corpus):
    seen = []

    class Looks:
        name, weight, needs = "looks", 1.0, frozenset()

        def __call__(self, student, teacher, batch):
            seen.extend(
                ids[mask == 1].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
            )
            return student.logits.sum()

    train(make(), tokenizer, corpus, objective=[Looks()], steps=2, max_length=5, prompt="the ", **QUIET)
    the = tokenizer("the", add_special_tokens=False)["input_ids"][0]
    assert {ids[1] for ids in seen} == {the}
    assert max(map(len, seen)) == 5


def test_bfloat16_computes_the_passes_alone(make, tokenizer, corpus):
    found = {}

    def once(precision):
        model = make()
        noted = []
        forward = model.classifier.forward

        def watched(x):
            out = forward(x)
            noted.append((model.training, out.dtype))
            return out

        model.classifier.forward = watched
        history = train(
            model, tokenizer, corpus, objective=[CrossEntropy()], steps=3, precision=precision, evaluate_at=[2],
            evaluate=lambda m: {"x": float(m(torch.tensor([[1, 2]])).logits.sum())}, **QUIET
        )  # fmt: skip
        del model.classifier.forward
        found[precision] = history["loss"].dropna().to_numpy()
        assert {dtype for training, dtype in noted if not training} == {torch.float32}
        assert {dtype for training, dtype in noted if training} == {getattr(torch, precision)}
        assert model.classifier.weight.dtype == torch.float32
        assert "forward" not in vars(model)

    once("float32")
    once("bfloat16")
    np.testing.assert_allclose(found["bfloat16"], found["float32"], rtol=0.05)
    assert not np.array_equal(found["bfloat16"], found["float32"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": True}, "batch_size=True: expected a whole number of at least 1"),
        ({"accumulate": 0}, "accumulate=0: expected a whole number of at least 1"),
        ({"learning_rate": float("inf")}, "learning_rate=inf: expected a number above 0"),
        ({"learning_rate": None}, "learning_rate=None: expected a number above 0"),
        ({"epsilon": 0}, "epsilon=0: expected a number above 0"),
        ({"max_grad_norm": 0}, "max_grad_norm=0: expected a number above 0, or None for no bound"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: expected a number of at least 0"),
        ({"warmup": 1}, "warmup=1: expected at least 0 and below 1, a share of the updates: divide so many updates by"),
        ({"warmup": "0.1"}, "warmup='0.1': expected at least 0 and below 1"),
        ({"betas": 0.9}, r"betas=0.9: expected two numbers, each at least 0 and below 1"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\): expected two numbers, each at least 0 and below 1"),
        ({"scheduler": "linaer"}, "scheduler='linaer' is not known; .*'linear'"),
        ({"precision": "float16"}, "precision='float16' is not known; .*'bfloat16'"),
        ({"weigth_decay": 0.1}, r"weigth_decay=0.1: no such setting. Did you mean weight_decay\?"),
        ({"max_length": 1000}, "max_length=1000"),
        ({"balanced": 0}, "balanced=0: expected the name of a column, as 'language', or None"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_step(make, tokenizer, corpus, given, message):
    model = make()
    before = weights(model)
    with pytest.raises(InputError, match=message):
        train(model, tokenizer, corpus, objective=[CrossEntropy()], steps=1, **{**QUIET, **given})
    assert same(before, weights(model))
    if "max_length" not in given:  # which the model knows
        with pytest.raises(InputError, match=message):
            compress.prune(model, sparsity=0.5, train=corpus, tokenizer=tokenizer, steps=1, **{**QUIET, **given})


OTHER = {
    "batch_size": 4,
    "learning_rate": 2e-3,
    "accumulate": 2,
    "scheduler": "cosine",
    "warmup": 0.5,
    "weight_decay": 0.1,
    "betas": (0.8, 0.99),
    "epsilon": 1e-6,
    "max_grad_norm": None,
    "precision": "bfloat16",
    "max_length": 4,
    "prompt": "the ",
    "balanced": "label",
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory, tiny_models, make_tokenizer):

    model, folder = (
        tiny_models("BertForSequenceClassification", id2label=dict(enumerate("xyz"))),
        tmp_path_factory.mktemp("t"),
    )
    given = {"objective": [CrossEntropy()], "steps": 1, "folder": folder, **QUIET}
    train(compress.prune(model, sparsity=0.0), make_tokenizer(), make_corpus(), **given)
    return model, make_tokenizer(), make_corpus(), given


@pytest.mark.parametrize("name", OTHER)
def test_a_training_does_not_go_on_by_another(begun, name):
    model, tokenizer, corpus, given = begun
    assert OTHER.keys() == DEFAULTS.keys()
    with pytest.raises(InputError, match=f"holds checkpoints of another training: {name} is .* here and was .* there"):
        train(compress.prune(model, sparsity=0.0), tokenizer, corpus, **{**given, name: OTHER[name]})


def test_a_training_does_not_go_on_without_what_it_was_given(make, tokenizer, corpus, tmp_path):
    given = {"objective": [CrossEntropy()], "steps": 1, "folder": tmp_path, **QUIET}
    train(make(), tokenizer, corpus, about={"sparsity": 0.5}, max_length=4, **given)
    with pytest.raises(InputError, match="max_length is None here and was 4 there"):
        train(make(), tokenizer, corpus, about={"sparsity": 0.5}, **given)
    with pytest.raises(InputError, match=r"sparsity is None here and was 0\.5 there"):
        train(make(), tokenizer, corpus, max_length=4, **given)


def test_verbs_and_recipes_take_them_and_say_so(make, tokenizer, corpus):
    given = {"train": corpus, "tokenizer": tokenizer, "steps": 1, **QUIET, **OTHER}
    expected = {name: list(value) if name == "betas" else value for name, value in OTHER.items()}
    model = make()
    for made in (
        compress.prune(model, sparsity=0.5, **given),
        compress.quantize(model, bits=4, **given),
        compress.product_quantize(model, codes=4, block=4, **given | {"steps": 4}),
        compress.fuse(model, **given),
        compress.distill(model, layers=1, **given),
    ):
        assert made.config.compression["training"] == expected
    of_recipe = {k: v for k, v in given.items() if k not in ("train", "tokenizer")}
    made = compress.recipes.codir(model, tokenizer, corpus, layers=1, **of_recipe)
    assert made.config.compression["training"] == expected


def test_a_schedule_beside_that_of_grafting_is_refused(make, tokenizer, corpus):
    with pytest.raises(InputError, match=r"grafting lets the learning rate fall twice by itself: found .*warmup=0.5"):
        compress.recipes.sparse_progressive_distillation(
            make(), tokenizer, corpus, sparsity=0.5, steps=2, warmup=0.5, **QUIET
        )


def test_numbers_of_numpy_are_kept_as_plain_ones():
    found = TrainingSettings(batch_size=np.int64(4), learning_rate=np.float32(0.5), betas=[np.float64(0.5), 0])
    assert dataclasses.astuple(found)[:2] == (4, 0.5)
    assert {type(value) for value in (found.batch_size, *found.betas)} == {int, float}
