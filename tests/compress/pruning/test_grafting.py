"""Grafting: blocks of the teacher are used as often as said, only the model's own are trained, and nothing is left."""

import numpy as np
import pandas as pd
import pytest
import torch
from stops import Stops
from trained import WORDS

import probes
from compress import CrossEntropy, recipes
from compress.pruning.grafting import Grafting
from compress.training.loop import train

QUIET = {"progress": False, "batch_size": 8, "learning_rate": 1e-2}


@pytest.fixture
def corpus():
    rows = [{"id": i, "language": "en", "text": WORDS[k], "label": k} for i, k in enumerate("xyz" * 8)]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def classifier(make_classifier):
    return make_classifier


class Watch:
    """The logits of every pass in training, and which of the blocks were the teacher's."""

    def __init__(self, student, teacher):
        self.student, self.teacher, self.grafted = student, teacher, []
        student.register_forward_hook(self.look)  # before the hook that takes the grafts out

    def look(self, model, inputs, outputs):
        if model.training:
            theirs = {p.data_ptr() for p in self.teacher.parameters()}
            layers = model.base_model.encoder.layer
            self.grafted.append([all(p.data_ptr() in theirs for p in block.parameters()) for block in layers])


def test_blocks_are_the_teachers_as_often_as_said_and_the_model_stands_alone_in_the_end(
    classifier, make_tokenizer, corpus
):
    student, teacher = classifier(), classifier()
    watch = Watch(student, teacher)
    own = list(student.parameters())
    grafting = Grafting(teacher, probability=0.5, prune_until=0.5, alone_from=0.75)
    train(
        student,
        make_tokenizer(),
        corpus,
        objective=[CrossEntropy()],
        steps=240,
        callbacks=[grafting],
        **QUIET,
    )
    grafted = np.array(watch.grafted)
    assert grafted.shape == (240, len(student.base_model.encoder.layer))
    # Half of those of three blocks that are not all the teacher's, 360 of them: two standard errors are 0.05.
    assert grafted[:120].mean() == pytest.approx(1 - 0.5 / (1 - 0.5**3), abs=0.07)
    assert not grafted.all(1).any()
    assert set(grafted[:120].sum(1)) == {0, 1, 2}  # drawn for each block
    assert 0.12 < grafted[120:180].mean() < 0.36  # on the way from a half to none
    assert not grafted[180:].any()
    assert [a is b for a, b in zip(own, student.parameters(), strict=True)] == [True] * len(own)
    assert all(p.requires_grad for p in student.parameters())
    assert not [h for h in student._forward_pre_hooks.values() if getattr(h, "__self__", None) is grafting]


def test_only_blocks_that_were_used_move_and_the_teacher_never_does(classifier, make_tokenizer, corpus):
    student, teacher = classifier(), classifier()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    held = {k: v.clone() for k, v in teacher.state_dict().items()}
    watch = Watch(student, teacher)
    train(
        student,
        make_tokenizer(),
        corpus,
        objective=[CrossEntropy()],
        steps=1,
        callbacks=[Grafting(teacher, probability=0.5, seed=3)],
        **QUIET,
    )
    (grafted,) = watch.grafted
    assert 0 < sum(grafted) < 3  # this seed takes some of each
    for name, weight in student.state_dict().items():
        inside = ".encoder.layer." in name
        moved = not torch.equal(weight, before[name])
        if not inside or grafted[int(name.split(".layer.")[1].split(".")[0])]:
            assert not moved, name
        elif name.endswith("query.weight"):
            assert moved, name
    assert all(torch.equal(v, held[k]) for k, v in teacher.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())


