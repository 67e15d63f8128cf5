"""What lies beside a checkpoint: a training goes on as it would have, and by the same settings only."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from stops import Stops
from trained import QUIET, Remembers, Spoils, Target, same, weights
from transformers import TrainerCallback

import probes
from compress import CRD
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import HiddenStates
from compress.training.checkpoints import mark
from compress.training.kept import Keeps
from compress.training.loop import train


def test_a_training_that_was_interrupted_ends_as_it_would_have(make, tokenizer, corpus, tmp_path):
    options = {"objective": [CrossEntropy()], "steps": 12, "save_every": 4, **QUIET}
    whole = make(dropout=0.2)
    expected = train(whole, tokenizer, corpus, folder=tmp_path / "whole", **options)
    student = make(dropout=0.2)
    with pytest.raises(KeyboardInterrupt):
        train(student, tokenizer, corpus, folder=tmp_path / "run", callbacks=[Stops(10)], **options)
    again = make(dropout=0.2)
    history = train(again, tokenizer, corpus, folder=tmp_path / "run", **options)
    pd.testing.assert_frame_equal(history, expected)
    assert same(weights(again), weights(whole))


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (SoftLabels(temperature=2), SoftLabels(temperature=8), r"temperature of soft_labels is 8 here and was 2 there"),
        (CRD(), CRD(negatives="instances"), r"negatives of crd is 'instances' here and was 'uniform' there"),
        (CRD(), CRD(mixup=0.2), r"mixup of crd is 0.2 here and was None there"),
        (HiddenStates(layers={1: 2}), HiddenStates(layers={1: 3}), r"layers of .* is {'1': 3} here and was {'1': 2}"),
        (CrossEntropy(), CrossEntropy(weight=0.5), r"weight of cross_entropy is 0.5 here and was 1.0 there"),
        (SoftLabels(), HiddenStates(), r"objective is \['hidden_states'\] here and was \['soft_labels'\] there"),
    ],
)
def test_a_training_does_not_go_on_by_other_objectives(make, tokenizer, corpus, tmp_path, one, other, message):
    options = {"teacher": make(), "steps": 1, "folder": tmp_path, **QUIET}
    train(make(), tokenizer, corpus, objective=[one], **options)
    with pytest.raises(probes.InputError, match=message):
        train(make(), tokenizer, corpus, objective=[other], **options)
    train(make(), tokenizer, corpus, objective=[one], **options)


def test_settings_of_objectives_are_numbers_also_of_numpy_and_a_folder_of_another_form_is_refused(
    make, tokenizer, corpus, tmp_path
):
    options = {"teacher": make(), "steps": 1, "folder": tmp_path, **QUIET}
    arrays = [SoftLabels(weight=np.float32(0.5)), HiddenStates(layers={np.int64(1): np.int64(2)})]
    train(make(), tokenizer, corpus, objective=arrays, **options)
    numbers = [SoftLabels(weight=0.5), HiddenStates(layers={1: 2})]
    train(make(), tokenizer, corpus, objective=numbers, **options)
    file = tmp_path / "training.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"objective": ["soft_labels, weight 0.5", "hidden_states, weight 1.0"]}))
    with pytest.raises(
        probes.InputError, match=r"objective is \['soft_labels', .* and was \['soft_labels, weight 0.5'"
    ):
        train(make(), tokenizer, corpus, objective=numbers, **options)


@pytest.mark.parametrize("architecture", ["RobertaForSequenceClassification", "GPT2LMHeadModel"])
def test_a_model_keeps_its_configuration(tiny_models, tokenizer, corpus, architecture):
    student = tiny_models(architecture, bos_token_id=2, eos_token_id=3)
    assert (tokenizer.pad_token_id, student.config.pad_token_id) in ((0, 1), (0, None))
    configs = [c for c in (student.config, getattr(student, "generation_config", None)) if c is not None]
    before = [c.to_dict() for c in configs]
    options = {"teacher": copy.deepcopy(student), "steps": 1, **QUIET}
    train(student, tokenizer, corpus.remove_columns("label"), objective=[HiddenStates()], **options)
    assert [c.to_dict() for c in configs] == before
    with pytest.raises(probes.InputError, match="'spoilt' is nan"):
        train(student, tokenizer, corpus.remove_columns("label"), objective=[Spoils(1)], **options)
    assert [c.to_dict() for c in configs] == before


def test_measures_the_student_before_and_after_what_callbacks_do_and_disturbs_nothing(make, tokenizer, corpus):
    class Zeroes(TrainerCallback):
        def on_step_end(self, args, state, control, model, **_):
            if state.global_step == 2:
                with torch.no_grad():
                    model.classifier.weight.zero_()

    def evaluate(model):
        assert not model.training
        torch.rand(3)
        return {"size": float(model.classifier.weight.abs().sum())}

    student, unwatched = make(dropout=0.2), make(dropout=0.2)
    options = {"objective": [CrossEntropy()], "steps": 4, "callbacks": [Zeroes()], **QUIET}
    history = train(student, tokenizer, corpus, evaluate=evaluate, evaluate_at={1, 2}, **options)
    measured = history.dropna(subset="when").set_index(["step", "when"])["size"]
    assert measured.index.tolist() == [(1, "before"), (1, "after"), (2, "before"), (2, "after")]
    assert measured[1, "before"] == measured[1, "after"]
    assert measured[2, "before"] > 0
    assert measured[2, "after"] == 0
    train(unwatched, tokenizer, corpus, **options)
    assert same(weights(student), weights(unwatched))


def test_an_objective_learns_and_remembers_by_the_number_of_a_text(make, tokenizer, corpus):
    student, objective = make(), Remembers()
    history = train(
        student, tokenizer, corpus, objective=[objective], teacher=make(), steps=8, **QUIET | {"batch_size": 9}
    )
    assert (objective.module.seen == 2).all()  # 36 rows in two epochs
    assert [row["index"] for row in objective.rows] == list(range(36))
    assert objective.seed == 0
    assert history["remembers"].iloc[-1] < history["remembers"].iloc[0]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_what_is_learned_is_updated_as_adamw_would(make, tokenizer, corpus, accumulate):
    objectives = [Target("one"), Target("other", learning_rate=0.1)]
    settings = QUIET | {"accumulate": accumulate, "learning_rate": 0.01}
    history = train(make(), tokenizer, corpus, objective=objectives, steps=7, **settings)
    for objective, rate in zip(objectives, (0.01, 0.1), strict=True):
        x = torch.zeros(2, requires_grad=True)
        optimiser = torch.optim.AdamW([x], weight_decay=0)
        for step in range(7):
            optimiser.param_groups[0]["lr"] = rate * (1 - step / 7)
            optimiser.zero_grad()
            loss = (x - 3).square().sum()
            assert history[objective.name][step] == pytest.approx(float(loss.detach()), rel=1e-5)
            loss.backward()
            optimiser.step()
        torch.testing.assert_close(objective.module["x"].detach(), x.detach())
        assert objective.module["x"].grad is None


class Silent(Remembers):
    def __call__(self, student, teacher, batch):
        return 0 * super().__call__(student, teacher, batch)


def test_an_objective_that_learns_disturbs_no_random_numbers(make, tokenizer, corpus):
    found = []
    for more in ([], [Silent()]):
        student = make(dropout=0.2)
        train(student, tokenizer, corpus, objective=[CrossEntropy(), *more], teacher=make(), steps=4, **QUIET)
        found.append(weights(student))
    assert same(*found)


def test_what_is_learned_goes_on_where_it_was_interrupted(make, tokenizer, corpus, tmp_path):
    def run(folder, *callbacks, **changes):
        student, objective = make(dropout=0.2), Remembers()
        options = {"objective": [CrossEntropy(), objective, HiddenStates()], "teacher": make(hidden_size=16)}
        options |= {"steps": 12, "save_every": 4, "folder": tmp_path / folder, "callbacks": callbacks} | QUIET | changes
        history = train(student, tokenizer, corpus, **options)
        return history, weights(student), weights(objective.module)

    expected = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("run", Stops(10))
    kept = load_file(tmp_path / "run" / "checkpoint-8" / "objectives.safetensors")
    assert {"remembers/bank", "remembers/weight", "hidden_states/0.weight", "hidden_states/3.bias"} < set(kept)
    assert not same({"bank": kept["remembers/bank"]}, {"bank": expected[2]["bank"]})
    found = run("run")
    pd.testing.assert_frame_equal(found[0], expected[0])
    assert same(found[1], expected[1])
    assert same(found[2], expected[2])


def test_what_is_learned_comes_back_where_a_training_has_finished(make, tokenizer, corpus, tmp_path):
    found = []
    for _ in range(2):
        student, objective = make(), Remembers()
        options = {"objective": [objective], "teacher": make(), "folder": tmp_path}
        train(student, tokenizer, corpus, steps=3, **options, **QUIET)
        found.append((weights(student), weights(objective.module)))
    assert same(found[0][0], found[1][0])
    assert same(found[0][1], found[1][1])
    assert found[0][1]["seen"].sum() == 24


class Resized(Target):
    """Learns as many numbers as it is told, which it does not say in its settings."""

    def __init__(self, size):
        super().__init__("resized")
        self.size = size

    def prepare(self, student, teacher, rows, seed):
        return torch.nn.ParameterDict({"x": torch.zeros(self.size)})


def test_what_is_learned_is_not_taken_from_another_training(make, tokenizer, corpus, tmp_path):
    def run(size, *callbacks):
        student = make()
        students.append(student)
        options = {"objective": [Resized(size)], "callbacks": callbacks}
        train(student, tokenizer, corpus, steps=6, save_every=2, folder=tmp_path, **options, **QUIET)

    students: list = []
    with pytest.raises(KeyboardInterrupt):
        run(2, Stops(5))
    with pytest.raises(probes.InputError, match=r"checkpoint-4 was written by .* learn something else: expected .*3,"):
        run(3)
    for checkpoint in tmp_path.glob("checkpoint-*"):
        (checkpoint / "objectives.safetensors").unlink()
        mark(checkpoint)
    with pytest.raises(probes.InputError, match=r"found nothing\. Give the same objectives, or another folder"):
        run(2)
    assert all(same(weights(make()), weights(student)) for student in students[1:])


class Counts(Keeps):
    """Counts updates, which no one else knows."""

    file = "count.txt"
    count = 0

    def on_optimizer_step(self, args, state, control, **_):
        self.count += 1

    def write(self, path):
        path.write_text(str(self.count))

    def read(self, path):
        self.count = int(path.read_text())


def test_a_callback_keeps_what_it_says_and_is_not_gone_on_without(make, tokenizer, corpus, tmp_path):
    def run(*callbacks):
        train(make(), tokenizer, corpus, callbacks=callbacks, folder=tmp_path, **options)

    options = {"objective": [CrossEntropy()], "steps": 6, "save_every": 2, **QUIET}
    with pytest.raises(KeyboardInterrupt):
        run(Counts(), Stops(5))
    counts = Counts()
    run(counts)
    assert counts.count == 6
    counts = Counts()
    run(counts)  # what has finished
    assert counts.count == 6
    (tmp_path / "checkpoint-6" / "count.txt").unlink()
    mark(tmp_path / "checkpoint-6")
    with pytest.raises(probes.InputError, match=r"checkpoint-6 has no count.txt, without which this training does not"):
        run(Counts())


GAP = r": expected a row for each of 2 updates, found \d\. Give"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], GAP),
        ({"step": 1}, ": expected a list, found {'step': 1}"),
        ([1, 2], r"\[0\]: expected an object, found 1"),
        ([{"step": 1}], GAP),
        ([{"step": 2}, {"step": 1}], GAP),
    ],
)
def test_a_history_with_a_gap_is_not_gone_on_from(make, tokenizer, corpus, tmp_path, rows, message):
    options = {"objective": [CrossEntropy()], "steps": 2, "folder": tmp_path, **QUIET}
    train(make(), tokenizer, corpus, **options)
    (tmp_path / "checkpoint-2" / "history.json").write_text(json.dumps(rows))
    mark(tmp_path / "checkpoint-2")
    with pytest.raises(probes.InputError, match=f"history.json{message}"):
        train(make(), tokenizer, corpus, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"training.json: expected an object, found \[1\]"),
        ('{"seed": "0"}', r"training.json\['seed'\]: expected a whole number, found '0'"),
        ('{"objective": [1]}', r"training.json\['objective'\]\[0\]: expected a text, found 1"),
        ("{", "training.json: not readable as JSON"),
    ],
)
def test_settings_that_cannot_be_read_are_said(make, tokenizer, corpus, tmp_path, text, message):
    options = {"objective": [CrossEntropy()], "steps": 1, "folder": tmp_path, **QUIET}
    train(make(), tokenizer, corpus, **options)
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(probes.InputError, match=rf"{message}.* What training .* is not known: give another folder"):
        train(make(), tokenizer, corpus, **options)
