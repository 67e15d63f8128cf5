"""Which checkpoint counts: the newest that is whole; a cut, changed or missing file is found, and one always stays."""

import copy
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading

import pandas as pd
import pytest
from kills import environment, kills, meetings
from ranked import together
from stops import Stops
from trained import QUIET, Remembers, make_corpus, same, weights
from transformers import TrainerCallback

import probes
from compress.objectives.labels import CrossEntropy
from compress.training.checkpoints import MARKER, checkpoints_in, damage_of, files_of, mark, newest_whole, remove_older
from compress.training.loop import train
from probes.errors import InputError, LayerscopeWarning
from probes.files import locked

FILES = [
    "config.json",
    "history.json",
    "model.safetensors",
    "objectives.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer_state.json",
    "training_args.bin",
]


def missing(file):
    file.unlink()


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def changed(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    """A folder with the checkpoints of three steps, of one file each."""
    for step in (5, 10, 20):
        path = tmp_path / f"checkpoint-{step}"
        path.mkdir()
        (path / "a.bin").write_bytes(b"0123456789")
        mark(path)
    return tmp_path


def test_the_marker_holds_size_and_hash_of_every_file(folder):
    (folder / "checkpoint-5" / "inner").mkdir()
    (folder / "checkpoint-5" / "inner" / "b.bin").write_bytes(b"")
    mark(folder / "checkpoint-5")
    digit = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert files_of(folder / "checkpoint-5") == {"a.bin": (10, digit), "inner/b.bin": (0, empty)}


def test_only_folders_of_the_name_that_checkpoints_have_count(folder):
    for name in ("checkpoint-0", "checkpoint-030", "checkpoint-40.old", "checkpoint-x", "my-checkpoint-50"):
        (folder / name).mkdir()
    (folder / "checkpoint-60").touch()
    assert list(checkpoints_in(folder)) == [20, 10, 5]
    assert checkpoints_in(folder / "none") == {}
    assert newest_whole(folder) == (folder / "checkpoint-20", [])
    assert newest_whole(folder / "none") == (None, [])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (missing, "a.bin is missing"),
        (cut, "a.bin has 5 bytes and was written with 10"),
        (changed, "a.bin is not what was written"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said_by_name(folder, harm, message):
    harm(folder / "checkpoint-20" / "a.bin")
    assert damage_of(folder / "checkpoint-20") == message
    whole, said = newest_whole(folder)
    assert whole == folder / "checkpoint-10"
    start = f"{folder / 'checkpoint-20'} is passed over, it is not whole: {message}."
    assert said == [f"{start} The training goes on from checkpoint-10"]


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (None, "complete.json, which is written last, is missing"),
        ('{"checkpoint": ', "complete.json: not readable as JSON"),
        ("[]", "complete.json does not give size and hash of each file"),
        ('{"checkpoint": "checkpoint-20"}', "complete.json does not give size and hash"),
        ('{"checkpoint": "checkpoint-20", "files": {"a.bin": {"bytes": true, "sha256": ""}}}', "does not give size"),
        ('{"checkpoint": "checkpoint-20", "files": {"a.bin": {"bytes": 1}}}', "does not give size"),
        (
            '{"checkpoint": "checkpoint-20", "files": {"../a": {"bytes": 1, "sha256": ""}}}',
            "names the file '../a', which",
        ),
        (
            '{"checkpoint": "checkpoint-20", "files": {"/a": {"bytes": 1, "sha256": ""}}}',
            "names the file '/a', which is none",
        ),
        ('{"checkpoint": "checkpoint-10", "files": {}}', "complete.json is that of 'checkpoint-10'"),
        (
            json.dumps({"checkpoint": "checkpoint-20", "files": {"x" * 300: {"bytes": 1, "sha256": ""}}}),
            f"{'x' * 300} is missing",
        ),
    ],
)
def test_without_its_marker_a_checkpoint_is_not_whole(folder, marker, message):
    file = folder / "checkpoint-20" / MARKER
    file.unlink() if marker is None else file.write_text(marker)
    assert message in damage_of(folder / "checkpoint-20")
    assert newest_whole(folder)[0] == folder / "checkpoint-10"