def test_a_grafted_pass_computes_what_a_model_of_both_would(classifier, make_tokenizer, corpus):
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    student, teacher, mixed, alone = (classifier(**still) for _ in range(4))
    # Blocks that do something of their own.
    with torch.no_grad():
        for p in teacher.base_model.encoder.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    grafting = Grafting(teacher, probability=0.5, seed=3)
    found = []
    student.register_forward_hook(lambda m, i, o: found.append(o.logits.detach().clone()) if m.training else None)
    watch = Watch(student, teacher)
    inputs = []
    student.register_forward_pre_hook(
        lambda m, a, k: inputs.append({n: v.clone() for n, v in k.items() if isinstance(v, torch.Tensor)}),
        with_kwargs=True,
    )
    train(student, make_tokenizer(), corpus, objective=[CrossEntropy()], steps=1, callbacks=[grafting], **QUIET)
    for number, theirs in enumerate(watch.grafted[0]):
        if theirs:
            block = teacher.base_model.encoder.layer[number].state_dict()
            mixed.base_model.encoder.layer[number].load_state_dict(block)
    with torch.no_grad():
        expected = mixed.eval()(**inputs[0]).logits
    torch.testing.assert_close(found[0], expected)
    assert not torch.allclose(found[0], alone.eval()(**inputs[0]).logits, atol=1e-4)


def test_the_learning_rate_decays_twice(classifier, make_tokenizer, corpus):
    rates = []

    class Rates(Grafting):
        def on_step_begin(self, args, state, control, lr_scheduler=None, **_):
            super().on_step_begin(args, state, control)
            rates.append(lr_scheduler.get_last_lr()[0])

    options = {"objective": [CrossEntropy()], "steps": 8, **QUIET, "learning_rate": 1.0}
    train(classifier(), make_tokenizer(), corpus, callbacks=[Rates(classifier())], **options)
    assert rates == pytest.approx([1, 0.75, 0.5, 0.25, 1, 0.75, 0.5, 0.25])


def test_an_interrupted_recipe_ends_as_it_would_have(classifier, make_tokenizer, corpus, tmp_path):
    options = {"sparsity": 0.7, "steps": 12, "prunings": 3, "probability": 0.5, "save_every": 4, **QUIET}
    recipe, tokenizer = recipes.sparse_progressive_distillation, make_tokenizer()
    whole = recipe(classifier(), tokenizer, corpus, **options)
    assert whole.history.attrs["pruned_at"] == [2, 4, 6]
    with pytest.raises(KeyboardInterrupt):
        recipe(classifier(), tokenizer, corpus, folder=tmp_path / "run", callbacks=[Stops(7)], **options)
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    resumed = recipe(classifier(), tokenizer, corpus, folder=tmp_path / "run", **options)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for matrix in whole.config.compression["pruned"]:
        weight = whole.get_parameter(matrix)
        assert int((weight == 0).sum()) == round(0.7 * weight.numel())


def test_bad_input(classifier, tiny_models, make_tokenizer, corpus):
    for wrong in (0, 1.5, float("nan")):
        with pytest.raises(probes.InputError, match=r"probability=.*expected above 0 and at most 1"):
            Grafting(classifier(), probability=wrong)
    with pytest.raises(probes.InputError, match=r"prune_until=0.8, alone_from=0.5: expected shares of the training"):
        Grafting(classifier(), prune_until=0.8, alone_from=0.5)
    with pytest.raises(probes.InputError, match=r"the teacher has no bert.encoder.layer.0.*Give a teacher of the same"):
        train(
            classifier(),
            make_tokenizer(),
            corpus,
            objective=[CrossEntropy()],
            steps=1,
            callbacks=[Grafting(tiny_models("DistilBertForSequenceClassification"))],
            **QUIET,
        )


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("mixed", [0.2, 0.2, 0.2, 0.6, 1]), ("linear", [0.2, 0.4, 0.6, 0.8, 1]), ("constant", [0.2, 0.2, 0.2, 0.2, 1])],
)
def test_the_probability_rises_as_its_schedule_says(classifier, schedule, expected):
    grafting = Grafting(classifier(), probability=0.2, prune_until=0.4, alone_from=0.8, schedule=schedule)
    assert [grafting.at(done) for done in (0, 0.2, 0.4, 0.6, 0.8)] == pytest.approx(expected)


def test_an_unknown_schedule_is_refused(classifier):
    with pytest.raises(probes.InputError, match=r"schedule='gap' is not known; choose one of 'mixed', 'linear'"):
        Grafting(classifier(), schedule="gap")
