"""A training inside a verb: refused before any work, run with what the verb adds, and recorded."""

import pytest
import torch
from trained import QUIET, same, weights
from transformers import TrainerCallback

from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.training.inside import Training
from probes.errors import InputError


class Notes(TrainerCallback):
    """Notes its name at every step, and what of the model it sees."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def on_step_end(self, args, state, control, **_):
        self.notes.append((state.global_step, self.name))


class Doubles(TrainerCallback):
    """Doubles a bias at one step, so that what is measured before and after differs."""

    def on_step_end(self, args, state, control, model, **_):
        if state.global_step == 2:
            with torch.no_grad():
                model.classifier.bias.fill_(2)


@pytest.mark.parametrize(
    ("steps", "given", "settings", "message"),
    [
        (0, (True, True), {}, "train=... is given, and steps=0 trains nothing: give steps=..., or leave it out"),
        (3, (False, True), {}, "training needs text: give train=..., a corpus, and tokenizer=..."),
        (3, (True, False), {}, "training needs text: give train=..., a corpus, and tokenizer=..."),
        (3, (True, True), {"batchsize": 2}, "batchsize=2: no such setting. Did you mean batch_size?"),
        (3, (True, True), {"about": {}}, "about={}: no such setting. Those of a training are accumulate, balanced, "),
        (0, (False, False), {"batch_size": 2}, "batch_size=2 is of a training, and steps=0 trains nothing: give steps"),
        (-1, (True, True), {}, "steps=-1: expected a whole number, 0 for no training"),
        (1.5, (True, True), {}, "steps=1.5: expected a whole number, 0 for no training"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_it_is_made(make, tokenizer, corpus, steps, given, settings, message):
    corpus, tokenizer = (x if there else None for x, there in zip((corpus, tokenizer), given, strict=True))
    with pytest.raises(InputError) as error:
        Training(make(), corpus, tokenizer, steps, **settings)
    assert str(error.value).startswith(message)


def test_without_steps_nothing_is_trained_or_recorded(make, tokenizer, corpus):
    model = make()
    before = weights(model)
    for training in (Training(model, None, None, 0), Training(model, corpus, tokenizer, 0, used=True)):
        training.run(model, callbacks=[Doubles()], at={1}, noted="pruned_at")
        assert training.history is None
        assert training.recorded() == {}
    assert same(before, weights(model))


def test_one_objective_or_several_and_cross_entropy_without_any(make, tokenizer, corpus):
    labels, soft = CrossEntropy(weight=0.5), SoftLabels()
    for given, expected in (
        ((), [CrossEntropy()]),
        ([], [CrossEntropy()]),
        (labels, [labels]),
        ([labels], [labels]),
        ((labels, soft), [labels, soft]),
    ):
        assert Training(make(), corpus, tokenizer, 1, given).objective == expected


def test_what_was_given_teaches_unless_another_does(make, tokenizer, corpus):
    model, other = make(), make()
    assert Training(model, corpus, tokenizer, 1).teacher is model
    assert Training(model, corpus, tokenizer, 1, teacher=other).teacher is other
    with torch.no_grad():
        other.classifier.bias[0] += 3
    losses = []
    for teacher in (None, other):
        training = Training(model, corpus, tokenizer, 1, SoftLabels(), teacher, **QUIET)
        training.run(make())
        losses.append(training.history["soft_labels"][0])
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[1] > 0.1


def test_the_callbacks_of_the_verb_stand_before_those_given_and_the_model_is_measured_at_its_steps(
    make, tokenizer, corpus
):
    notes, measured = [], []

    def evaluate(model):
        measured.append("given")
        return {"bias": float(model.classifier.bias.detach().sum())}

    def around(given):
        def measuring(model):
            measured.append("verb")
            return {**given(model), "of_verb": 1.0}

        return measuring

    settings = QUIET | {"callbacks": [Notes("given", notes)], "evaluate": evaluate, "evaluate_at": [3]}
    training = Training(make(), corpus, tokenizer, 3, CrossEntropy(), seed=7, **settings)
    model = make()
    training.run(model, callbacks=[Doubles(), Notes("verb", notes)], at=[2], noted="pruned_at", measuring=around)
    assert notes == [(step, name) for step in (1, 2, 3) for name in ("verb", "given")]
    history = training.history
    rows = history.dropna(subset="when")
    assert list(zip(rows["step"], rows["when"], strict=True)) == [(s, w) for s in (2, 3) for w in ("before", "after")]
    assert rows["bias"].iloc[1] == 6
    assert rows["bias"].iloc[0] != 6
    assert (rows["of_verb"] == 1).all()
    assert measured == ["verb", "given"] * 4
    assert history.attrs == {"pruned_at": [2]}
    how = {"batch_size": 8, "learning_rate": 1e-3}  # those that are not the defaults
    expected = {"seed": 7, "steps": 3, "objective": ["cross_entropy"], "training": how, "pruned_at": [2]}
    assert training.recorded() == expected


def test_what_is_not_noted_is_not_recorded_and_the_settings_stay_as_they_were(make, tokenizer, corpus):
    settings = QUIET | {"callbacks": [Notes("given", [])]}
    training = Training(make(), corpus, tokenizer, 1, [CrossEntropy(), SoftLabels()], **settings)
    for _ in range(2):
        training.run(make())
        assert training.history.attrs == {}
        how = {"batch_size": 8, "learning_rate": 1e-3}
        expected = {"seed": 0, "steps": 1, "objective": ["cross_entropy", "soft_labels"], "training": how}
        assert training.recorded() == expected
    assert training.settings == settings


def test_a_record_before_the_run_is_a_mistake_of_the_verb(make, tokenizer, corpus):
    with pytest.raises(AssertionError, match="recorded before it was run"):
        Training(make(), corpus, tokenizer, 1).recorded()


def test_what_else_decides_is_kept_in_the_folder(make, tokenizer, corpus, tmp_path):
    settings = QUIET | {"folder": tmp_path}
    Training(make(), corpus, tokenizer, 1, **settings).run(make(), at=[1], noted="pruned_at", about={"sparsity": 0.5})
    with pytest.raises(InputError, match=r"sparsity is 0.6 here and was 0.5 there"):
        Training(make(), corpus, tokenizer, 1, **settings).run(
            make(), at=[1], noted="pruned_at", about={"sparsity": 0.6}
        )
    with pytest.raises(InputError, match=r"pruned_at is \[\] here and was \[1\] there"):
        Training(make(), corpus, tokenizer, 1, **settings).run(make(), noted="pruned_at", about={"sparsity": 0.5})