def test_each_newer_checkpoint_that_is_passed_over_is_said(folder):
    for step in (5, 10, 20):
        (folder / f"checkpoint-{step}" / MARKER).unlink()
    whole, said = newest_whole(folder)
    assert whole is None
    assert len(said) == 3
    assert all(message.endswith("is missing. The training begins anew") for message in said)


def test_the_newest_checkpoint_and_the_one_before_it_stay(folder):
    shutil.copytree(folder, folder.parent / "other")
    remove_older(folder, 20)
    assert list(checkpoints_in(folder)) == [20, 10]
    other = folder.parent / "other"
    (other / "checkpoint-10" / MARKER).unlink()  # which counts for nothing
    remove_older(other, 20)
    assert list(checkpoints_in(other)) == [20, 5]
    remove_older(other, 5)
    assert list(checkpoints_in(other)) == [20, 5]
    remove_older(other, 5, newer=True)
    assert list(checkpoints_in(other)) == [5]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_models, make_tokenizer):
    """A function that trains in a folder, and a folder with what an interrupted training left."""
    corpus, tokenizer = make_corpus(), make_tokenizer()
    dropped = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}

    def run(folder, *callbacks):
        student, teacher = (tiny_models("BertForSequenceClassification", **dropped) for _ in range(2))
        student.config.id2label = teacher.config.id2label = {0: "x", 1: "y", 2: "z"}
        objective = Remembers()
        options = {"objective": [CrossEntropy(), objective], "teacher": teacher, "steps": 6, "save_every": 2}
        history = train(student, tokenizer, corpus, folder=folder, callbacks=callbacks, **options, **QUIET)
        return history, weights(student), weights(objective.module)

    base = tmp_path_factory.mktemp("trained")
    expected = run(base / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(base / "left", Stops(5))
    return run, base / "left", expected


def check_equal(found, expected):
    pd.testing.assert_frame_equal(found[0], expected[0])
    assert same(found[1], expected[1])
    assert same(found[2], expected[2])


@pytest.mark.parametrize("harm", [missing, cut, changed])
@pytest.mark.parametrize("name", FILES)
def test_a_training_ends_as_it_would_have_whatever_file_is_harmed(trained, tmp_path, name, harm):
    run, left, expected = trained
    shutil.copytree(left, tmp_path / "run")
    assert sorted(files_of(tmp_path / "run" / "checkpoint-4")) == FILES
    harm(tmp_path / "run" / "checkpoint-4" / name)
    said = rf"checkpoint-4 is passed over, it is not whole: {name} .*\. The training goes on from checkpoint-2$"
    with pytest.warns(LayerscopeWarning, match=said):
        found = run(tmp_path / "run")
    check_equal(found, expected)
    assert list(checkpoints_in(tmp_path / "run")) == [6, 4]
    assert not any(damage_of(path) for path in checkpoints_in(tmp_path / "run").values())


def test_what_a_checkpoint_that_was_passed_over_holds_is_gone_with_it(trained, tmp_path):
    run, left, expected = trained
    shutil.copytree(left, tmp_path / "run")
    for step in (2, 4):
        (tmp_path / "run" / f"checkpoint-{step}" / MARKER).unlink()
        (tmp_path / "run" / f"checkpoint-{step}" / "left.partial").touch()
    with pytest.warns(LayerscopeWarning, match="The training begins anew") as said:
        found = run(tmp_path / "run")
    assert len([w for w in said if issubclass(w.category, LayerscopeWarning)]) == 2
    check_equal(found, expected)
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_without_what_the_trainer_needs_it_does_not_go_on(trained, tmp_path, name):
    run, left, _ = trained
    shutil.copytree(left, tmp_path / "run")
    marker = tmp_path / "run" / "checkpoint-4" / MARKER
    content = json.loads(marker.read_text())
    del content["files"][name]
    marker.write_text(json.dumps(content))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(probes.InputError, match=rf"checkpoint-4 has no {name}, without which a training"):
        run(tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_what_no_training_wrote_is_said_in_one_sentence_whatever_the_marker_says(trained, tmp_path, name):
    run, left, _ = trained
    shutil.copytree(left, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-4"
    (checkpoint / name).write_bytes(b"none of ours")
    mark(checkpoint)
    said = r"checkpoint-4: a training cannot go on from what lies there \(.+\)\. Give"
    with pytest.raises(probes.InputError, match=said):
        run(tmp_path / "run")


def test_a_checkpoint_whose_state_is_that_of_another_step_is_refused(trained, tmp_path):
    run, left, _ = trained
    shutil.copytree(left, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-4"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps(state | {"global_step": 10**12}))
    mark(checkpoint)
    with pytest.raises(probes.InputError, match=r"trainer_state\.json is that of step 1000000000000"):
        run(tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("log_history", "x", "expected a list, found 'x'"),
        ("stateful_callbacks", {}, r"expected the key 'TrainerControl', found \[\]"),
    ],
)
def test_a_state_of_another_form_is_refused(trained, tmp_path, key, value, said):
    run, left, _ = trained
    shutil.copytree(left, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-4"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps(state | {key: value}))
    mark(checkpoint)
    with pytest.raises(probes.InputError, match=rf"trainer_state\.json\['{key}'\]: {said}"):
        run(tmp_path / "run")


def test_random_states_of_as_many_processes_are_needed(trained, tmp_path):
    run, left, _ = trained
    shutil.copytree(left, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-4"
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    mark(checkpoint)
    wanted = re.escape("expected rng_state.pth, found rng_state_0.pth, rng_state_1.pth. Train by as many processes as")
    with pytest.raises(probes.InputError, match=rf"does not have the random states of 1 process: {wanted}"):
        run(tmp_path / "run")
    for file in checkpoint.glob("rng_state*"):
        file.unlink()
    mark(checkpoint)
    with pytest.raises(probes.InputError, match=r"expected rng_state.pth, found none"):
        run(tmp_path / "run")


class Looks(TrainerCallback):
    """Notes which checkpoints are whole while the next one is being written, before it is marked."""

    def __init__(self):
        self.found = []

    def on_save(self, args, state, control, **_):
        every = checkpoints_in(args.output_dir)
        self.found.append((list(every), [step for step, path in every.items() if not damage_of(path)]))


def test_a_whole_checkpoint_stays_until_the_next_one_is(make, tokenizer, corpus, tmp_path):
    looks = Looks()
    options = {"objective": [CrossEntropy()], "steps": 4, "save_every": 1, "folder": tmp_path, **QUIET}
    train(make(), tokenizer, corpus, callbacks=[looks], **options)
    assert looks.found == [([1], []), ([2, 1], [1]), ([3, 2, 1], [2, 1]), ([4, 3, 2], [3, 2])]
    assert list(checkpoints_in(tmp_path)) == [4, 3]


def test_a_checkpoint_of_a_later_step_that_is_passed_over_pushes_out_no_whole_one(make, tokenizer, corpus, tmp_path):
    options = {"objective": [CrossEntropy()], "steps": 8, "save_every": 2, "folder": tmp_path, **QUIET}
    with pytest.raises(KeyboardInterrupt):
        train(make(), tokenizer, corpus, callbacks=[Stops(3)], **options)
    shutil.copytree(tmp_path / "checkpoint-2", tmp_path / "checkpoint-7")
    looks = Looks()
    with pytest.warns(
        LayerscopeWarning, match="checkpoint-7 .* is that of 'checkpoint-2'. .* goes on from checkpoint-2"
    ):
        train(make(), tokenizer, corpus, callbacks=[looks], **options)
    assert looks.found == [([7, 4, 2], [2]), ([6, 4, 2], [4, 2]), ([8, 6, 4], [6, 4])]
    assert list(checkpoints_in(tmp_path)) == [8, 6]


def test_who_does_not_wait_for_the_folder_is_refused(make, tokenizer, corpus, tmp_path):
    taken, done = threading.Event(), threading.Event()

    def holds():
        with locked(tmp_path / "training"):
            taken.set()
            done.wait(60)

    thread = threading.Thread(target=holds)
    thread.start()
    taken.wait(60)
    options = {"objective": [CrossEntropy()], "steps": 1, "folder": tmp_path / "training", **QUIET}
    try:
        with pytest.raises(InputError, match=r"training is being written by process \d+. Wait until it is done, or"):
            train(make(), tokenizer, corpus, wait=False, **options)
    finally:
        done.set()
        thread.join()
    assert list(train(make(), tokenizer, corpus, wait=False, **options)["step"]) == [1]


def test_a_second_process_waits_until_the_folder_is_free(tmp_path):
    with locked(tmp_path / "run" / "training"):
        code = (
            f"from pathlib import Path; import killed_trainings as k; k.by_magnitude(Path({str(tmp_path / 'run')!r}))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment(), stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        assert process.stderr is not None
        waits = f"training is being written by process {os.getpid()}; waiting until it is done"
        assert any(waits in line for line in process.stderr)
        assert not (tmp_path / "run" / "training").exists()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert list(checkpoints_in(tmp_path / "run" / "training")) == [6, 4]


@pytest.mark.parametrize("work", ["by_movement", "with_a_bank"])
def test_killed_at_some_changes_of_the_file_system_a_training_ends_as_it_would_have(work, tmp_path):
    found = kills(f"killed_trainings:{work}", tmp_path, sample=2)
    assert found["points"] == 2
    assert found["changes"] > 60
    assert found["wrong"] == []


@pytest.mark.faults
@pytest.mark.parametrize(
    "work",
    [
        "by_magnitude",
        "by_movement",
        "with_a_bank",
        "with_ranges",
        "with_codebooks",
        "by_fusion",
        "with_dropped_gradients",
        "with_the_best_step",
        "with_adversaries",
    ],
)
def test_killed_at_every_change_of_the_file_system_a_training_ends_as_it_would_have(work, tmp_path):
    found = kills(f"killed_trainings:{work}", tmp_path)
    print(f"{work}: {found['points']} points, {found['states']} states, {len(found['wrong'])} wrong")
    assert found["points"] > found["states"] > found["changes"] > 60
    assert found["wrong"] == []


@pytest.mark.faults
def test_two_processes_at_once_train_as_one_does(tmp_path):
    assert meetings("killed_trainings:by_movement", tmp_path, rounds=50)["wrong"] == []


@pytest.fixture(scope="module")
def by_two(tmp_path_factory, tiny_models, make_tokenizer):
    """A training that two processes do, from a folder, and what came out of it uninterrupted: losses and weights."""
    model = tiny_models("BertForSequenceClassification", id2label=dict(enumerate("xyz")))
    tokenizer, corpus = make_tokenizer(), make_corpus()

    def trained(folder):
        def work(_rank):
            student = copy.deepcopy(model)
            options = {"objective": [CrossEntropy()], "steps": 4, "save_every": 1, **QUIET}
            history = train(student, tokenizer, corpus, folder=folder / "training", **options)
            every = b"".join(p.detach().numpy().tobytes() for p in student.parameters())
            return [history["loss"].tolist(), hashlib.sha256(every).hexdigest()]

        return work

    ends = together(trained(tmp_path_factory.mktemp("whole")), 2)
    assert ends[0][0] == "done", ends
    assert ends[0] == ends[1]
    return trained, ends


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.faults) for n in range(1, 20))])
def test_of_two_processes_one_is_killed_and_the_training_ends_as_it_would_have(seed, by_two, tmp_path):
    trained, expected = by_two
    at = [random.Random(seed).randrange(1, 70), random.Random(seed).randrange(1, 5)]
    ends = [together(trained(tmp_path), 2, kill=rank, at=at[rank], within=tmp_path) for rank in (1, 0)]
    assert seed or [ends[0][1], ends[1][0]] == [("killed", None)] * 2
    assert together(trained(tmp_path), 2) == expected
    assert list(checkpoints_in(tmp_path / "training")) == [4, 3]


def test_by_another_number_of_processes_a_training_is_not_gone_on_with(by_two, tmp_path):
    trained, _ = by_two
    assert together(trained(tmp_path), 2, kill=1, at=3, within=tmp_path)[1] == ("killed", None)
    (status, said), *_ = together(trained(tmp_path), 1)
    assert status == "said"
    assert "does not have the random states of 1 process: expected rng_state.pth, found rng_state_0.pth, rng_st" in said
