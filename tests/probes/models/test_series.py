import json
import shutil

import pytest

import probes
from probes.models.bundled import BUNDLED
from probes.models.series import Series, series, spread


@pytest.fixture
def run(tmp_path, tiny_checkpoint):
    for step in (100, 20, 300):
        shutil.copytree(tiny_checkpoint, tmp_path / f"checkpoint-{step}")
    return tmp_path


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory):
    model, tokenizer = probes.load_checkpoint(next(iter(BUNDLED)))
    folder = tmp_path_factory.mktemp("tiny") / "one"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_folders_are_found_by_pattern_and_sorted_by_number(run):
    found = series(run / "checkpoint-*")
    assert list(found.steps) == [20, 100, 300]
    assert found.steps[100] == run / "checkpoint-100"


def test_a_folder_without_a_number_is_known_by_the_state_of_the_trainer(run):
    folder = run / "checkpoint-300"
    last = folder.rename(run / "last")
    with pytest.raises(probes.InputError, match=r"the step of .*last.* is not known: .* Give pairs \(step, path\)"):
        series([last])
    (last / "trainer_state.json").write_text(json.dumps({"global_step": 700}))
    assert list(series([last, run / "checkpoint-20"]).steps) == [20, 700]


def test_what_cannot_be_read_is_left_out_and_named_and_so_is_what_is_missing(run):
    (run / "checkpoint-200").mkdir()
    with pytest.warns(probes.LayerscopeWarning, match=r"step 200 \(.*left out: cannot be read"):
        assert list(series(str(run / "checkpoint-*")).steps) == [20, 100, 300]
    pairs = [(k, "bundled") for k in (0, 10, 20, 40, 50)]
    with pytest.warns(probes.LayerscopeWarning, match="no checkpoint of step 30, between others that are there"):
        series(pairs)
    series([(k, "bundled") for k in (1, 2, 4, 8, 16)])  # not evenly spaced, so that none is missing


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such-*", "expected folders that the pattern names, found none"),
        ([], "no checkpoint can be read: there is none"),
        ([(-1, "bundled")], "-1 is no step"),
        ([(5, "bundled"), (5, "bundled")], "'bundled' and 'bundled' are both of step 5. Give one"),
        ([(5, "no/such/folder")], r"no checkpoint can be read: step 5 \("),
    ],
)
def test_bad_series_are_refused(source, message):
    with pytest.raises(probes.InputError, match=message):
        series(source)


def test_two_folders_of_one_step_are_refused(run):
    (run / "other").mkdir()
    shutil.copytree(run / "checkpoint-20", run / "other" / "step20")
    with pytest.raises(probes.InputError, match=r"checkpoint-20' and .*step20' are both of step 20"):
        series([run / "checkpoint-20", run / "other" / "step20"])


def test_names_of_steps_are_kept_apart_from_those_of_models():
    with pytest.raises(probes.InputError, match="a model is called 'run 1', as is a step of a series"):
        spread({"run 1": "a", "run": Series({1: "b"})})
